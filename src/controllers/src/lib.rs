//! One pure plan per controller, one runner that feeds, executes and records them.

pub mod config;
pub mod record;

pub use config::Config;

use coracle_client::Informers;
use tokio_util::sync::CancellationToken;

/// Why the controllers cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// a controller ended by itself
    #[error("a controller ended by itself")]
    Ended(#[source] tokio::task::JoinError),
}

/// Runs all controllers until `shutdown`. The informers are shared with the other roles of the process.
pub async fn run(client: kube::Client, informers: Informers, config: Config, shutdown: CancellationToken) -> Result<(), RunError> {
    let _ = (client, informers, config);
    shutdown.cancelled().await;
    Ok(())
}
