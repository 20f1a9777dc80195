//! Servers that a call can meet, each over TLS on a loopback port: honest ones and others.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::objects::PodRecord;

/// Long enough for any answer that comes at all.
const PATIENCE: Duration = Duration::from_secs(20);
const LIMIT: usize = 1 << 16;

/// A Service with one ready endpoint.
#[derive(Debug)]
struct Cluster(u16);

#[async_trait::async_trait]
impl Objects for Cluster {
    fn get(&self, _: &str, resource: &str, _: &str, name: &str) -> Option<Value> {
        (resource == "services" && name == "s").then(|| json!({"spec": {"type": "ClusterIP", "ports": [{"port": 443}]}}))
    }
    async fn appears(&self, _: &str, _: &str, _: &str, _: &str, _: Duration) -> Option<Value> {
        None
    }
    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Value> {
        vec![json!({"metadata": {"labels": {"kubernetes.io/service-name": "s"}}, "addressType": "IPv4",
            "ports": [{"name": "", "port": self.0}], "endpoints": [{"addresses": ["127.0.0.1"]}]})]
    }
    fn version(&self, _: &str, _: &str) -> u64 {
        0
    }
    fn pods_on(&self, _: &str, _: &str) -> Vec<PodRecord> {
        Vec::new()
    }
}

/// A server that answers each request with these bytes; the number of connections that it took.
struct Liar {
    address: SocketAddr,
    bundle: String,
    connections: Arc<std::sync::atomic::AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Liar {
    async fn start(answer: &'static [u8], again: bool) -> Self {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "s.n.svc".to_owned()];
        let certificate = CertificateParams::new(names).and_then(|params| params.self_signed(&key)).expect("a certificate");
        let own_key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], own_key).expect("a server");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let serve = async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut heard = vec![0; 64 << 10];
                    // Requests of these tests are one small piece each.
                    while stream.read(&mut heard).await.is_ok_and(|n| n > 0) {
                        if answer.is_empty() {
                            std::future::pending::<()>().await;
                        }
                        while stream.write_all(answer).await.is_ok() && again {}
                        let _ = stream.flush().await;
                    }
                });
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(serve));
        Self { address, bundle: STANDARD.encode(certificate.pem()), connections, _task: task }
    }

    fn by_url(&self) -> Value {
        json!({"url": format!("https://{}/hook", self.address), "caBundle": self.bundle})
    }

    fn servers(&self) -> Servers {
        Servers::new(Arc::new(Cluster(self.address.port())))
    }

    async fn call(&self, config: &Value, patience: Duration) -> Result<Value, CallError> {
        self.servers().of(config).expect("a server").post(b"{}".to_vec(), patience, LIMIT).await
    }
}

const HONEST: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 8\r\n\r\n{\"a\": 1}";

#[tokio::test]
async fn an_honest_server_is_reached_by_url_and_by_service_on_one_connection() {
    let server = Liar::start(HONEST, false).await;
    let servers = server.servers();
    let by_service = json!({"service": {"name": "s", "namespace": "n", "path": "/hook"}, "caBundle": server.bundle});
    for config in [server.by_url(), by_service] {
        for _ in 0..3 {
            let answer = servers.of(&config).expect("a server").post(b"{}".to_vec(), PATIENCE, LIMIT).await;
            assert_eq!(answer.expect("an answer"), json!({"a": 1}), "{config}");
        }
    }
    assert_eq!(server.connections.load(std::sync::atomic::Ordering::Relaxed), 2, "one for each place");
}

#[tokio::test]
async fn what_cannot_be_trusted_or_found_is_not_asked() {
    let server = Liar::start(HONEST, false).await;
    let other = Liar::start(HONEST, false).await;
    for (config, what) in [
        (json!({"url": format!("https://{}", server.address), "caBundle": other.bundle}), "certificate"),
        (json!({"url": format!("https://localhost:{}", server.address.port()), "caBundle": server.bundle}), "certificate"),
        (json!({"service": {"name": "gone", "namespace": "n"}, "caBundle": server.bundle}), "service \"gone\" not found"),
        (json!({"service": {"name": "s", "namespace": "n", "port": 80}, "caBundle": server.bundle}), "no service port 80"),
    ] {
        let why = server.call(&config, PATIENCE).await.expect_err("no answer").to_string();
        assert!(why.contains(what), "{config}: {why}");
    }
    let servers = server.servers();
    for bundle in ["%", "bm8gY2VydGlmaWNhdGU="] {
        assert!(servers.of(&json!({"url": "https://h.test", "caBundle": bundle})).is_err());
    }
}

#[tokio::test]
async fn a_lie_of_any_size_ends() {
    for (answer, again, what) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope"[..], false, "not JSON"),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\nsorry", false, "500 Internal Server Error: sorry"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n", false, "larger than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", true, "larger than 65536 bytes"),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", false, "Post"),
        (b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n", false, "302 Found"),
    ] {
        let server = Liar::start(answer, again).await;
        let why = server.call(&server.by_url(), PATIENCE).await.expect_err("a lie").to_string();
        assert!(why.contains(what), "{}: {why}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn silence_ends_with_patience() {
    let server = Liar::start(b"", false).await;
    let why = server.call(&server.by_url(), Duration::from_millis(50)).await.expect_err("no answer").to_string();
    assert!(why.contains("context deadline exceeded") && why.contains("/hook?timeout=1s"), "{why}");
}
