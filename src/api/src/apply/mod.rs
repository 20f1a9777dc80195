//! Who manages which field of an object, and server-side apply: field sets, their merge, `metadata.managedFields` (KEP-555).
//!
//! A write that is no apply is [`track`]ed: its manager owns what it changed. An [`apply`] merges a configuration into the object: its manager
//! owns what the configuration says, others' different values are conflicts, and what the manager no longer says goes. Both work on the one
//! schema type, so built-in kinds and custom resources are the same here.

mod applied;
mod check;
mod collect;
mod compare;
mod element;
mod fields;
mod fieldsv1;
mod last_applied;
mod managers;
mod merge;
mod overlay;
mod remove;
mod scale;
mod shape;
#[cfg(test)]
mod tests;
mod track;
mod update;

use std::sync::Arc;

use serde_json::Value;

use crate::schema::Schema;

pub use applied::{Applied, ApplyError, Conflict, apply};
pub use element::{Element, Path};
pub use fields::FieldSet;
pub use managers::{Entry, Id, ManagedFieldsError, Managers, is_reset};
pub use overlay::{OverlayError, overlay};
pub use scale::{REPLICAS_IN_SCALE, from_scale, to_scale};
pub use track::track;

/// The versions of one kind. A manager's fields are named in the version that it wrote in.
pub trait Versions {
    /// Schema of a version; `None` when it is no longer served.
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>>;
    /// An object of one version in another one; `None` when either is no longer served.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
}

/// What a write may own: the rest is reset by the kind's rules whatever the request says.
#[derive(Clone, Debug, Default)]
pub enum Reach {
    /// Everything.
    #[default]
    Whole,
    /// All but these fields and what is below them.
    Without(FieldSet),
}

impl Reach {
    /// The part of `fields` that is within reach.
    fn of(&self, fields: FieldSet) -> FieldSet {
        match self {
            Self::Whole => fields,
            Self::Without(reset) => fields.without(reset),
        }
    }
}

/// Who writes what how, as `managedFields` tells it.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Name of the manager.
    pub manager: &'a str,
    /// Version that the object is written in.
    pub api_version: &'a str,
    /// Empty for the main resource.
    pub subresource: &'a str,
    /// Time of the write, as `meta/v1.Time` has it.
    pub now: &'a str,
    /// What the request can change.
    pub reach: &'a Reach,
}

impl Act<'_> {
    /// The manager's name for a request that gives none: the user agent up to its first slash, without what cannot be printed.
    pub fn name_of(user_agent: &str) -> String {
        let name = user_agent.split('/').next().unwrap_or_default();
        let mut out = String::new();
        for c in name.chars().filter(|c| !c.is_control()) {
            if out.len() + c.len_utf8() > MAX_MANAGER_BYTES {
                break;
            }
            out.push(c);
        }
        out
    }

    /// The name that is written; a client that says nothing of itself is `unknown`.
    fn name(&self) -> &str {
        if self.manager.is_empty() { "unknown" } else { self.manager }
    }
}

/// Bytes of a manager's name. Upstream's bound.
pub const MAX_MANAGER_BYTES: usize = 128;
