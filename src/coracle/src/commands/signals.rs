//! The signals that end a cluster: SIGTERM, and SIGINT of Ctrl-C.

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind, signal};

use crate::failure::Failure;

/// Listens for them; from then on they no longer kill the process.
#[derive(Debug)]
pub struct Signals {
    term: unix::Signal,
    interrupt: unix::Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(|e| Failure::new("cannot listen for signals").because(e));
        Ok(Self { term: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next that comes. Nothing is lost when it is not awaited to its end.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
        }
    }
}
