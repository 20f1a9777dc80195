//! Selectors: which objects a list, a watch, a Service or a controller means.

pub mod field;
pub mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;
