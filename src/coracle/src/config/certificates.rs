//! Flags on certificates that are asked for by requests to the API, named as upstream's controller manager and kubelet name them.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use coracle_controllers::config::SIGNING_DURATION;

use super::server::{FlagError, duration};

/// Flags on certificates.
#[derive(Clone, Debug, Default, Args)]
pub struct CertificateFlags {
    /// How long what the built-in signers sign holds, and the node's certificates [default: 8760h]
    #[arg(long, env = "CORACLE_CLUSTER_SIGNING_DURATION", value_name = "DURATION")]
    pub cluster_signing_duration: Option<String>,
    /// Kubeconfig by which a node without a control plane asks for a client certificate of its own, such as one with a bootstrap token
    #[arg(long, env = "CORACLE_BOOTSTRAP_KUBECONFIG", value_name = "FILE")]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Ask the API for the certificate of the server of a node without a control plane, which somebody must approve
    #[arg(long, env = "CORACLE_ROTATE_SERVER_CERTIFICATES")]
    pub rotate_server_certificates: bool,
    /// Authorities by which the server of a node without a control plane knows its callers, in PEM [default: one of its own]
    #[arg(long, env = "CORACLE_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
}

/// What they say, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// How long what is signed holds.
    pub signing_duration: Duration,
    /// By which a node asks for its client certificate.
    pub bootstrap: Option<PathBuf>,
    /// Whether a node asks for its serving certificate.
    pub serving: bool,
    /// By which its server knows its callers.
    pub client_ca: Option<PathBuf>,
}

impl Certificates {
    /// Checks the flags.
    pub fn resolve(flags: &CertificateFlags) -> Result<Self, FlagError> {
        let signing_duration = match flags.cluster_signing_duration.as_deref() {
            None => SIGNING_DURATION,
            Some(text) => {
                let bad = || FlagError::new("cluster-signing-duration", text, "a duration of at least 1s, such as 720h");
                duration(text).filter(|d| *d >= Duration::from_secs(1)).ok_or_else(bad)?
            }
        };
        let file = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        Ok(Self {
            signing_duration,
            bootstrap: file(&flags.bootstrap_kubeconfig),
            serving: flags.rotate_server_certificates,
            client_ca: file(&flags.client_ca_file),
        })
    }
}
