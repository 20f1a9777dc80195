//! A cluster in this process: the roles that were asked for, wired together (everyone is a client).

mod control;
mod kubeconfig;
mod node;
mod start;

pub use node::runtime_options;
pub use start::Cluster;
