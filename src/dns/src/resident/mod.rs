//! The resident: a small process of the node that answers whatever becomes of the one that started it (design decision 6).
//!
//! It keeps its sockets over an upgrade by executing the new program in its own place, and its records over a death in a file.

pub(crate) mod cgroup;
mod control;
pub(crate) mod pidfd;
pub mod state;
pub(crate) mod udp;

use std::{
    io,
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, RwLock},
    time::Duration,
};

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::{handler::Handler, upstream::Upstream};

pub use control::{Command, Hello, MAX_HELLO_BYTES, greeting};
pub use state::{Sockets, State};

/// The hidden subcommand: `__dns STATE_DIR [UDP_FD TCP_FD]`, with the control socket as standard input.
pub const SUBCOMMAND: &str = "__dns";
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
        _ => {
            leave(&state.config.cgroup);
            Sockets::bind(state.config.listen, state.last_port())?
        }
    };
    let kept = sockets.keep()?;
    let program = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(&state, sockets))?;
    let [udp, tcp] = kept.arguments()?;
    Err(std::process::Command::new(program).arg(SUBCOMMAND).arg(state.directory()).args([udp, tcp]).exec())
}

/// Away from whoever started us: its session, its descriptors, its control group.
fn leave(cgroup: &str) {
    // SAFETY: nothing is open yet but the standard streams, which stay.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
    // It fails when we lead a group already, as one that was started by hand in a shell does.
    let _ = nix::unistd::setsid();
    if let Err(error) = cgroup::join(cgroup) {
        eprintln!("coracle dns: no control group of its own: {error}");
    }
}

/// Answers until it is to become another program: that one.
async fn serve(state: &State, sockets: Sockets) -> io::Result<PathBuf> {
    let control = std::os::unix::net::UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    control.set_nonblocking(true)?;
    let control = UnixListener::from_std(control)?;
    let records = Arc::new(RwLock::new(state.records()));
    let (resolv_conf, ourselves) = (state.config.resolv_conf.clone(), state.config.listen.ip());
    let upstream = Upstream::of(&resolv_conf, ourselves);
    let handler = Handler::new(records.clone(), state.config.cluster_domain.clone(), upstream.clone());
    tokio::spawn(async move {
        let error = upstream.follow(&resolv_conf, ourselves).await;
        eprintln!("coracle dns: changes of {} are not seen: {error}", resolv_conf.display());
    });
    let address = sockets.udp.local_addr()?;
    let end = CancellationToken::new();
    let udp = tokio::spawn(udp::serve(UdpSocket::from_std(sockets.udp)?, handler.clone(), end.clone()));
    let mut server = Server::new(handler);
    server.register_listener(TcpListener::from_std(sockets.tcp)?, TCP_PATIENCE, TCP_ANSWERS);
    state.announce(address)?;
    let program = control::obey(state, &records, control, address).await?;
    end.cancel();
    let _ = udp.await;
    Ok(program)
}
