//! The resident: a small process of the node that answers whatever becomes of the one that started it (design decision 6).
//!
//! It keeps its sockets over an upgrade by executing the new program in its own place, and its records over a death in a file.

mod control;
pub mod state;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{Arc, RwLock},
    time::Duration,
};

use hickory_resolver::TokioResolver;
use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};

use crate::handler::Handler;

pub use control::{Command, Hello};
pub use state::{Sockets, State};

/// The hidden subcommand: `__dns STATE_DIR [UDP_FD TCP_FD]`.
pub const SUBCOMMAND: &str = "__dns";
/// Answers from upstream that are remembered.
const CACHE_ENTRIES: u64 = 4096;
/// What upstream says is believed no longer.
const CACHE_TTL: Duration = Duration::from_secs(300);
/// An idle TCP connection is closed.
const TCP_PATIENCE: Duration = Duration::from_secs(10);
/// Answers of one TCP connection that wait to be read.
const TCP_ANSWERS: usize = 32;

/// Is the resident, if the arguments say so.
pub fn dispatch(args: &[String]) -> Option<ExitCode> {
    match args {
        [_, word, state_dir, fds @ ..] if word == SUBCOMMAND => Some(match run(Path::new(state_dir), fds) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("coracle dns: {error}");
                ExitCode::FAILURE
            }
        }),
        _ => None,
    }
}

/// One thread: a question is microseconds of work.
fn run(state_dir: &Path, fds: &[String]) -> io::Result<()> {
    let state = State::load(state_dir)?;
    let sockets = match fds {
        [udp, tcp] => Sockets::inherit(udp, tcp)?,
        _ => Sockets::bind(state.config.listen, state.last_port())?,
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(state, sockets))
}

async fn serve(state: State, sockets: Sockets) -> io::Result<()> {
    let records = Arc::new(RwLock::new(state.records()));
    let handler = Handler::new(records.clone(), state.config.cluster_domain.clone(), upstream(&state.config.resolv_conf, state.config.listen));
    let address = sockets.udp.local_addr()?;
    let kept = sockets.keep()?;
    let mut server = Server::new(handler);
    server.register_socket(UdpSocket::from_std(sockets.udp)?);
    server.register_listener(TcpListener::from_std(sockets.tcp)?, TCP_PATIENCE, TCP_ANSWERS);
    state.announce(address)?;
    control::obey(&state, &records, address, kept).await
}

/// Forwards to the node's name servers; `None` when it has none but ourselves.
fn upstream(resolv_conf: &Path, ourselves: SocketAddr) -> Option<TokioResolver> {
    let text = std::fs::read(resolv_conf).ok()?;
    let (mut config, _) = hickory_resolver::system_conf::parse_resolv_conf(text).ok()?;
    let servers: Vec<_> = config.name_servers().iter().filter(|s| s.ip != ourselves.ip()).cloned().collect();
    if servers.is_empty() {
        return None;
    }
    config = hickory_resolver::config::ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, Default::default());
    let options = builder.options_mut();
    options.cache_size = CACHE_ENTRIES;
    options.positive_max_ttl = Some(CACHE_TTL);
    options.negative_max_ttl = Some(CACHE_TTL);
    options.timeout = Duration::from_secs(2);
    options.attempts = 2;
    options.preserve_intermediates = true;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    builder.build().ok()
}
