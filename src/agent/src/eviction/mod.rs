//! Pods that take more of the node than they may are ended, and when the node itself runs short, images go first and then pods, one at a time.

pub mod disk;
pub mod images;
pub mod oom;
pub mod pressure;
pub mod rank;
pub mod signals;
pub mod storage;
pub mod usage;
mod watch;

use std::time::Duration;

pub use watch::Watch;

/// What a pod has to end that the node cannot keep: what it takes is needed.
const NO_GRACE: Duration = Duration::from_secs(1);

/// Why the node does not keep a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// `status.message`.
    pub message: String,
    /// What its containers have to end.
    pub grace: Duration,
    /// It did nothing that it may not: the node is short of something (condition `DisruptionTarget`).
    pub for_pressure: bool,
}
