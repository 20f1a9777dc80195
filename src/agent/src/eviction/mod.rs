//! Pods that take more of the node than they may are ended.

pub mod storage;
mod usage;
mod watch;

pub use watch::run;
