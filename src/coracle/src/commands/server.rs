//! `coracle server`: a cluster, or some of its roles, until SIGTERM.

use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    cli::ServerFlags,
    cluster::Cluster,
    commands::killall,
    config::server::{Defaults, ServerConfig},
    failure::Failure,
    place::{self, Place},
    steps::Steps,
};

/// Runs it.
pub async fn server(flags: &ServerFlags) -> Result<(), Failure> {
    let steps = Steps::new();
    let config = ServerConfig::resolve(flags, Defaults::server(flags.data_dir.as_deref())).map_err(Failure::of)?;
    killall::abandoned().await;
    let place = Place::take(&config.data_dir, false, place::SLOTS).map_err(Failure::of)?;
    let (mut term, mut interrupt) = signals()?;
    let cluster = tokio::select! {
        started = Cluster::start(&config, &place, &steps) => started.map_err(Failure::of)?,
        _ = term.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    steps.done(format_args!("ready; KUBECONFIG={}", cluster.kubeconfig.display()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    cluster.stop().await;
    Ok(())
}

/// SIGTERM and SIGINT.
pub fn signals() -> Result<(tokio::signal::unix::Signal, tokio::signal::unix::Signal), Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::new("cannot listen for signals").because(e));
    Ok((listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?))
}
