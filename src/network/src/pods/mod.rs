//! Pods' places in the network: their addresses, their namespaces, their links.

pub mod book;
pub mod ipam;
pub mod netns;
pub mod wire;
