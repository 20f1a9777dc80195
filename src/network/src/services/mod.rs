//! Services: from what the API server says to what the maps hold.

pub mod desired;
pub mod ledger;
pub mod plan;
pub mod watch;
