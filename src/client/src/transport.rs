//! The two ways to the API server: a service call in this process, or mTLS by kubeconfig.

use std::path::{Path, PathBuf};

use http::{Request, Response};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, Service};

/// What we call ourselves: the manager of the fields that we write.
const USER_AGENT: &str = concat!("coracle/", env!("CARGO_PKG_VERSION"));

/// A client whose transport is a call of `service`: no socket, no TLS. The service sees origin-form URIs (`/api/v1/pods?watch=true`).
pub fn in_process<S, B>(service: S) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    Client::new(service, "default")
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
    let at = || path.to_path_buf();
    // kube asks rustls for the process's provider; a second installation is refused, and that is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let file = Kubeconfig::read_from(path).map_err(|e| KubeconfigError::Read { path: at(), source: Box::new(e) })?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|e| KubeconfigError::Context { path: at(), source: Box::new(e) })?;
    // The cluster's API server is never behind the proxy of the user's shell.
    config.proxy_url = None;
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(USER_AGENT)));
    Client::try_from(config).map_err(|e| KubeconfigError::Tls { path: at(), source: Box::new(e) })
}
