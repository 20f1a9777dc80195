//! Binds pods to nodes: a snapshot of the cluster, filter and score plugins, the binding loop.
//!
//! What may run where is decided by [`decide::decide`], a plain function over [`cluster::Cluster`]; [`run()`] feeds it from informers and
//! carries out what it says. The rules are those of upstream's default plugins (kube-scheduler 1.36).

mod claims;
pub mod cluster;
pub mod decide;
pub mod filter;
mod needs;
mod queue;
mod run;
mod score;

pub use run::{Config, run};
