//! Cluster DNS: one round trip for a short or an external name, resident on the node.
//!
//! [`run`] is the role: it follows the cluster and tells [`resident`], a process of its own, which answers by [`records`] and [`answer`].

pub mod answer;
mod handler;
mod message;
pub mod records;
pub mod resident;
mod role;
mod upstream;

pub use role::{Config, RunError, StopError, run, slice_name, stop};
