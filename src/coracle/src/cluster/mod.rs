//! A cluster in this process: the roles that were asked for, wired together (everyone is a client).

mod control;
mod kubeconfig;
mod node;
mod runtime;
mod start;

pub use node::runtime_options;
pub use runtime::take_down as take_down_runtime;
pub use start::Cluster;
