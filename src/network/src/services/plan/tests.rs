//! Cases of plans.
