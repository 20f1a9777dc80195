//! The API server's life: start, address, readiness, shutdown.

use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use coracle_api::catalogue::Catalogue;
use coracle_pki::{
    authority::Authority,
    renewal::{RenewalError, Renewing},
    verifier::VerifierError,
};
use coracle_store::Store;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};

use crate::{
    admission,
    aggregation::{self, Aggregation},
    audit::{self, Audit, AuditError},
    authentication::{self, Authenticator, FrontProxy, certificate::Verifier, service_account::Tokens},
    authorization::{Authorizers, masters, node::NodeAuthorizer, rbac::RbacAuthorizer},
    bootstrap::{self, BootstrapError},
    cache,
    flow::{self, Flow},
    handlers::{self, Documents},
    listener,
    local::Local,
    metrics::slis::Slis,
    names::{self, CidrError},
    node_proxy::NodeClient,
    registry::{self, Registry},
    request::User,
    resource_metrics::ResourceMetrics,
    tls,
};

/// How long requests and streams may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Read to see whether the store answers; nobody writes it.
const HEALTH_KEY: &str = "/registry/health";

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's authorities: made by `Authority::open(<data dir>/server/tls)`, and shared with the node's server.
    pub authority: Arc<Authority>,
    /// Where to listen.
    pub bind_address: IpAddr,
    /// 0 lets the system choose.
    pub port: u16,
    /// What pods reach the server by: the endpoint of the `kubernetes` Service.
    pub advertise_address: IpAddr,
    /// `10.43.0.0/16`.
    pub service_cidr: String,
    /// 30000 to 32767.
    pub node_ports: RangeInclusive<u16>,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Further names and addresses of the serving certificate.
    pub tls_sans: Vec<String>,
    /// A bearer token with the rights of `system:masters`, if any.
    pub bootstrap_token: Option<String>,
    /// Who else says who is who.
    pub authentication: authentication::Settings,
    /// Where requests are recorded, and which.
    pub audit: audit::Config,
    /// An AdmissionConfiguration: what plugins of admission are told.
    pub admission: Option<PathBuf>,
    /// What else the page of metrics says: families of others who work in this process.
    pub further_metrics: Vec<fn() -> String>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The network of Services.
    #[error("the service network is not usable")]
    ServiceCidr(#[source] CidrError),
    /// Nobody listens.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store's objects cannot be served.
    #[error("cannot open the registry")]
    Registry(#[source] registry::OpenError),
    /// What the operator says of admission.
    #[error("the admission configuration cannot be used")]
    Admission(#[source] admission::configuration::ConfigurationError),
    /// Requests cannot be recorded.
    #[error("cannot open the audit log")]
    Audit(#[source] AuditError),
    /// No serving or client certificate.
    #[error("cannot make the API server's certificates")]
    Certificate(#[source] RenewalError),
    /// Client certificates cannot be verified.
    #[error("cannot verify client certificates")]
    Clients(#[source] VerifierError),
    /// What the operator says of authentication.
    #[error("the authentication settings cannot be used")]
    Authentication(#[source] authentication::SettingsError),
    /// TLS does not take what it is given.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
    /// What every cluster has could not be created.
    #[error("cannot create the objects that every cluster has")]
    Bootstrap(#[source] BootstrapError),
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub registry: Registry,
    pub authenticator: Authenticator,
    pub authorizers: Arc<Authorizers>,
    pub audit: Audit,
    pub flow: Arc<Flow>,
    pub documents: Documents,
    pub nodes: NodeClient,
    pub aggregation: Arc<Aggregation>,
    pub resource_metrics: ResourceMetrics,
    pub slis: Slis,
    pub tokens: Arc<Tokens>,
    /// Ends streams.
    pub stop: CancellationToken,
    /// What others reach the server by.
    pub advertised: SocketAddr,
    pub store: Arc<dyn Store>,
    pub further_metrics: Vec<fn() -> String>,
    bootstrapped: AtomicBool,
}

impl Shared {
    /// What is served now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.registry.catalogue()
    }

    /// The objects that every cluster has exist.
    pub fn bootstrapped(&self) -> bool {
        self.bootstrapped.load(Ordering::Acquire)
    }

    /// The store can be read.
    pub async fn store_answers(&self) -> bool {
        self.store.get(HEALTH_KEY).await.is_ok()
    }
}

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    router: Router,
    address: SocketAddr,
    connections: TaskTracker,
    _aggregation: AbortOnDropHandle<()>,
}

impl ApiServer {
    /// Opens the registry over the store, creates what every cluster has, and listens.
    pub async fn start(config: Config, store: Arc<dyn Store>) -> Result<Self, StartError> {
        let first_service_ips = names::first_addresses(&config.service_cidr).map_err(StartError::ServiceCidr)?;
        let wanted = SocketAddr::new(config.bind_address, config.port);
        let listen = |source| StartError::Listen { address: wanted, source };
        let listener = TcpListener::bind(wanted).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(config.authority.client_ca(), &provider).map_err(StartError::Clients)?;
        let front_proxy = FrontProxy::new(config.authority.front_proxy_ca(), &provider).map_err(StartError::Clients)?;
        let (sans, ips) = names::of_server(&config, &first_service_ips);
        let certificate = Renewing::server(Arc::clone(&config.authority), sans, ips).map_err(StartError::Certificate)?;
        let tls = tls::server_config(Arc::new(certificate), verifier.for_handshake(&front_proxy.certificates), Arc::clone(&provider))
            .map_err(StartError::Tls)?;
        let identity = Renewing::client(Arc::clone(&config.authority), "kube-apiserver-kubelet-client", &[masters::GROUP.into()]);
        let identity = Arc::new(identity.map_err(StartError::Certificate)?);

        let admission = config.admission.as_deref().map(admission::configuration::Configuration::read).transpose();
        let told = admission.map_err(StartError::Admission)?.unwrap_or_default();
        let mut authorizers = None;
        let plugins = |cache: &cache::Cache| {
            let objects: Arc<dyn crate::objects::Objects> = Arc::new(cache.clone());
            let both = Authorizers { node: NodeAuthorizer::new(Arc::clone(&objects)), rbac: RbacAuthorizer::new(Arc::clone(&objects)) };
            let both = Arc::clone(authorizers.insert(Arc::new(both)));
            let mut plugins = admission::plugins(&objects, &both, &told);
            plugins.push(admission::resource_quota::ResourceQuota::new(cache.clone(), Arc::clone(&store), told.limited));
            plugins
        };
        let registry_config = registry::Config {
            service_cidr: config.service_cidr.clone(),
            node_ports: config.node_ports.clone(),
            history: cache::collection::Bounds::default(),
        };
        let registry = Registry::open(Arc::clone(&store), plugins, registry_config).await.map_err(StartError::Registry)?;
        let objects: Arc<dyn crate::objects::Objects> = Arc::new((*registry).clone());
        let authorizers = authorizers.unwrap_or_else(|| {
            let (node, rbac) = (NodeAuthorizer::new(Arc::clone(&objects)), RbacAuthorizer::new(Arc::clone(&objects)));
            Arc::new(Authorizers { node, rbac })
        });

        let aggregation = Aggregation::open(&config.authority, &provider, &*objects).map_err(StartError::Certificate)?;
        let issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
        let tokens = Arc::new(Tokens::new(Arc::clone(&config.authority), Arc::clone(&objects), issuer));
        let verifiers = (verifier, front_proxy);
        let authenticator =
            Authenticator::new(verifiers, Arc::clone(&tokens), objects, config.bootstrap_token.as_deref(), &config.authentication);
        let audit = Audit::open(&config.audit, registry.live().clone()).map_err(StartError::Audit)?;
        let shared = Arc::new(Shared {
            audit,
            flow: Arc::default(),
            authenticator: authenticator.map_err(StartError::Authentication)?,
            aggregation: Arc::new(aggregation),
            resource_metrics: ResourceMetrics::default(),
            slis: Slis::default(),
            nodes: NodeClient::new(&config.authority, identity, &provider).map_err(StartError::Tls)?,
            registry,
            authorizers,
            documents: Documents::default(),
            tokens,
            stop: CancellationToken::new(),
            advertised: SocketAddr::new(config.advertise_address, address.port()),
            store,
            further_metrics: config.further_metrics.clone(),
            bootstrapped: AtomicBool::new(false),
        });
        let router = handlers::router(&shared);
        let connections = TaskTracker::new();
        if let Some(file) = config.authentication.configuration.clone() {
            connections.spawn(authentication::follow(Arc::clone(&shared), file, shared.stop.clone()));
        }
        connections.spawn(listener::run(listener, tls, router.clone(), shared.stop.clone(), connections.clone()));
        let started = bootstrap::run(&shared, &config, &first_service_ips).await;
        let following = aggregation::run(Arc::clone(&shared.aggregation), shared.registry.clone());
        let following = AbortOnDropHandle::new(tokio::spawn(following));
        let server = Self { shared, router, address, connections, _aggregation: following };
        if let Err(error) = started {
            server.shutdown().await;
            return Err(StartError::Bootstrap(error));
        }
        server.shared.bootstrapped.store(true, Ordering::Release);
        server.connections.spawn(flow::run(Arc::downgrade(&server.shared)));
        server.connections.spawn(bootstrap::keep(Arc::downgrade(&server.shared), Arc::new(config), first_service_ips));
        Ok(server)
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server as this user sees it, without a socket.
    pub fn local(&self, user: User) -> Local {
        Local::new(self.router.clone(), user)
    }

    /// Whether `/readyz` says ok: the registry serves and the objects of every cluster exist.
    pub fn ready(&self) -> bool {
        self.shared.bootstrapped() && !self.shared.stop.is_cancelled()
    }

    /// Takes no new connections, ends watches, lets requests finish for a bounded time.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.connections.close();
        if timeout(SHUTDOWN_GRACE, self.connections.wait()).await.is_err() {
            tracing::warn!(left = self.connections.len(), "connections are cut");
        }
    }
}

#[cfg(test)]
mod tests;
