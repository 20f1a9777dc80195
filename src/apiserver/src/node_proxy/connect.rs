//! Connections to nodes (mutual TLS with the cluster's authorities) and to pods (whatever the request says).

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coracle_api::status::Status;
use coracle_pki::{authority::Authority, renewal::Renewing, stranger};
use rustls::{ClientConfig, RootCertStore, crypto::CryptoProvider, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::target::{Scheme, Target};

/// How long a node or pod may take to accept, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a node or pod.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Dials nodes as `kube-apiserver-kubelet-client`.
pub(crate) struct NodeClient {
    nodes: TlsConnector,
    pods: TlsConnector,
}

impl std::fmt::Debug for NodeClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeClient").finish_non_exhaustive()
    }
}

impl NodeClient {
    /// Trusts nodes by the cluster's server authority and shows them `identity`.
    pub fn new(authority: &Authority, identity: Arc<Renewing>, provider: &Arc<CryptoProvider>) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.server_ca().clone())?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
        let nodes = builder.with_root_certificates(roots).with_client_cert_resolver(identity);
        // Pods and Services have certificates of their own making; upstream's proxy does not check them either.
        let pods = stranger::client_config(provider)?;
        Ok(Self { nodes: TlsConnector::from(Arc::new(nodes)), pods: TlsConnector::from(Arc::new(pods)) })
    }

    /// Connects, or says what could not be reached.
    pub(super) async fn connect(&self, target: &Target) -> Result<Stream, Status> {
        let dial = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            stream.set_nodelay(true)?;
            let connector = match target.scheme {
                Scheme::Http => return Ok(Stream::Plain(stream)),
                Scheme::Node => &self.nodes,
                Scheme::Https => &self.pods,
            };
            let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Stream::Tls(Box::new(connector.connect(name, stream).await?)))
        };
        match timeout(CONNECT_TIMEOUT, dial).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(target.unreachable(&error)),
            Err(_) => Err(target.unreachable(&io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
