//! Certificates, keys and tokens of the cluster: issued, verified, renewed in place.
//!
//! Everything is ECDSA P-256: a key costs 50 microseconds, so serving and client keys are made when they are needed and never touch the disk.
//! What is kept are the three authorities and the key that signs ServiceAccount tokens; and, on a node without an authority, what it was given.

pub mod authority;
pub mod bundle;
mod der;
mod files;
mod issue;
pub mod jwk;
pub mod renewal;
pub mod request;
pub mod rotation;
pub mod sign;
pub mod stranger;
pub mod subject;
pub mod tokens;
pub mod verifier;
