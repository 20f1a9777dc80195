//! Probes: when one is due and what its results mean (`verdict`, pure), and how each kind asks (`ask`).

pub mod ask;
pub mod grpc;
pub mod verdict;
