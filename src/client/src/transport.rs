//! The two ways to the API server: a service call in this process, or mTLS by kubeconfig.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use base64::Engine as _;
use http::{Request, Response};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder},
    config::{AuthInfo, KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Service};

use crate::metrics::Counted;

/// What we call ourselves: the manager of the fields that we write.
const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));
/// What the API server of this process is called where hosts are told apart.
const IN_PROCESS: &str = "in-process";

/// A client whose transport is a call of `service`: no socket, no TLS. The service sees origin-form URIs (`/api/v1/pods?watch=true`).
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(Counted::new(service, IN_PROCESS), "default")
}

/// Why a kubeconfig gives no client.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// kubeconfig {path} cannot be read
    #[error("kubeconfig {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// kubeconfig {path} names no usable cluster and user
    #[error("kubeconfig {path} names no usable cluster and user")]
    Context {
        /// The file.
        path: PathBuf,
        /// What is missing.
        #[source]
        source: Box<kube::config::KubeconfigError>,
    },
    /// the keys and certificates of kubeconfig {path} make no TLS client
    #[error("the keys and certificates of kubeconfig {path} make no TLS client")]
    Tls {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client for the current context of the kubeconfig at `path`. Dials on first use.
pub async fn from_kubeconfig(path: &Path) -> Result<Client, KubeconfigError> {
    // kube asks rustls for the process's provider; a second installation is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = config(path).await?;
    // The cluster's API server is never behind the proxy of the user's shell.
    config.proxy_url = None;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    dialled(config).map_err(|e| KubeconfigError::Tls { path: path.to_path_buf(), source: Box::new(e) })
}

/// A client that dials, and counts what it asks.
fn dialled(config: Config) -> Result<Client, kube::Error> {
    let host = config.cluster_url.authority().map(ToString::to_string).unwrap_or_default();
    let counted = tower::layer::layer_fn(move |inner| Counted::new(inner, &host));
    Ok(ClientBuilder::try_from(config)?.with_layer(&counted).build())
}

/// The way to an API server for one whose certificate changes: what is asked after a change goes over new connections, and what was open
/// before goes on over the old ones.
pub struct Renewed {
    path: PathBuf,
    config: Config,
    current: RwLock<Option<Client>>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Nobody has said yet who asks.
#[derive(Debug, thiserror::Error)]
#[error("there is no client certificate yet")]
struct Nobody;

impl Renewed {
    /// To the server of the kubeconfig at `path`, and not as its user.
    pub async fn of(path: &Path) -> Result<Self, KubeconfigError> {
        let mut config = config(path).await?;
        config.proxy_url = None;
        config.auth_info = AuthInfo::default();
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
        Ok(Self { path: path.to_owned(), config, current: RwLock::default() })
    }

    /// From now on as the owner of this certificate and key, both in PEM.
    pub fn identify(&self, certificate: &str, key: &str) -> Result<(), KubeconfigError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = |pem| base64::engine::general_purpose::STANDARD.encode(pem);
        let mut config = self.config.clone();
        config.auth_info.client_certificate_data = Some(text(certificate));
        config.auth_info.client_key_data = Some(text(key).into());
        let client = dialled(config).map_err(|e| KubeconfigError::Tls { path: self.path.clone(), source: Box::new(e) })?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(client);
        Ok(())
    }

    /// The client; its requests fail until it is known who asks.
    pub fn client(self: &Arc<Self>) -> Client {
        let renewed = Arc::clone(self);
        // The client inside counts.
        let service = tower::service_fn(move |request: Request<Body>| {
            let current = renewed.current.read().unwrap_or_else(PoisonError::into_inner).clone();
            async move { Ok::<_, BoxError>(current.ok_or(Nobody)?.send(request).await?) }
        });
        Client::new(service, "default")
    }
}

/// What the current context of the kubeconfig at `path` trusts its API server by, as PEM; empty when it leaves that to the system.
pub async fn authority_of(path: &Path) -> Result<String, KubeconfigError> {
    let roots = config(path).await?.root_cert.unwrap_or_default();
    Ok(roots.iter().map(|der| pem(der)).collect())
}

async fn config(path: &Path) -> Result<Config, KubeconfigError> {
    let at = || path.to_path_buf();
    let file = Kubeconfig::read_from(path).map_err(|e| KubeconfigError::Read { path: at(), source: Box::new(e) })?;
    let context = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    context.map_err(|e| KubeconfigError::Context { path: at(), source: Box::new(e) })
}

/// RFC 7468: lines of 64 characters.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: String = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line) + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kubeconfig of two clusters, of which the second is the current one; its authority is in a file.
    fn kubeconfig(authority: &Path) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: b\n\
             clusters:\n- {{name: a, cluster: {{server: https://127.0.0.1:1}}}}\n\
             - {{name: b, cluster: {{server: https://127.0.0.1:2, certificate-authority: {}}}}}\n\
             users:\n- {{name: u, user: {{token: t}}}}\n\
             contexts:\n- {{name: a, context: {{cluster: a, user: u}}}}\n- {{name: b, context: {{cluster: b, user: u}}}}\n",
            authority.display()
        )
    }

    #[tokio::test]
    async fn the_authority_is_the_current_contexts_and_a_missing_one_is_an_error() {
        let home = std::env::temp_dir().join(format!("coracle-transport-{}", std::process::id()));
        std::fs::create_dir_all(&home).unwrap();
        let (file, authority) = (home.join("config"), home.join("ca.crt"));
        std::fs::write(&file, kubeconfig(&authority)).unwrap();
        let missing = authority_of(&file).await.unwrap_err();
        let text = pem(&[7; 100]) + &pem(&[8; 48]);
        std::fs::write(&authority, &text).unwrap();
        let found = authority_of(&file).await;
        std::fs::remove_dir_all(&home).unwrap();
        assert!(matches!(missing, KubeconfigError::Context { .. }), "{missing}");
        assert_eq!(found.unwrap(), text);
    }
}
