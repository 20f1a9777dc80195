//! The subresource `eviction` of pods: a deletion that disruption budgets may refuse.

use bytes::Bytes;
use coracle_api::{
    catalogue,
    selector::LabelSelector,
    status::{Cause, Details, Status},
};
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Inner,
    body::{self, Expected},
    delete::{self, success},
    manage::{KindVersions, Manage},
    options::{DeleteOptions, WriteOptions},
    target::Target,
    update,
    write::Write,
};
use crate::{
    admission::Operation,
    body::Body,
    cache::object::Object,
    output::{self, format::Format},
    request::Context,
    strategy::meta,
};

/// Pods that a budget remembers as on their way out. Upstream's bound.
const MAX_DISRUPTED_PODS: usize = 2000;

/// Condition of pods that are taken away by somebody else than their owner.
const TARGET: &str = "DisruptionTarget";

/// Answers a POST of an Eviction.
pub async fn evict(inner: &Inner, target: &Target, cx: &Context, bytes: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let write = WriteOptions::read(cx, "CreateOptions")?;
    let served = target.resource.subresource("eviction").ok_or_else(super::target::unknown)?;
    let expected = Expected { group: &served.group, version: &served.version, kind: &served.kind, schema: &served.schema };
    let mut eviction = body::object(cx, bytes, expected, write.field_validation)?;
    let name = meta::text(&eviction, "name");
    if name != target.name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let wanted = &eviction["deleteOptions"];
    let mut options = DeleteOptions::read(cx, wanted.is_object().then_some(wanted))?;
    options.dry_run |= write.dry_run;
    Write { inner, target, cx, admitted: false, dry_run: options.dry_run }.admit(Operation::Create, &mut eviction).await?;
    let pod = Target { subresource: String::new(), ..target.clone() };
    let held = pod.collection.get(&pod.key()).ok_or_else(|| pod.not_found())?;
    let object = held.value();
    if guarded(&object) {
        spend(inner, &pod, cx, &object, options.dry_run).await?;
    }
    options.uid.get_or_insert_with(|| held.uid().to_owned());
    let as_seen = options.resource_version.as_ref().is_none_or(|revision| *revision == held.revision().to_string());
    if !options.dry_run && as_seen && !meta::is_deleting(&object) {
        let revision = say_why(inner, &pod, cx, &held).await?;
        // The caller's condition held; our own word does not break it.
        options.resource_version = options.resource_version.map(|_| revision);
    }
    delete::remove(inner, &pod, cx, &options, true).await?;
    let plain = Format { shape: output::format::Shape::Whole, ..format.clone() };
    let mut status = success(&Details::default());
    if let Some(map) = status.as_object_mut() {
        map.remove("details");
        map.insert("code".into(), 201.into());
    }
    Ok(output::value(201, &plain, &status, |value| output::message(catalogue::builtin(), "Status", value)))
}

/// Tells in the pod's conditions that it goes by an eviction, for those who ask later why it ended. The revision that has it.
async fn say_why(inner: &Inner, pod: &Target, cx: &Context, held: &Object) -> Result<String, Status> {
    let target = Target { subresource: "status".into(), ..pod.clone() };
    let now = Timestamp::now();
    let make = &mut |old: &Value, _: &KindVersions<'_>| {
        if meta::text(old, "uid") != held.uid() {
            return Err(pod.not_found());
        }
        let mut new = old.clone();
        let conditions = meta::map(&mut new, "status").entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.retain(|condition| condition["type"] != TARGET);
            conditions.push(json!({
                "type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
                "lastProbeTime": null, "lastTransitionTime": meta::time(now),
            }));
        }
        Ok(new)
    };
    let written = update::change(inner, &target, cx, &WriteOptions::default(), true, Manage::Keep, make).await?;
    let object: Value = serde_json::from_slice(&written.json).unwrap_or_default();
    Ok(meta::text(&object, "resourceVersion").to_owned())
}

/// Whether budgets have a say: not for pods that have ended, were never started or go already.
fn guarded(pod: &Value) -> bool {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    !meta::is_deleting(pod) && !matches!(phase, "Succeeded" | "Failed" | "Pending")
}

fn is_ready(pod: &Value) -> bool {
    pod["status"]["conditions"].as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

fn refused(message: &str, cause: Cause) -> Status {
    let mut status = Status::new(429, "TooManyRequests", message).about("", "", "");
    status.details.get_or_insert_default().causes.push(cause);
    status
}

/// Takes one disruption off the pod's budget.
async fn spend(inner: &Inner, pod: &Target, cx: &Context, object: &Value, dry_run: bool) -> Result<(), Status> {
    let labels = &object["metadata"]["labels"];
    let budgets = inner.cache.list("policy", "poddisruptionbudgets", &pod.namespace).objects;
    let mut over = budgets.iter().filter(|budget| {
        let selector = &budget.value()["spec"]["selector"];
        selector.is_object() && LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches_value(labels))
    });
    let Some(budget) = over.next() else { return Ok(()) };
    if over.next().is_some() {
        return Err(Status::new(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let name = budget.name().to_owned();
    let target = Target::of(&inner.catalogue.now(), &inner.cache, "policy", "poddisruptionbudgets", &pod.namespace, &name)
        .ok_or_else(super::target::unknown)?;
    let target = Target { subresource: "status".into(), ..target };
    let ready = is_ready(object);
    let options = WriteOptions { dry_run, ..WriteOptions::default() };
    let make = &mut |old: &Value, _: &KindVersions<'_>| spent(old, &pod.name, ready, Timestamp::now());
    update::change(inner, &target, cx, &options, true, Manage::Keep, make).await.map(drop)
}

/// The budget with one disruption less.
fn spent(old: &Value, pod: &str, ready: bool, now: Timestamp) -> Result<Value, Status> {
    let name = meta::text(old, "name");
    let status = &old["status"];
    let refuse = |message: String| {
        let cause = Cause { reason: "DisruptionBudget", field: String::new(), message };
        refused("Cannot evict pod as it would violate the pod's disruption budget.", cause)
    };
    let healthy = status["currentHealthy"].as_i64().unwrap_or(0) >= status["desiredHealthy"].as_i64().unwrap_or(0);
    let policy = old["spec"]["unhealthyPodEvictionPolicy"].as_str().unwrap_or("IfHealthyBudget");
    if !ready && (policy == "AlwaysAllow" || healthy && status["desiredHealthy"].as_i64().unwrap_or(0) > 0) {
        return Ok(old.clone());
    }
    if status["observedGeneration"].as_i64().unwrap_or(0) < meta::generation(old) {
        let message = format!("The disruption budget {name} is still being processed by the server.");
        let cause = Cause { reason: "DisruptionBudget", field: String::new(), message };
        let mut status = refused("Cannot evict pod as it would violate the pod's disruption budget.", cause);
        status.details.get_or_insert_default().retry_after_seconds = 10;
        return Err(status);
    }
    let allowed = status["disruptionsAllowed"].as_i64().unwrap_or(0);
    if allowed <= 0 {
        let (wanted, have) = (status["desiredHealthy"].as_i64().unwrap_or(0), status["currentHealthy"].as_i64().unwrap_or(0));
        return Err(refuse(format!("The disruption budget {name} needs {wanted} healthy pods and has {have} currently")));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED_PODS) {
        return Err(refuse(format!("The disruption budget {name} waits for too many evicted pods to go")));
    }
    let mut new = old.clone();
    let status = meta::map(&mut new, "status");
    status.insert("disruptionsAllowed".into(), (allowed - 1).into());
    meta::map(&mut new["status"], "disruptedPods").insert(pod.to_owned(), meta::time(now).into());
    Ok(new)
}
