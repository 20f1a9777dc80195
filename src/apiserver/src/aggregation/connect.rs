//! Connections to extension API servers: TLS as the APIService wants it, shown the front-proxy certificate, and kept for the next request.
//!
//! A server that offers HTTP/2 answers short requests on one connection. What lives on has one of its own, in HTTP/1.1: an upgrade needs it, and
//! watches would take the shared one's streams, of which a server allows a hundred or two, until nobody else is answered.

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

/// How long a shared connection may be silent, while answers are due, before it is asked for a sign of life, and how long that may take.
const SILENCE: Duration = Duration::from_secs(30);
const SIGN_OF_LIFE_TIMEOUT: Duration = Duration::from_secs(15);
/// What is offered for short requests, in this order.
const SHORT_PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What is offered for those that live on.
const LONG_PROTOCOLS: [&[u8]; 1] = [b"http/1.1"];

/// Asks one extension API server; clones share its connections.
pub type Client = legacy::Client<Connector, Body>;

/// The two ways of asking one extension API server.
pub struct Clients {
    /// For requests that are answered and over: HTTP/2 where the server offers it.
    pub short: Client,
    /// For watches and upgrades.
    pub long: Client,
}

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
    /// The clients of one APIService's server.
    pub fn clients(&self, reference: &Reference) -> Result<Clients, ClientError> {
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
        let client = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            let connector = Connector { tls: TlsConnector::from(Arc::new(config)), server: server.clone() };
            let mut client = legacy::Client::builder(TokioExecutor::new());
            client.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_TIMEOUT).pool_max_idle_per_host(IDLE_CONNECTIONS);
            client.timer(TokioTimer::new()).http2_keep_alive_interval(SILENCE).http2_keep_alive_timeout(SIGN_OF_LIFE_TIMEOUT);
            client.http2_adaptive_window(true);
            client.build(connector)
        };
        Ok(Clients { short: client(&SHORT_PROTOCOLS), long: client(&LONG_PROTOCOLS) })
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

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, net::SocketAddr};

    use coracle_pki::authority::Authority;
    use http::{Request, Response, Version};
    use http_body_util::BodyExt as _;
    use hyper::service::service_fn;
    use hyper_util::server::conn::auto;
    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ServerConfig, pki_types::PrivateKeyDer};
    use tokio::{net::TcpListener, task::JoinSet};
    use tokio_rustls::TlsAcceptor;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::body::full;

    /// A server that offers these protocols and answers with the number of the connection; PEM of its certificate.
    async fn server(protocols: &[&[u8]]) -> (SocketAddr, Vec<u8>, AbortOnDropHandle<()>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["s.n.svc".to_owned()]).and_then(|params| params.self_signed(&key)).expect("its own");
        let own_key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], own_key).expect("a server");
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let serve = async move {
            let (mut open, mut number) = (JoinSet::new(), 0);
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, own) = (acceptor.clone(), number);
                number += 1;
                open.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(|request: Request<hyper::body::Incoming>| async move {
                        let hosts = request.headers().get_all(http::header::HOST).iter().count();
                        Ok::<_, Infallible>(Response::new(full(format!("{own} {hosts}"))))
                    });
                    // A client that goes away is no matter of the server's.
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        };
        (address, certificate.pem().into_bytes(), AbortOnDropHandle::new(tokio::spawn(serve)))
    }

    async fn ask(client: &Client, address: SocketAddr) -> (Version, String) {
        let request = Request::builder().uri(format!("https://{address}/")).body(full("")).expect("a request");
        let reply = client.request(request).await.expect("an answer");
        let version = reply.version();
        let body = reply.into_body().collect().await.expect("whole").to_bytes();
        (version, String::from_utf8(body.to_vec()).expect("a text"))
    }

    #[tokio::test]
    async fn short_requests_share_a_connection_where_the_server_can() {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Arc::new(Authority::open(directory.path()).expect("authorities"));
        let identity = Arc::new(Renewing::front_proxy(authority, "system:auth-proxy").expect("a certificate"));
        let dialer = Dialer { identity, provider: Arc::new(rustls::crypto::ring::default_provider()) };
        for (offered, short, shared) in [
            (&[b"h2" as &[u8], b"http/1.1"] as &[&[u8]], Version::HTTP_2, true),
            (&[b"http/1.1"], Version::HTTP_11, false),
            (&[], Version::HTTP_11, false),
        ] {
            let (address, ca_bundle, _serving) = server(offered).await;
            let reference = Reference { namespace: "n".into(), name: "s".into(), port: 443, ca_bundle, insecure: false };
            let clients = dialer.clients(&reference).expect("clients");
            let first = ask(&clients.short, address).await;
            assert_eq!(first, (short, format!("0 {}", usize::from(!shared))), "HTTP/2 says the host in its own way");
            let both = futures::join!(ask(&clients.short, address), ask(&clients.short, address));
            assert_eq!((both.0.0, both.1.0), (short, short));
            assert!(!shared || both.0.1 == first.1 && both.1.1 == first.1, "{both:?}: two at once on the one connection");
            assert_eq!(ask(&clients.long, address).await.0, Version::HTTP_11, "what lives on has a connection of its own");
        }
    }
}
