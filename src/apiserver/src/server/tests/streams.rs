//! Streams to a node: a TLS server stands in its place, with the certificates that a node has.

use std::convert::Infallible;

use http::{Response, header::UPGRADE};
use hyper::service::service_fn;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A node's server: answers with the path that it was asked for, or echoes upgraded bytes. Lets only the cluster's clients in.
async fn node(authority: &Authority) -> u16 {
    let pair = authority.issue_server(&[], &[Ipv4Addr::LOCALHOST.into()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = coracle_pki::verifier::of_clients(authority.client_ca(), &provider).unwrap();
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_client_cert_verifier(clients).with_single_cert(vec![pair.certificate], pair.key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(|request| async { Ok::<_, Infallible>(echo(request)) });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    port
}

fn echo(mut request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    assert!(!request.headers().contains_key("authorization"), "the caller's credentials stay with us");
    if !request.headers().contains_key(UPGRADE) {
        return Response::new(Full::new(Bytes::from(request.uri().to_string())));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            stream.write_all(&bytes[..count]).await.unwrap();
        }
    });
    let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "websocket");
    answer.header("sec-websocket-protocol", "v5.channel.k8s.io").body(Full::default()).unwrap()
}

async fn post(server: &ApiServer, path: &str, object: Value) {
    let user = User { name: "admin".into(), groups: vec![masters::GROUP.into()], ..User::default() };
    let method = if path.ends_with("/status") { "PUT" } else { "POST" };
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = server.local(user).oneshot(request.body(Full::new(Bytes::from(object.to_string()))).unwrap()).await.unwrap();
    let code = answer.status();
    assert!(code.is_success(), "{path}: {:?}", answer.into_body().collect().await.unwrap().to_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, server) = start(dir.path()).await;
    let port = node(&authority).await;
    let status =
        json!({"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}], "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}});
    post(&server, "/api/v1/nodes", json!({"metadata": {"name": "n"}})).await;
    post(&server, "/api/v1/nodes/n/status", json!({"metadata": {"name": "n"}, "status": status})).await;
    post(&server, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    post(&server, "/api/v1/namespaces/default/pods", pod).await;

    let token = Who::Token("let-me-in");
    let (code, text) = ask(&server, &authority, token, "GET", "/api/v1/namespaces/default/pods/web/log?tailLines=5", Value::Null).await;
    assert_eq!((code.as_u16(), text.as_str()), (200, "/containerLogs/default/web/c?tailLines=5"));
    let (code, text) = ask(&server, &authority, token, "GET", "/api/v1/nodes/n/proxy/stats/summary", Value::Null).await;
    assert_eq!((code.as_u16(), text.as_str()), (200, "/stats/summary"));
    let (code, text) = ask(&server, &authority, token, "GET", "/api/v1/nodes/none/proxy/", Value::Null).await;
    assert_eq!(code.as_u16(), 404, "{text}");

    let stream = TcpStream::connect(server.address()).await.unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.server_ca().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    let mut stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let head = "GET /api/v1/namespaces/default/pods/web/exec?command=sh&stdin=true HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer let-me-in\r\n\
                Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(answer.contains("v5.channel.k8s.io"), "{answer}");
    for text in ["one", "two and some more"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, text.as_bytes());
    }
    server.shutdown().await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "the stream ends with the server");
}
