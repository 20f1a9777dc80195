//! The Kubernetes API server: HTTP, authentication, authorization, admission, registry, watch cache.

pub mod admission;
pub mod body;
pub mod cache;
pub mod local;
pub mod registry;
pub mod request;
pub mod server;
