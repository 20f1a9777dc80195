//! A whole server on a directory of its own, asked over TLS as clients ask.

use std::{net::Ipv4Addr, path::Path};

use bytes::Bytes;
use coracle_store::embedded::{EmbeddedStore, Options};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::ServiceExt as _;

use super::*;

mod flow;
mod routes;
mod streams;

async fn start(dir: &Path) -> (Arc<Authority>, ApiServer) {
    let authority = Arc::new(Authority::open(&dir.join("tls")).unwrap());
    let store = Arc::new(EmbeddedStore::open(&dir.join("db"), Options::default()).unwrap());
    let config = Config {
        authority: Arc::clone(&authority),
        bind_address: Ipv4Addr::LOCALHOST.into(),
        port: 0,
        advertise_address: Ipv4Addr::new(192, 0, 2, 10).into(),
        service_cidr: "10.43.0.0/16".into(),
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".into(),
        tls_sans: Vec::new(),
        bootstrap_token: Some("let-me-in".into()),
        authentication: Default::default(),
        audit: Default::default(),
        admission: None,
        further_metrics: vec![|| "# HELP further More.\n# TYPE further gauge\nfurther 1\n".to_owned()],
    };
    (authority, ApiServer::start(config, store).await.unwrap())
}

/// One request on a connection of its own: with a client certificate, a bearer token, or neither.
async fn ask(server: &ApiServer, authority: &Authority, who: Who<'_>, method: &str, path: &str, body: Value) -> (StatusCode, String) {
    let mut roots = RootCertStore::empty();
    roots.add(authority.server_ca().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match who {
        Who::Certificate(of, name, groups) => {
            let pair = of.issue_client(name, &groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>()).unwrap();
            builder.with_client_auth_cert(vec![pair.certificate], pair.key).unwrap()
        }
        _ => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost").header("content-type", "application/json");
    if let Who::Token(token) = who {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let answer = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let code = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[derive(Clone, Copy)]
enum Who<'a> {
    Nobody,
    Token(&'a str),
    Certificate(&'a Authority, &'a str, &'a [&'a str]),
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_ask_what() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, server) = start(dir.path()).await;
    assert!(server.ready());
    let other = Authority::open(&dir.path().join("other")).unwrap();
    let admin = Who::Certificate(&authority, "admin", &["system:masters"]);
    let (_, account) =
        ask(&server, &authority, admin, "POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "web"}})).await;
    assert!(account.contains("\"uid\""), "{account}");
    let path = "/api/v1/namespaces/default/serviceaccounts/web/token";
    let (code, text) = ask(&server, &authority, admin, "POST", path, json!({"spec": {"expirationSeconds": 600}})).await;
    assert_eq!(code, StatusCode::CREATED, "{text}");
    let token = serde_json::from_str::<Value>(&text).unwrap()["status"]["token"].as_str().unwrap().to_owned();
    let pods = "/api/v1/namespaces/default/pods";
    let cases = [
        (Who::Nobody, "/readyz", 200, "ok"),
        (Who::Nobody, "/version", 200, "v1.36.3+coracle1"),
        (Who::Nobody, "/versions", 401, "Unauthorized"),
        (Who::Nobody, "/metrics/slis", 401, "Unauthorized"),
        (Who::Token(&token), "/metrics/slis", 403, "cannot get path"),
        (Who::Nobody, pods, 401, "Unauthorized"),
        (Who::Token("let-me-in"), pods, 200, "PodList"),
        (Who::Token("let-me-out"), pods, 401, "Unauthorized"),
        (
            Who::Token(&token),
            pods,
            403,
            r#"User \"system:serviceaccount:default:web\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""#,
        ),
        (Who::Token(&token), "/apis", 200, "APIGroupList"),
        (admin, pods, 200, "PodList"),
        (admin, "/apis/none.test/v1/things", 404, "404 page not found"),
        (admin, "/apis/apps/v1/things", 404, "the server could not find the requested resource"),
        (
            Who::Certificate(&authority, "bob", &["dev"]),
            "/api/v1/nodes",
            403,
            r#"User \"bob\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"#,
        ),
        (Who::Certificate(&other, "admin", &["system:masters"]), pods, 401, "Unauthorized"),
        (
            Who::Certificate(&authority, "system:node:n", &["system:nodes"]),
            "/api/v1/secrets",
            403,
            "can only read namespaced object of this type",
        ),
    ];
    for (who, path, code, text) in cases {
        let (seen, body) = ask(&server, &authority, who, "GET", path, Value::Null).await;
        assert_eq!(seen.as_u16(), code, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
    let (code, _) = ask(&server, &authority, admin, "DELETE", "/api/v1/namespaces/default/serviceaccounts/web", Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let (code, body) = ask(&server, &authority, Who::Token(&token), "GET", pods, Value::Null).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED, "a token dies with its account: {body}");
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_has_what_it_had_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let (_, server) = start(&path).await;
        let user = User { name: "admin".into(), groups: vec![masters::GROUP.into()], ..User::default() };
        let get = |path: &str| {
            let request = Request::get(path).body(Full::new(Bytes::new())).unwrap();
            let local = server.local(user.clone());
            async move { local.oneshot(request).await.unwrap().into_body().collect().await.unwrap().to_bytes() }
        };
        let service: Value = serde_json::from_slice(&get("/api/v1/namespaces/default/services/kubernetes").await).unwrap();
        addresses.push((service["spec"]["clusterIP"].clone(), service["metadata"]["uid"].clone()));
        let slice: Value =
            serde_json::from_slice(&get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await).unwrap();
        assert_eq!(slice["ports"][0]["port"], server.address().port());
        let namespaces: Value = serde_json::from_slice(&get("/api/v1/namespaces").await).unwrap();
        assert_eq!(namespaces["items"].as_array().unwrap().len(), 4);
        let store = Arc::clone(&server.shared.store);
        server.shutdown().await;
        store.close().await.unwrap();
    }
    assert_eq!(addresses[0].0, "10.43.0.1");
    assert_eq!(addresses[0], addresses[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_api_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, server) = start(dir.path()).await;
    let admin = Who::Certificate(&authority, "admin", &["system:masters"]);
    for path in [
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
    ] {
        let (code, text) = ask(&server, &authority, admin, "DELETE", path, Value::Null).await;
        assert_eq!(code, StatusCode::OK, "{text}");
        // The server follows the objects on its own; the harness' time bounds the wait.
        while ask(&server, &authority, admin, "GET", path, Value::Null).await.0 != StatusCode::OK {}
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (_, server) = start(dir.path()).await;
    let user = User { name: "admin".into(), groups: vec![masters::GROUP.into()], ..User::default() };
    let request = Request::get("/api/v1/pods?watch=true").body(Full::new(Bytes::new())).unwrap();
    let watch = server.local(user).oneshot(request).await.unwrap().into_body();
    server.shutdown().await;
    assert!(watch.collect().await.is_ok(), "the stream ends, it does not break");
}
