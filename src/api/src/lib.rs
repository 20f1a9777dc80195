//! The vocabulary of Kubernetes: kinds, schemas, codecs, defaulting, validation, merges, selectors. Pure.

pub mod status;
