//! Another server, for tests: HTTPS on a port of its own, with a certificate of an authority of its own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use coracle_pki::authority::Authority;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper_util::rt::TokioIo;
use rustls::{ServerConfig, crypto::ring::default_provider};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

/// What a handler answers.
pub type Answer = Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// The server; it ends when it is dropped.
pub struct Web {
    /// Where it listens.
    pub address: SocketAddr,
    /// PEM of its authority.
    pub authority: String,
    /// Requests so far.
    pub asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Web {
    /// Answers by a function from request to answer.
    pub async fn start(handler: impl Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        Self::start_with(handler, true).await
    }

    /// The same; `keeps`: a connection stays after its answer.
    pub async fn start_with(handler: impl Fn(Request<Bytes>) -> BoxFuture<'static, Answer> + Send + Sync + 'static, keeps: bool) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path()).expect("authorities");
        let pair = authority.issue_server(&["localhost".to_owned()], &[]).expect("a certificate");
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions().expect("TLS");
        let config = builder.with_no_client_auth().with_single_cert(vec![pair.certificate], pair.key).expect("TLS");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let asked = Arc::new(AtomicUsize::new(0));
        let (count, handler) = (Arc::clone(&asked), Arc::new(handler));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, count, handler) = (acceptor.clone(), Arc::clone(&count), Arc::clone(&handler));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                        count.fetch_add(1, Ordering::SeqCst);
                        let handler = Arc::clone(&handler);
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            Ok::<_, hyper::Error>(handler(Request::from_parts(head, body)).await)
                        }
                    });
                    let _ =
                        hyper::server::conn::http1::Builder::new().keep_alive(keeps).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, authority: authority.server_ca_pem().to_owned(), asked, _tasks: tasks, _directory: directory }
    }

    /// Its URL, by the name in its certificate.
    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }
}

/// A JSON document.
pub fn json(value: &serde_json::Value) -> Answer {
    Response::new(http_body_util::Full::new(Bytes::from(value.to_string())).boxed_unsync())
}
