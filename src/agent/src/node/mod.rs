//! The node's own object: registration, status, Lease.

pub mod health;
pub mod lease;
pub mod machine;
pub mod object;
pub mod run;
pub mod storage;
