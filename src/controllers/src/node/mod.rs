//! Nodes: their life by Lease and status, the taints that follow from it, evictions by taint, networks for their pods.

pub mod evict;
pub mod ipam;
pub mod lifecycle;
pub mod run;
