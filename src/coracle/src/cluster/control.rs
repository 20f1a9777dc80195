//! The control plane's roles: API server, controllers, scheduler.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
};

use coracle_apiserver::{
    request::User,
    server::{self, ApiServer},
};
use coracle_client::{
    Informers,
    election::{Seat, Terms, lead},
};
use coracle_controllers::config::OwnNode;
use coracle_pki::authority::Authority;
use coracle_store::{
    Store,
    embedded::EmbeddedStore,
    encryption::{Encrypted, InFile},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::start::StartError;
use crate::{config::server::ServerConfig, node, place::Place, steps::Steps};

/// The API server with what it stands on.
pub struct Api {
    /// It.
    pub server: ApiServer,
    /// Issues what the other roles need.
    pub authority: Arc<Authority>,
    /// Closed last.
    pub store: Arc<dyn Store>,
}

/// Opens authorities and store, starts the API server.
pub async fn api(config: &ServerConfig, advertise: IpAddr, node_ips: &[IpAddr], steps: &Steps) -> Result<Api, StartError> {
    let directory = config.data_dir.join("server");
    let authority = Arc::new(Authority::open(&directory.join("tls")).map_err(StartError::Authority)?);
    let store = open_store(&directory).await?;
    steps.done(format_args!("store open at revision {}", store.revision()));
    let mut tls_sans = config.tls_sans.clone();
    tls_sans.extend(node_ips.iter().map(ToString::to_string));
    let config = server::Config {
        authority: authority.clone(),
        bind_address: config.bind_address,
        port: config.port,
        advertise_address: advertise,
        service_cidr: config.service_cidr.to_string(),
        node_ports: config.node_ports.clone(),
        cluster_domain: config.cluster_domain.clone(),
        tls_sans,
        bootstrap_token: None,
        authentication: config.authentication.clone(),
        audit: config.audit.clone(),
        admission: config.admission.clone(),
        further_metrics: vec![coracle_client::metrics::page],
    };
    let server = ApiServer::start(config, store.clone()).await.map_err(StartError::Api)?;
    steps.done(format_args!("API server ready on {}", server.address()));
    Ok(Api { server, authority, store })
}

/// The store with Secrets encrypted; the keys lie beside it, so that a copy of the store alone tells none.
async fn open_store(directory: &Path) -> Result<Arc<dyn Store>, StartError> {
    let database = directory.join("db");
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&database, Default::default())).await;
    let store = Arc::new(opened.map_err(StartError::Task)?.map_err(StartError::Store)?);
    let keys = directory.join("cred").join("encryption-keys.json");
    let store = Encrypted::open(store, &keys, Arc::new(InFile), &["/registry/secrets/"]).await.map_err(StartError::Encryption)?;
    Ok(Arc::new(store))
}

/// An identity inside the process.
pub fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

/// Who acts for the cluster when several processes have the role.
pub fn seat(name: &'static str, place: &Place, beside_api: bool) -> Seat {
    let terms = if beside_api { Terms::IN_PROCESS } else { Terms::default() };
    Seat { namespace: "kube-system", name, identity: format!("{}_{}", node::name(), place.id), terms }
}

/// Starts the controllers; they act while they hold the seat.
pub fn controllers(
    seat: Seat,
    client: kube::Client,
    informers: Informers,
    config: &ServerConfig,
    (ca, authority, own_node): (String, Option<Arc<Authority>>, Option<OwnNode>),
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) {
    let settings = coracle_controllers::Config {
        cluster_cidrs: vec![config.cluster_cidr],
        ca_bundle: ca,
        authority,
        signing_duration: config.certificates.signing_duration,
        own_node,
        ..Default::default()
    };
    tasks.spawn(lead(client.clone(), seat, shutdown, move |shutdown| {
        let work = coracle_controllers::run(client.clone(), informers.clone(), settings.clone(), shutdown);
        async {
            if let Err(error) = work.await {
                tracing::error!(error = &error as &dyn std::error::Error, "the controllers ended");
            }
        }
    }));
}

/// Starts the scheduler; it acts while it holds the seat.
pub fn scheduler(seat: Seat, client: kube::Client, informers: Informers, shutdown: CancellationToken, tasks: &TaskTracker) {
    tasks.spawn(lead(client.clone(), seat, shutdown, move |shutdown| {
        coracle_scheduler::run(client.clone(), informers.clone(), Default::default(), shutdown)
    }));
}

/// Where another process or a person reaches the server.
pub fn endpoint(address: SocketAddr, advertise: IpAddr) -> SocketAddr {
    if address.ip().is_unspecified() { SocketAddr::new(advertise, address.port()) } else { address }
}
