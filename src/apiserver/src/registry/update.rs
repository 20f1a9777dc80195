//! PUT, and what every change of an object goes through: preconditions, what may not change, retries when another write was first.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{
    defaulting,
    status::{Cause, Status},
    validation,
};
use http::Response;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Inner,
    body::{self, Expected},
    create,
    manage::{self, KindVersions, Manage},
    options::WriteOptions,
    read::{answer, include},
    target::Target,
    write::{Put, Write, Written},
};
use crate::{
    admission::{Operation, Reserved},
    body::Body,
    cache::object::Object,
    output::format::Format,
    request::Context,
    strategy::{self, meta},
};

/// Writes to one object that may come in between before a change gives up.
const MAX_ATTEMPTS: usize = 32;
/// What clients match on.
pub const MODIFIED: &str = "the object has been modified; please apply your changes to the latest version and try again";

/// Answers a PUT.
pub async fn update(inner: &Inner, target: &Target, cx: &Context, body: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(cx, "UpdateOptions")?;
    let resource = &target.resource;
    let expected = Expected { group: &resource.group, version: &resource.version, kind: &resource.kind, schema: &resource.schema };
    let mut object = body::object(cx, body, expected, options.field_validation)?;
    create::settle_namespace(target, &mut object)?;
    let name = meta::text(&object, "name").to_owned();
    if name != target.name {
        return Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", target.name)));
    }
    defaulting::apply(&target.resource, &mut object);
    let written = change(inner, target, cx, &options, false, Manage::Track, &mut |_, _| Ok(object.clone())).await;
    let written = match written {
        Err(status) if status.code == 404 && upserts(inner, target, cx) && is_about(&status, target) => {
            meta::of(&mut object).remove("resourceVersion");
            meta::of(&mut object).remove("uid");
            create::insert(inner, target, cx, object, &options, false, Manage::Track).await?
        }
        other => other?,
    };
    answer(inner, if written.created { 201 } else { 200 }, target, format, include(cx)?, written.json).await
}

fn upserts(inner: &Inner, target: &Target, cx: &Context) -> bool {
    let write = Write { inner, target, cx, admitted: false, dry_run: false };
    target.subresource.is_empty() && write.kind().creates_on_update()
}

/// Not, for example, about a missing namespace.
fn is_about(status: &Status, target: &Target) -> bool {
    status.details.as_ref().is_some_and(|d| d.kind == target.resource.plural && d.name == target.name)
}

/// What a change makes of the object as it is, both in the version of the path; called anew for each attempt, and whenever a conversion
/// that it asked for is there.
pub type Make<'m> = dyn FnMut(&Value, &KindVersions<'_>) -> Result<Value, Status> + Send + 'm;

/// Changes an object.
pub async fn change(
    inner: &Inner,
    target: &Target,
    cx: &Context,
    options: &WriteOptions,
    admitted: bool,
    manage: Manage,
    make: &mut Make<'_>,
) -> Result<Written, Status> {
    let write = Write { inner, target, cx, admitted, dry_run: options.dry_run };
    for _ in 0..MAX_ATTEMPTS {
        let held = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?;
        let old = inner.inward(target, held.value()).await?;
        let shown = inner.shown(target, &old).await?;
        let new = manage::replay(&write, |versions| {
            let mut new = make(&shown, versions)?;
            preconditions(&write, &held, &new)?;
            match manage {
                Manage::Keep => manage::set(&mut new, shown["metadata"]["managedFields"].clone()),
                Manage::Track => {
                    let managed_fields = manage::updated(&write, options, &shown, &new, versions);
                    manage::set(&mut new, managed_fields);
                }
                Manage::Settled => {}
            }
            Ok::<_, Status>(new)
        });
        let new = inner.inward(target, new.await??).await?;
        if let Some(written) = attempt(&write, &held, &old, new).await? {
            return Ok(written);
        }
    }
    Err(target.conflict(MODIFIED))
}

/// One attempt; `None` when another write was first.
async fn attempt(write: &Write<'_>, held: &Arc<Object>, old: &Value, mut new: Value) -> Result<Option<Written>, Status> {
    let target = write.target;
    let mut causes = given_fields(&new, old);
    meta::carry_over(&mut new, old);
    let kind = write.kind();
    write.mutate(Operation::Update, &mut new, Some(old)).await?;
    write.single_owners(&mut new);
    // What the request manages is settled: no rule of its kind takes it back.
    let managed_fields = new["metadata"]["managedFields"].take();
    if target.subresource.is_empty() {
        strategy::prepare_update(kind, &mut new, old, Timestamp::now());
    } else {
        strategy::prepare_subresource(kind, &target.subresource, &mut new, old, Timestamp::now());
        meta::of(&mut new).remove("resourceVersion");
    }
    manage::set(&mut new, managed_fields);
    write.canonical(&mut new)?;
    let reservation = if target.subresource.is_empty() { write.reserve(&mut new, Some(old))? } else { None };
    let rules = &write.inner.metrics.rules;
    let found = || validation::update(&target.stored, &new, old, &target.subresource);
    causes.extend(rules.judge(target.stored.definition.as_deref(), found));
    causes.extend(strategy::certificates::check(kind, &new, Some(old)));
    causes.extend(validation::asked(&target.resource, &new, Some(old), &target.subresource));
    if !causes.is_empty() {
        return Err(target.invalid(causes));
    }
    write.warn(&new, Some(old));
    let taken = write.judge(Operation::Update, &new, Some(old)).await?;
    if deleted_by(&new, old, kind) {
        let deleted = write.delete(held).await?;
        return Ok(deleted.then(|| Written { json: held_json(&new, held), created: false }));
    }
    // What a webhook brought from another version is written in today's, changed or not.
    let is_current = !target.asks() || held.value()["apiVersion"] == new["apiVersion"];
    if is_current && is_same(&new, old) {
        return Ok(Some(Written { json: held.json(), created: false }));
    }
    Ok(match write.put(&new, Some(held), reservation).await? {
        Put::Done(json) => {
            taken.into_iter().for_each(Reserved::keep);
            Some(Written { json, created: false })
        }
        Put::Lost => None,
    })
}

/// A client can neither delete by an update nor make another object of one. Upstream's two validation passes say it twice.
fn given_fields(new: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let (wanted, is) = (&new["metadata"][field], &old["metadata"][field]);
        let another = field == "uid" && wanted != is && wanted != "";
        if (is.is_null() || another) && !wanted.is_null() {
            let message = format!("Invalid value: {wanted}: field is immutable");
            let cause = Cause { reason: "FieldValueInvalid", field: format!("metadata.{field}"), message };
            causes.extend([cause.clone(), cause]);
        }
    }
    causes
}

fn held_json(new: &Value, held: &Object) -> Bytes {
    let mut out = new.clone();
    meta::of(&mut out).insert("resourceVersion".into(), held.revision().to_string().into());
    serde_json::to_vec(&out).map_or_else(|_| held.json(), Bytes::from)
}

fn preconditions(write: &Write<'_>, held: &Object, new: &Value) -> Result<(), Status> {
    let target = write.target;
    let uid = meta::text(new, "uid");
    // In a PUT it is a condition; a patch that gives another one is not valid (see `given_fields`).
    if write.cx.info.verb == "update" && !uid.is_empty() && uid != held.uid() {
        return Err(target.conflict(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", held.uid())));
    }
    let text = meta::text(new, "resourceVersion");
    let revision = if text.is_empty() {
        0
    } else {
        text.parse().map_err(|_| Status::new(500, "", format!("the resourceVersion {text:?} is not a number")))?
    };
    if revision == 0u64 {
        if !write.kind().unconditional_updates() && write.cx.info.verb == "update" {
            let cause = Cause {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".into(),
                message: "Invalid value: 0: must be specified for an update".into(),
            };
            // Upstream names the resource here, and only here.
            return Err(Status::invalid(&target.resource.group, &target.resource.plural, &target.name, vec![cause]));
        }
        return Ok(());
    }
    if revision == held.revision() { Ok(()) } else { Err(target.conflict(MODIFIED)) }
}

/// Whether nothing changed but the resourceVersion and when somebody managed what.
fn is_same(new: &Value, old: &Value) -> bool {
    let (Some(a), Some(b)) = (new.as_object(), old.as_object()) else { return false };
    let (metadata_a, metadata_b) = (&new["metadata"], &old["metadata"]);
    a.len() == b.len()
        && a.iter().all(|(key, value)| if key == "metadata" { true } else { b.get(key) == Some(value) })
        && lasting(metadata_a).eq(lasting(metadata_b))
        && manage::same_but_times(&metadata_a["managedFields"], &metadata_b["managedFields"])
}

/// The metadata that make a difference.
fn lasting(metadata: &Value) -> impl Iterator<Item = (&String, &Value)> {
    metadata.as_object().into_iter().flatten().filter(|(name, _)| !matches!(name.as_str(), "resourceVersion" | "managedFields"))
}

/// Whether an update takes away the last thing that held a deleted object.
fn deleted_by(new: &Value, old: &Value, kind: strategy::Kind<'_>) -> bool {
    let grace = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    let held = (kind.group, kind.plural) == ("", "namespaces") && new["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    meta::is_deleting(old) && grace == 0 && meta::finalizers(new).is_empty() && !held
}
