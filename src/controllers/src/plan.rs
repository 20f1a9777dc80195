//! What a controller wants done: values only. The runner executes them, records them and adds nothing of its own.

use std::fmt;

use coracle_client::{EventType, Key};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, api::PropagationPolicy, core::ApiResource};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{merge, waiting::Waiting};

/// The next step of one key. Executed in the order of its fields; [`Plan::default()`] is "nothing to do".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Changes of objects that exist, all at once.
    pub patches: Vec<Patch>,
    /// New objects, by slow start: one, then two, then four; the first failure ends it.
    pub creates: Vec<Create>,
    /// Objects to delete, all at once.
    pub deletes: Vec<Delete>,
    /// The report on the key's own object; written even when something above failed, as it only tells what was seen.
    pub status: Option<Patch>,
    /// What to tell people once all of the above is done.
    pub events: Vec<Told>,
    /// What the key waits for.
    pub waiting: Vec<Waiting>,
    /// When time alone changes the answer.
    pub requeue_at: Option<Timestamp>,
}

impl Plan {
    /// Whether nothing is to be written or told.
    pub fn is_idle(&self) -> bool {
        self.patches.is_empty() && self.creates.is_empty() && self.deletes.is_empty() && self.status.is_none() && self.events.is_empty()
    }

    /// Asks for another look at `at`, or sooner if that was asked for already.
    pub fn look_again(&mut self, at: Option<Timestamp>) {
        self.requeue_at = soonest(self.requeue_at, at);
    }
}

/// The sooner of two times that may not be.
pub fn soonest(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    [a, b].into_iter().flatten().min()
}

/// An object as it was seen; a write on it is refused once it is another.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its kind.
    pub kind: ApiResource,
    /// Its name.
    pub key: Key,
    /// Its uid.
    pub uid: String,
    /// Its resourceVersion.
    pub revision: String,
}

impl Target {
    /// The object, as seen.
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self::dynamic(ApiResource::erase::<K>(&()), object.meta())
    }

    /// An object of a kind that is known at run time only.
    pub fn dynamic(kind: ApiResource, meta: &kube::core::ObjectMeta) -> Self {
        Self {
            kind,
            key: Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default()),
            uid: meta.uid.clone().unwrap_or_default(),
            revision: meta.resource_version.clone().unwrap_or_default(),
        }
    }
}

/// How a [`Patch`] reaches the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// JSON merge patch of the object or subresource.
    Merge,
    /// PUT of the whole document (`namespaces/finalize` takes nothing else).
    Replace,
}

/// A change of an object that exists.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Of this object.
    pub target: Target,
    /// `status`, `finalize`, or the object itself.
    pub subresource: Option<&'static str>,
    /// The way.
    pub how: How,
    /// The document, without preconditions: the executor adds uid and resourceVersion.
    pub body: Value,
    /// What to tell when it is done.
    pub announce: Option<Announce>,
}

impl Patch {
    /// Makes the target's document agree with `body` (RFC 7386).
    pub fn merge(target: Target, body: Value) -> Self {
        Self { target, subresource: None, how: How::Merge, body, announce: None }
    }

    /// Takes `before` to `after` by the fields that differ; `None` when none does.
    pub fn between<T: Serialize>(target: Target, before: &T, after: &T) -> Option<Self> {
        let (before, after) = (document(before), document(after));
        merge::diff(&before, &after).map(|body| Self::merge(target, body))
    }

    /// Takes the status from `before` to `after` by the fields that differ; `None` when none does.
    pub fn status<T: Serialize + Default + PartialEq>(target: Target, before: Option<&T>, after: &T) -> Option<Self> {
        if before == Some(after) {
            return None;
        }
        let (before, after) = (before.map_or_else(|| json!({}), document), document(after));
        let body = merge::diff(&before, &after)?;
        Some(Self { target, subresource: Some("status"), how: How::Merge, body: json!({"status": body}), announce: None })
    }

    /// Tells people when it is done.
    pub fn announced(mut self, announce: Announce) -> Self {
        self.announce = Some(announce);
        self
    }
}

/// Typed objects are plain data: they have a document.
pub fn document<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// A new object.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// Of this kind.
    pub kind: ApiResource,
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The document, with apiVersion and kind.
    pub object: Value,
    /// What to tell when it is done or refused.
    pub announce: Option<Announce>,
}

impl Create {
    /// Creates this object.
    pub fn of<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Self {
        Self {
            kind: ApiResource::erase::<K>(&()),
            namespace: object.meta().namespace.clone().unwrap_or_default(),
            object: document(object),
            announce: None,
        }
    }

    /// Tells people when it is done or refused.
    pub fn announced(mut self, announce: Announce) -> Self {
        self.announce = Some(announce);
        self
    }
}

/// What to delete.
#[derive(Clone, Debug, PartialEq)]
pub enum Doomed {
    /// This object.
    One(Target),
    /// Everything of a kind in a namespace (deletecollection).
    All {
        /// Of this kind.
        kind: ApiResource,
        /// In this namespace.
        namespace: String,
    },
}

/// A deletion.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// What.
    pub doomed: Doomed,
    /// What happens to dependents; `None` is the kind's default.
    pub propagation: Option<PropagationPolicy>,
    /// Grace period; `None` is the object's own.
    pub grace_seconds: Option<u32>,
    /// What to tell when it is done or refused.
    pub announce: Option<Announce>,
}

impl Delete {
    /// Deletes this object as it was seen.
    pub fn one(target: Target) -> Self {
        Self { doomed: Doomed::One(target), propagation: None, grace_seconds: None, announce: None }
    }

    /// Tells people when it is done or refused.
    pub fn announced(mut self, announce: Announce) -> Self {
        self.announce = Some(announce);
        self
    }
}

/// An Event to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// About this object.
    pub regarding: ObjectReference,
    /// How it is.
    pub kind: EventType,
    /// One word, upstream's.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The Event of an action: told by how the action ended. `{name}` in a text stands for the name of the object that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Announce {
    /// About this object.
    pub regarding: ObjectReference,
    /// Reason and text on success.
    pub done: (&'static str, String),
    /// Reason and text on failure; the error's message is appended.
    pub failed: Option<(&'static str, String)>,
}

/// One line per action, for records.
impl fmt::Display for Create {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meta = &self.object["metadata"];
        let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or("?");
        write!(f, "create {} {}", self.kind.kind, Key::new(self.namespace.as_str(), name))
    }
}

impl fmt::Display for Patch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patch {} {}", self.target.kind.kind, self.target.key)?;
        self.subresource.map_or(Ok(()), |s| write!(f, " ({s})"))
    }
}

impl fmt::Display for Delete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.doomed {
            Doomed::One(target) => write!(f, "delete {} {}", target.kind.kind, target.key),
            Doomed::All { kind, namespace } => write!(f, "delete every {} in {namespace}", kind.kind),
        }
    }
}
