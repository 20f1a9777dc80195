//! kube::Client over an in-process service or mTLS, shared informers, leader election, events.
//!
//! Every role of Coracle talks to the API through this crate and nothing else (design decision 3).

pub mod backoff;
pub mod election;
pub mod events;
pub mod informer;
pub mod key;
pub mod lister;
pub mod metrics;
pub mod pod;
pub mod transport;
pub mod watch;

pub use events::{EventType, Recorder};
pub use informer::{Changes, Informer, Informers};
pub use key::Key;
pub use lister::Lister;
pub use transport::{KubeconfigError, Renewed, authority_of, from_kubeconfig, in_process};
pub use watch::{Scope, Step, WatchError};
