//! Cluster DNS: one round trip for a short or an external name, resident on the node.

pub mod answer;
mod handler;
mod message;
pub mod records;
pub mod resident;
