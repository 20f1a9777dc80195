//! The role in the main process: keeps the resident running and told, and the Service in front of it.

mod objects;
mod plan;
mod process;
mod stop;
mod watch;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, Instant},
};

use coracle_client::Informers;
use tokio::sync::watch as latest;
use tokio_util::sync::CancellationToken;

use crate::resident::state::{self, Settings};

pub use objects::slice_name;
pub use stop::{StopError, stop};

/// Where the node's own name servers stand.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A resident that ended sooner than this after its start will do so again: the next start waits.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// The first wait; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What the role must be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the resident: the node's own in the pod network. Port 0: the one of last time, else any.
    pub listen: SocketAddr,
    /// Directory of the resident; made when it is not there.
    pub state_dir: PathBuf,
    /// Program that is the resident when called with [`crate::resident::SUBCOMMAND`].
    pub program: PathBuf,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Address of the Service kube-dns.
    pub cluster_dns: IpAddr,
    /// The node that the resident runs on.
    pub node_name: String,
    /// Control group of the cluster, relative to the hierarchies; the resident gets one below it.
    pub cgroup: String,
}

/// Why there can be no DNS.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// the state of DNS cannot be kept in {path}
    #[error("the state of DNS cannot be kept in {path}")]
    State {
        /// The state directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves until `shutdown`. The resident stays: it answers on while nobody tells it anything; [`stop`] ends it.
pub async fn run(config: Config, client: kube::Client, informers: Informers, shutdown: CancellationToken) -> Result<(), RunError> {
    let settings = Settings {
        listen: config.listen,
        cluster_domain: config.cluster_domain.trim_matches('.').to_ascii_lowercase(),
        resolv_conf: RESOLV_CONF.into(),
        cgroup: config.cgroup.clone(),
    };
    let news =
        process::prepare(&config.state_dir, &settings).map_err(|source| RunError::State { path: config.state_dir.clone(), source })?;
    let (address, addresses) = latest::channel(None);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = supervise(&config, news, &informers, &address) => {}
        () = objects::keep(&config, client, &informers, addresses) => {}
    }
    Ok(())
}

/// Keeps a resident and tells it what changes; `address` is where it answers, once it knows the cluster.
async fn supervise(config: &Config, mut news: bool, informers: &Informers, address: &latest::Sender<Option<SocketAddr>>) {
    let mut sight = watch::Sight::new(informers);
    let mut wait = Duration::ZERO;
    loop {
        tokio::time::sleep(wait).await;
        let began = Instant::now();
        let end = match process::attend(config, news).await {
            Ok(mut resident) => {
                news = false;
                tracing::info!(pid = resident.hello.pid, address = %resident.hello.address, adopted = resident.adopted, "DNS runs");
                let at = resident.hello.address;
                tokio::select! {
                    () = process::gone(&resident.process) => "the resident of DNS ended".to_owned(),
                    Err(error) = sight.tell(&mut resident.talk, || _ = address.send_replace(Some(at))) => format!("the resident of DNS does not listen: {error}"),
                }
            }
            Err(error) => format!("the resident of DNS did not start: {error}"),
        };
        wait = if began.elapsed() > SHORT_LIFE { Duration::ZERO } else { (wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT) };
        let last_words = state::last_words(&config.state_dir);
        tracing::warn!(again_in_ms = wait.as_millis(), last_words, "{end}");
    }
}
