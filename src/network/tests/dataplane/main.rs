//! The dataplane on real links: each test has a network namespace of its own as "the node", and an API server of a few lines.

mod api;
mod faults;
mod machine;
mod nodeport;
mod services;
