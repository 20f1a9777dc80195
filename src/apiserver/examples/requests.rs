//! How long a request takes in this process, from the service to the last byte of the answer: `cargo run --release --example requests [POD.json]`.
//!
//! Writes are dry runs, so that no disk counts. Prints the median and the 99th percentile of each kind of request, in microseconds.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_apiserver::{
    local::Local,
    request::User,
    server::{ApiServer, Config},
};
use coracle_pki::authority::Authority;
use coracle_store::embedded::{EmbeddedStore, Options};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tower::ServiceExt as _;

/// Requests of each kind.
const ROUNDS: usize = 5000;
const POD: &str = r#"{"metadata": {"name": "web"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}"#;
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pod = match std::env::args().nth(1).map(PathBuf::from) {
        Some(path) => std::fs::read_to_string(path)?,
        None => POD.to_owned(),
    };
    let dir = tempfile::tempdir()?;
    let authority = Arc::new(Authority::open(&dir.path().join("tls"))?);
    let store = Arc::new(EmbeddedStore::open(&dir.path().join("db"), Options::default())?);
    let config = Config {
        authority,
        bind_address: [127, 0, 0, 1].into(),
        port: 0,
        advertise_address: [192, 0, 2, 10].into(),
        service_cidr: "10.43.0.0/16".into(),
        node_ports: 30000..=32767,
        cluster_domain: "cluster.local".into(),
        tls_sans: Vec::new(),
        bootstrap_token: None,
        authentication: Default::default(),
        audit: Default::default(),
        admission: None,
        further_metrics: Vec::new(),
    };
    let server = ApiServer::start(config, store).await?;
    let local = server.local(User { name: "admin".into(), groups: vec!["system:masters".into()], ..User::default() });
    ask(&local, "POST", "/api/v1/namespaces/default/serviceaccounts", r#"{"metadata": {"name": "default"}}"#).await?;
    ask(&local, "POST", PODS, &pod).await?;
    let name = serde_json::from_str::<serde_json::Value>(&pod)?["metadata"]["name"].as_str().ok_or("the pod has no name")?.to_owned();
    let get = format!("{PODS}/{name}");
    let post = format!("{PODS}?dryRun=All");
    let other = pod.replacen(&format!("\"name\": \"{name}\""), "\"generateName\": \"other-\"", 1);
    for (what, method, path, body) in [
        ("GET /version", "GET", "/version", ""),
        ("GET of a Pod", "GET", get.as_str(), ""),
        ("POST of a Pod", "POST", post.as_str(), other.as_str()),
    ] {
        let mut times = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            ask(&local, method, path, body).await?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        let us = |at: usize| Duration::as_secs_f64(&times[at]) * 1e6;
        println!("{what:<16} {:>8.1} {:>8.1}", us(ROUNDS / 2), us(ROUNDS * 99 / 100));
    }
    server.shutdown().await;
    Ok(())
}

async fn ask(local: &Local, method: &str, path: &str, body: &str) -> Result<(), Box<dyn std::error::Error>> {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    let answer = local.clone().oneshot(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?).await?;
    let code = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if code.is_success() { Ok(()) } else { Err(format!("{method} {path}: {code} {}", String::from_utf8_lossy(&body)).into()) }
}
