//! The Kubernetes API server: HTTP, authentication, authorization, admission, registry, watch cache.

pub mod admission;
mod aggregation;
pub mod allocator;
mod answer;
pub mod authentication;
pub mod authorization;
pub mod body;
mod bootstrap;
pub mod cache;
pub mod catalogue;
mod definitions;
mod endpoints;
mod handlers;
mod impersonation;
mod in_flight;
mod link;
mod listener;
pub mod local;
mod metrics;
mod names;
mod node_proxy;
pub mod objects;
pub mod output;
mod pipeline;
pub mod registry;
pub mod request;
pub mod request_info;
pub mod server;
pub mod strategy;
mod tls;
mod uuid;
pub mod warnings;
mod webhook;

pub use handlers::version::GIT_VERSION;
