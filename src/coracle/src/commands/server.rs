//! `coracle server`: a cluster, or some of its roles, until SIGTERM.

use sd_notify::NotifyState;

use crate::{
    cli::ServerFlags,
    cluster::Cluster,
    commands::{doctor, killall, signals::Signals},
    config::server::{Defaults, ServerConfig},
    failure::Failure,
    place::{self, Life, Place},
    steps::Steps,
};

/// Runs it.
pub async fn server(flags: &ServerFlags) -> Result<(), Failure> {
    let steps = Steps::new();
    let config = ServerConfig::resolve(flags, Defaults::server(flags.data_dir.as_deref())).map_err(Failure::of)?;
    doctor::need(&config)?;
    killall::abandoned().await;
    let place = Place::take(&config.data_dir, Life::Standing, place::SLOTS).map_err(Failure::of)?;
    let mut signals = Signals::new()?;
    let started = tokio::select! {
        started = Cluster::start(&config, &place, &steps) => started,
        _ = signals.next() => return Ok(()),
    };
    let cluster = match started {
        Ok(cluster) => cluster,
        Err(error) => {
            if place.fresh {
                // The machine is as it was before; what an earlier process started goes on.
                for problem in killall::take_down(&place.id, &place.data_dir, false).await {
                    tracing::warn!("{problem}");
                }
            }
            return Err(Failure::of(error));
        }
    };
    steps.done(format_args!("ready; KUBECONFIG={}", cluster.kubeconfig.display()));
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    signals.next().await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    cluster.stop().await;
    Ok(())
}
