//! The node's own object: registration, status, Lease.

pub mod lease;
pub mod machine;
pub mod object;
pub mod run;
