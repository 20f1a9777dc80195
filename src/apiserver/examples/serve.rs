//! A bare API server on a directory: `serve DIR [PORT]` prints how long it took and writes DIR/kubeconfig.

use std::{path::PathBuf, sync::Arc, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_apiserver::server::{ApiServer, Config};
use coracle_pki::authority::Authority;
use coracle_store::embedded::{EmbeddedStore, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let begin = Instant::now();
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().ok_or("serve DIR [PORT]")?);
    let port = args.next().map_or(Ok(0), |port| port.parse())?;
    let authority = Arc::new(Authority::open(&dir.join("tls"))?);
    println!("authorities after {:?}", begin.elapsed());
    let store = Arc::new(EmbeddedStore::open(&dir.join("db"), Options::default())?);
    println!("store after {:?}", begin.elapsed());
    let config = Config {
        authority: Arc::clone(&authority),
        bind_address: [127, 0, 0, 1].into(),
        port,
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
    println!("ready after {:?}", begin.elapsed());
    let admin = authority.issue_client("admin", &["system:masters".into()])?;
    let [ca, certificate, key] = [authority.server_ca_pem(), &admin.certificate_pem, &admin.key_pem].map(|pem| STANDARD.encode(pem));
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://{}', certificate-authority-data: {ca}}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {certificate}, client-key-data: {key}}}}}]\n",
        server.address()
    );
    std::fs::write(dir.join("kubeconfig"), kubeconfig)?;
    println!("https://{}", server.address());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
