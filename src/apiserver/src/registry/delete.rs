//! DELETE of an object and of a collection: grace, finalizers, preconditions, what is answered.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{
    catalogue,
    custom::CLEANUP,
    status::{Details, Status},
};
use http::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    Inner, body,
    options::{DeleteOptions, ListOptions, Propagation},
    read::{self, answer, include},
    select::Selection,
    target::Target,
    update,
    write::{self, Put, Write},
};
use crate::{
    authorization::masters,
    body::Body,
    cache::object::Object,
    output::{self, format::Format},
    request::Context,
    strategy::{Kind, cluster, meta},
};

/// Finalizer by which the garbage collector is asked to keep the objects that this one owns.
const ORPHAN: &str = "orphan";
/// Finalizer by which the garbage collector is asked to delete them first.
const FOREGROUND: &str = "foregroundDeletion";
/// Writes to one object that may come in between before a deletion gives up.
const MAX_ATTEMPTS: usize = 32;

/// What a deletion came to.
#[derive(Debug)]
pub struct Deleted {
    /// The object, in its last state or in the one that waits.
    pub json: Bytes,
    /// It is gone.
    pub gone: bool,
}

/// What to do about an object, decided from its state and the options.
#[derive(Debug, PartialEq)]
enum Decision {
    /// It ends already: nothing to write.
    Pending,
    /// Write this state; it goes when nothing holds it.
    Mark(Value),
    /// Take it away.
    Remove,
}

/// Answers a DELETE of one object.
pub async fn delete(inner: &Inner, target: &Target, cx: &Context, body: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let options = options(cx, body)?;
    if options.even_unreadable && target.collection.unreadable(&target.key()).is_some() {
        if !cx.user.groups.iter().any(|group| group == masters::GROUP) {
            let why = "it cannot be read, and only an administrator of the cluster may delete what nobody has seen";
            return Err(Status::forbidden(&target.resource.group, &target.resource.plural, &target.name, why));
        }
        write::discard(inner, target, options.dry_run).await?;
        let details = Details {
            group: target.resource.group.clone(),
            kind: target.resource.plural.clone(),
            name: target.name.clone(),
            ..Details::default()
        };
        return Ok(output::value(200, &plain(format), &success(&details), |value| output::message(catalogue::builtin(), "Status", value)));
    }
    let deleted = remove(inner, target, cx, &options, false).await?;
    let write = Write { inner, target, cx, admitted: false, dry_run: false };
    if deleted.gone && !write.kind().returns_deleted() {
        let uid = serde_json::from_slice::<Value>(&deleted.json).map(|o| meta::text(&o, "uid").to_owned()).unwrap_or_default();
        let details = Details {
            group: target.resource.group.clone(),
            kind: target.resource.plural.clone(),
            name: target.name.clone(),
            uid,
            ..Details::default()
        };
        return Ok(output::value(200, &plain(format), &success(&details), |value| output::message(catalogue::builtin(), "Status", value)));
    }
    // Upstream's sign that dependents are still to go.
    let code = if !deleted.gone && options.orphan_dependents == Some(false) { 202 } else { 200 };
    answer(inner, code, target, format, include(cx)?, deleted.json).await
}

/// Tables and partial metadata are made of objects, not of a Status.
fn plain(format: &Format) -> Format {
    Format { shape: output::format::Shape::Whole, ..format.clone() }
}

/// A Status of success.
pub fn success(details: &Details) -> Value {
    let mut map = Map::new();
    for (key, value) in [("name", &details.name), ("group", &details.group), ("kind", &details.kind), ("uid", &details.uid)] {
        if !value.is_empty() {
            map.insert(key.into(), value.as_str().into());
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": map})
}

fn options(cx: &Context, body: &Bytes) -> Result<DeleteOptions, Status> {
    let schema = catalogue::builtin().message("DeleteOptions").ok_or_else(|| Status::internal("the catalogue has no DeleteOptions"))?;
    let value = body::delete_options(cx, body, schema)?;
    DeleteOptions::read(cx, value.as_ref())
}

/// Deletes an object, or begins to; `admitted` when the plugins have had their say.
pub async fn remove(inner: &Inner, target: &Target, cx: &Context, options: &DeleteOptions, admitted: bool) -> Result<Deleted, Status> {
    let write = Write { inner, target, cx, admitted, dry_run: options.dry_run };
    let mut asked = false;
    for _ in 0..MAX_ATTEMPTS {
        let held = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?;
        preconditions(target, &held, options)?;
        let old = held.value();
        if !asked {
            write.validate_deletion(&old, options).await?;
            asked = true;
        }
        match decide(write.kind(), &old, options, Timestamp::now()) {
            Decision::Pending => return Ok(Deleted { json: held.json(), gone: false }),
            Decision::Mark(new) => {
                if let Put::Done(json) = write.put(&new, Some(&held), None).await? {
                    return Ok(Deleted { json, gone: false });
                }
            }
            Decision::Remove => {
                if write.delete(&held).await? {
                    return Ok(Deleted { json: last_words(write.kind(), old, &held), gone: true });
                }
            }
        }
    }
    Err(target.conflict(update::MODIFIED))
}

/// What a deletion answers: a pod says that it had no time.
fn last_words(kind: Kind<'_>, mut old: Value, held: &Object) -> Bytes {
    if (kind.group, kind.plural) != ("", "pods") {
        return held.json();
    }
    let metadata = meta::of(&mut old);
    metadata.entry("deletionTimestamp").or_insert_with(|| meta::time(Timestamp::now()).into());
    metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
    serde_json::to_vec(&old).map_or_else(|_| held.json(), Bytes::from)
}

fn preconditions(target: &Target, held: &Arc<Object>, options: &DeleteOptions) -> Result<(), Status> {
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != held.uid()) {
        return Err(unmet(target, &format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", held.uid())));
    }
    if let Some(revision) = options.resource_version.as_deref().filter(|revision| **revision != held.revision().to_string()) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
            held.revision()
        );
        return Err(unmet(target, &why));
    }
    Ok(())
}

/// 409 that names the kind, as upstream does here and only here.
fn unmet(target: &Target, why: &str) -> Status {
    target.conflict(why).about(&target.resource.group, &target.resource.kind, &target.name)
}

/// What the options make of an object in this state.
fn decide(kind: Kind<'_>, old: &Value, options: &DeleteOptions, now: Timestamp) -> Decision {
    if (kind.group, kind.plural) == ("", "namespaces") {
        return decide_namespace(old, now);
    }
    let mut new = old.clone();
    let finalizers = finalizers(kind, old, options);
    let finalizers_changed = finalizers != meta::finalizers(old);
    match graceful(kind, old, options, now) {
        Grace::Pending if finalizers_changed => {}
        Grace::Pending => return Decision::Pending,
        Grace::Until(time, seconds) => {
            let metadata = meta::of(&mut new);
            if !metadata.contains_key("deletionTimestamp") {
                count(&mut new);
            }
            let metadata = meta::of(&mut new);
            metadata.insert("deletionTimestamp".into(), time.into());
            metadata.insert("deletionGracePeriodSeconds".into(), seconds.into());
            if seconds == 0 && finalizers.is_empty() {
                return Decision::Remove;
            }
        }
        Grace::None => {
            if finalizers.is_empty() {
                return Decision::Remove;
            }
            if !meta::is_deleting(&new) {
                count(&mut new);
                if kind.is_definition() {
                    cluster::end_definition(&mut new, now);
                }
                meta::of(&mut new).insert("deletionTimestamp".into(), meta::time(now).into());
            }
            meta::of(&mut new).insert("deletionGracePeriodSeconds".into(), 0.into());
        }
    }
    meta::set_finalizers(&mut new, &finalizers);
    if new == *old { Decision::Pending } else { Decision::Mark(new) }
}

/// A deletion counts as a change of what is asked for.
fn count(object: &mut Value) {
    let generation = meta::generation(object);
    if generation > 0 {
        meta::of(object).insert("generation".into(), (generation + 1).into());
    }
}

/// A namespace is Terminating until its content is gone.
fn decide_namespace(old: &Value, now: Timestamp) -> Decision {
    let held = old["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if !held && meta::finalizers(old).is_empty() {
        return Decision::Remove;
    }
    if meta::is_deleting(old) {
        return Decision::Pending;
    }
    let mut new = old.clone();
    meta::of(&mut new).insert("deletionTimestamp".into(), meta::time(now).into());
    meta::map(&mut new, "status").insert("phase".into(), "Terminating".into());
    Decision::Mark(new)
}

#[derive(Debug, PartialEq)]
enum Grace {
    /// The kind knows none, or it is over.
    None,
    /// A time already runs that is not longer.
    Pending,
    /// It has until then, these seconds.
    Until(String, i64),
}

/// Pods are given time to end.
fn graceful(kind: Kind<'_>, old: &Value, options: &DeleteOptions, now: Timestamp) -> Grace {
    if (kind.group, kind.plural) != ("", "pods") {
        return Grace::None;
    }
    // Negative means: at once, but let the node say so.
    let asked = options.grace_period.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if let Some(running) = old["metadata"]["deletionTimestamp"].as_str() {
        let Some(granted) = old["metadata"]["deletionGracePeriodSeconds"].as_i64() else { return Grace::None };
        if asked == Some(0) {
            return Grace::None;
        }
        let Some(asked) = asked.filter(|asked| *asked < granted) else { return Grace::Pending };
        let ends = running.parse::<Timestamp>().unwrap_or(now);
        let sooner = ends.saturating_add(SignedDuration::from_secs(asked - granted)).unwrap_or(ends);
        return Grace::Until(meta::time(sooner), asked);
    }
    let assigned = old["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().map(|seconds| seconds.max(0));
    let seconds = if assigned && !ended { asked.or(own).unwrap_or(30) } else { 0 };
    if seconds == 0 {
        return Grace::None;
    }
    let ends = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    Grace::Until(meta::time(ends), seconds)
}

/// The finalizers that an object has after the options had their say about its dependents.
fn finalizers(kind: Kind<'_>, old: &Value, options: &DeleteOptions) -> Vec<String> {
    let before = meta::finalizers(old);
    let has = |name: &str| before.iter().any(|f| f == name);
    let orphan = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) if has(ORPHAN) => true,
        (None, None) if has(FOREGROUND) => false,
        (None, None) => kind.orphans_by_default(),
    };
    let foreground = match (options.orphan_dependents, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => has(FOREGROUND) && !has(ORPHAN),
    };
    let mut after: Vec<String> = before.into_iter().filter(|f| !matches!(f.as_str(), ORPHAN | FOREGROUND)).collect();
    after.extend(orphan.then(|| ORPHAN.to_owned()));
    after.extend(foreground.then(|| FOREGROUND.to_owned()));
    if kind.is_definition() && !meta::is_deleting(old) && !after.iter().any(|f| f == CLEANUP) {
        // What it defines goes first.
        after.push(CLEANUP.to_owned());
    }
    after
}

/// Answers a DELETE of a collection: the list of what was deleted.
pub async fn delete_collection(
    inner: &Inner,
    target: &Target,
    cx: &Context,
    body: &Bytes,
    format: &Format,
) -> Result<Response<Body>, Status> {
    let options = options(cx, body)?;
    let list = ListOptions::read(cx)?;
    let selection = Selection::of(target, &list)?;
    let page = read::page(inner, target, &list, &selection).await?;
    let mut items = Vec::with_capacity(page.objects.len());
    for object in &page.objects {
        let one = target.named(object.namespace(), object.name());
        match remove(inner, &one, cx, &options, false).await {
            Ok(_) => {}
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
        items.push(object.value());
    }
    let mut items = inner.outward(target, items).await?;
    for item in items.iter_mut().filter(|_| !target.resource.custom).filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    let list =
        json!({"kind": target.resource.list_kind, "apiVersion": target.resource.api_version(), "metadata": page.metadata, "items": items});
    Ok(output::value(200, &plain(format), &list, |list| coracle_api::protobuf::encode_list(&target.resource.schema, list)))
}

#[cfg(test)]
#[path = "delete_tests.rs"]
mod tests;
