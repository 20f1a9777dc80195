//! Cases of frontends.
