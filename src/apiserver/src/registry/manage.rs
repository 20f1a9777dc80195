//! Who manages the fields of what is written: `metadata.managedFields` of every write.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex, PoisonError},
};

use coracle_api::{
    apply::{self, Act, Managers, Reach, Versions},
    catalogue::{self, Catalogue, Resource},
    schema::Schema,
    status::Status,
    structural,
};
use http::header::USER_AGENT;
use jiff::Timestamp;
use serde_json::Value;

use super::{options::WriteOptions, target::Target, write::Write};
use crate::{
    admission::Kinds as _,
    request::Context,
    strategy::{TEMPLATE_GENERATION, meta, reach},
};

/// Rounds of conversions for one write: a few per version that somebody manages fields in.
const MAX_REPLAYS: usize = 32;

/// How a write is told in `managedFields`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manage {
    /// They stay as they are: a write that no client asked for by this path.
    Keep,
    /// The request's manager owns what it changes.
    Track,
    /// The new object has them already.
    Settled,
}

/// The versions of a target's kind.
///
/// Managers are told apart without waiting for anybody, but a definition's webhook may have to say what an object is in another version.
/// Then that conversion is missing for now, is asked for afterwards, and the whole is done again: see [`replay`].
pub struct KindVersions<'a> {
    catalogue: Arc<Catalogue>,
    target: &'a Target,
    asked: Mutex<Asked>,
}

/// Conversions that a webhook makes.
#[derive(Default)]
struct Asked {
    missing: Vec<(Value, Arc<Resource>)>,
    known: Vec<(Value, String, Value)>,
}

impl<'a> KindVersions<'a> {
    /// Of a target.
    pub fn new(catalogue: Arc<Catalogue>, target: &'a Target) -> Self {
        Self { catalogue, target, asked: Mutex::default() }
    }

    /// The resource that serves this version of the kind.
    pub fn resource(&self, api_version: &str) -> Option<&Arc<Resource>> {
        let is = |resource: &Arc<Resource>| {
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            resource.group == group && resource.version == version && resource.storage == self.target.stored.storage
        };
        let near = [&self.target.resource, &self.target.stored].into_iter().find(|resource| is(resource));
        near.or_else(|| self.catalogue.resources().iter().find(|resource| is(resource)))
    }
}

impl Versions for KindVersions<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        self.resource(api_version).map(|resource| Arc::clone(&resource.schema))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        if from == to {
            return Some(object.clone());
        }
        let (before, after) = (self.resource(from)?, self.resource(to)?);
        if !self.target.asks() {
            return Some(catalogue::convert(before, after, object.clone()));
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, known)) = asked.known.iter().find(|(known, version, _)| version == to && known == object) {
            return Some(known.clone());
        }
        asked.missing.push((object.clone(), Arc::clone(after)));
        None
    }
}

impl KindVersions<'_> {
    fn missing(&self) -> Vec<(Value, Arc<Resource>)> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner).missing)
    }

    fn learn(&self, object: Value, to: &Resource, converted: Value) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).known.push((object, to.api_version(), converted));
    }
}

/// Calls `run` until it has had every conversion that it asks for.
pub async fn replay<T>(write: &Write<'_>, mut run: impl FnMut(&KindVersions<'_>) -> T) -> Result<T, Status> {
    let versions = KindVersions::new(write.inner.catalogue.now(), write.target);
    for _ in 0..MAX_REPLAYS {
        let done = run(&versions);
        let missing = versions.missing();
        if missing.is_empty() {
            return Ok(done);
        }
        for (object, to) in missing {
            let converted = write.inner.convert(&to, object.clone()).await?;
            versions.learn(object, &to, converted);
        }
    }
    Err(Status::internal("the managers of this object wrote in too many versions"))
}

/// The manager of a request: what it says, or what its client calls itself.
pub fn manager(cx: &Context, options: &WriteOptions) -> String {
    if !options.field_manager.is_empty() {
        return options.field_manager.clone();
    }
    match cx.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()) {
        Some(agent) => Act::name_of(agent),
        None => role(&cx.user.name).to_owned(),
    }
}

/// What a client of this process is called, which says nothing of itself: upstream's name of its part, which clients know to leave alone.
fn role(user: &str) -> &str {
    match user.strip_prefix("system:") {
        Some(name) if name.starts_with("node:") => "kubelet",
        Some(name) => name.rsplit(':').next().unwrap_or_default(),
        None => "",
    }
}

/// What a request can own in its target.
pub fn reach_of(write: &Write<'_>) -> &'static Reach {
    reach(write.kind(), &write.target.subresource)
}

/// The managers of an object as it is stored. What cannot be read is nobody's.
pub fn managers(object: &Value) -> Managers {
    Managers::read(&object["metadata"]["managedFields"]).unwrap_or_default()
}

/// Sets `metadata.managedFields`; null removes them.
pub fn set(object: &mut Value, managed_fields: Value) {
    meta::put(meta::of(object), "managedFields", Some(managed_fields).filter(|value| !value.is_null()));
}

/// A DaemonSet as it is looked at: the old counter in its annotations is a field of every write, said or not.
fn looked_at<'a>(write: &Write<'_>, object: &'a Value) -> Cow<'a, Value> {
    if !write.target.is("apps", "daemonsets") || object["metadata"]["annotations"][TEMPLATE_GENERATION].is_string() {
        return Cow::Borrowed(object);
    }
    let mut object = object.clone();
    meta::of(&mut object);
    meta::map(&mut object["metadata"], "annotations").insert(TEMPLATE_GENERATION.into(), "0".into());
    Cow::Owned(object)
}

/// The `managedFields` of a new object, which is in the version of the path.
pub fn created(write: &Write<'_>, options: &WriteOptions, object: &Value, versions: &KindVersions<'_>) -> Value {
    let given = &object["metadata"]["managedFields"];
    let known = if apply::is_reset(given) { Managers::default() } else { Managers::read(given).unwrap_or_default() };
    let resource = &write.target.resource;
    let nothing = structural::zero(&resource.schema);
    track(write, options, (&resource.schema, &resource.api_version()), (&nothing, &looked_at(write, object)), known, versions).write()
}

/// The `managedFields` after an update; both objects in the version of the path, `new` with what the client sent of them.
pub fn updated(write: &Write<'_>, options: &WriteOptions, old: &Value, new: &Value, versions: &KindVersions<'_>) -> Value {
    let given = &new["metadata"]["managedFields"];
    // A client that does not know of managedFields, or sends what cannot be read, changes none; nobody changes them by a subresource.
    let told = if write.target.subresource.is_empty() { Some(given) } else { None };
    if told.is_some_and(apply::is_reset) {
        return Value::Null;
    }
    let known = told.and_then(|given| Managers::read(given).ok()).filter(|managers| !managers.is_empty());
    let known = known.unwrap_or_else(|| managers(old));
    if known.is_empty() {
        return Value::Null;
    }
    let resource = &write.target.resource;
    track(write, options, (&resource.schema, &resource.api_version()), (old, &looked_at(write, new)), known, versions).write()
}

/// The managers after the request has made `new` of `old`, both of this schema and version.
pub fn track(
    write: &Write<'_>,
    options: &WriteOptions,
    (schema, api_version): (&Schema, &str),
    (old, new): (&Value, &Value),
    known: Managers,
    versions: &dyn Versions,
) -> Managers {
    let (manager, now) = (manager(write.cx, options), meta::time(Timestamp::now()));
    let act = Act { manager: &manager, api_version, subresource: &write.target.subresource, now: &now, reach: reach_of(write) };
    apply::track(schema, old, new, known, &act, versions)
}

/// The `managedFields` of an object that is answered and never stored: a review, a token request.
pub fn posted(cx: &Context, options: &WriteOptions, (schema, api_version): (&Schema, &str), object: &Value) -> Value {
    let (manager, now, nothing) = (manager(cx, options), meta::time(Timestamp::now()), structural::zero(schema));
    let act = Act { manager: &manager, api_version, subresource: &cx.info.subresource, now: &now, reach: &Reach::Whole };
    apply::track(schema, &nothing, object, Managers::default(), &act, &OneVersion).write()
}

/// A kind of which nobody has written another version.
struct OneVersion;

impl Versions for OneVersion {
    fn schema(&self, _: &str) -> Option<Arc<Schema>> {
        None
    }

    fn convert(&self, _: &Value, _: &str, _: &str) -> Option<Value> {
        None
    }
}

/// Whether two `managedFields` differ in nothing but times.
pub fn same_but_times(a: &Value, b: &Value) -> bool {
    let timeless = |value: &Value| -> Option<Vec<Value>> {
        let mut list = value.as_array()?.clone();
        list.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("time")));
        Some(list)
    };
    a == b || timeless(a).is_some_and(|a| timeless(b).is_some_and(|b| a.len() == b.len() && a.iter().all(|entry| b.contains(entry))))
}

/// The object without `managedFields`, as it is merged and compared.
pub fn unmanaged(mut object: Value) -> Value {
    meta::of(&mut object).remove("managedFields");
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn roles_are_called_as_upstream_calls_them() {
        for (user, name) in
            [("system:kube-controller-manager", "kube-controller-manager"), ("system:node:n1", "kubelet"), ("alice", ""), ("", "")]
        {
            assert_eq!(role(user), name);
        }
    }

    #[test]
    fn times_alone_make_no_difference() {
        let entry = |manager: &str, time: &str| json!({"manager": manager, "time": time});
        assert!(same_but_times(&json!([entry("a", "1"), entry("b", "2")]), &json!([entry("b", "3"), entry("a", "1")])));
        assert!(!same_but_times(&json!([entry("a", "1")]), &json!([entry("b", "1")])));
        assert!(!same_but_times(&json!([entry("a", "1")]), &Value::Null));
        assert!(same_but_times(&Value::Null, &Value::Null));
    }
}
