//! The vocabulary of Kubernetes: kinds, schemas, codecs, defaulting, validation, merges, selectors. Pure.

pub mod amounts;
pub mod apply;
pub mod catalogue;
pub mod cel;
pub mod custom;
pub mod decode;
pub mod defaulting;
pub mod discovery;
#[cfg(test)]
mod effort;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quality;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;
pub mod structural;
pub mod table;
pub mod validation;
