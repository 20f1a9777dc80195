//! Connections to extension API servers: TLS as the APIService wants it, shown the front-proxy certificate, and kept for the next request.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coracle_pki::{
    bundle::{self, TrustError},
    renewal::Renewing,
    stranger,
};
use futures::future::BoxFuture;
use http::Uri;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::service::Reference;
use crate::{body::Body, link::Link};

/// How long a server may take to accept, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections that wait for a next request, per address: watches hold others, and a burst of short requests needs few.
const IDLE_CONNECTIONS: usize = 4;
/// How long they wait.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Asks one extension API server; clones share its connections.
pub type Client = legacy::Client<Connector, Body>;

/// Why nobody can be asked, whoever answers.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The APIService's `caBundle`.
    #[error("spec.caBundle cannot be used")]
    Bundle(#[source] TrustError),
    /// The name of the Service.
    #[error("{0:?} cannot be the name of a server")]
    Name(String),
    /// rustls refuses.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

/// Makes clients.
pub struct Dialer {
    /// The front-proxy certificate.
    pub identity: Arc<Renewing>,
    /// Of cryptography.
    pub provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").finish_non_exhaustive()
    }
}

impl Dialer {
    /// A client of one APIService's server.
    pub fn client(&self, reference: &Reference) -> Result<Client, ClientError> {
        let name = format!("{}.{}.svc", reference.name, reference.namespace);
        let server = ServerName::try_from(name.clone()).map_err(|_| ClientError::Name(name))?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(ClientError::Tls)?;
        let builder = if reference.insecure {
            builder.dangerous().with_custom_certificate_verifier(stranger::verifier(&self.provider))
        } else {
            let verifier = bundle::verifier(&reference.ca_bundle, &self.provider).map_err(ClientError::Bundle)?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        };
        let config = builder.with_client_cert_resolver(Arc::clone(&self.identity) as Arc<_>);
        let connector = Connector { tls: TlsConnector::from(Arc::new(config)), server };
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(IDLE_CONNECTIONS);
        Ok(client.build(connector))
    }
}

/// Connects to the address of a URL and expects the Service's name there.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    server: ServerName<'static>,
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Link>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { tls, server } = self.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(443);
            let dial = async {
                let stream = TcpStream::connect((host.as_str(), port)).await?;
                stream.set_nodelay(true)?;
                tls.connect(server, stream).await
            };
            match timeout(CONNECT_TIMEOUT, dial).await {
                Ok(stream) => stream.map(|stream| TokioIo::new(Link(stream))),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}
