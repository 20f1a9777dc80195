//! The subresource `binding` of pods (and the old resource `bindings`): the scheduler's word.

use bytes::Bytes;
use coracle_api::{
    catalogue,
    status::{Cause, Details, Status},
};
use http::Response;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Inner,
    body::{self, Expected},
    delete::success,
    manage::Manage,
    options::WriteOptions,
    target::Target,
    update,
    write::Write,
};
use crate::{
    admission::Operation,
    body::Body,
    output::{self, format::Format},
    request::Context,
    strategy::meta,
};

/// Answers a POST of a Binding.
pub async fn bind(inner: &Inner, target: &Target, cx: &Context, bytes: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(cx, "CreateOptions")?;
    let catalogue = inner.catalogue.now();
    let resource = catalogue.kind("", "v1", "Binding").ok_or_else(super::target::unknown)?;
    let expected = Expected { group: "", version: "v1", kind: "Binding", schema: &resource.schema };
    let mut binding = body::object(cx, bytes, expected, options.field_validation)?;
    super::create::settle_namespace(target, &mut binding)?;
    let name = meta::text(&binding, "name").to_owned();
    if !(target.name.is_empty() || name == target.name) {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let name = if target.name.is_empty() { name } else { target.name.clone() };
    if name.is_empty() {
        return Err(Status::bad_request("name is required"));
    }
    check(&binding, &name)?;
    let pods = Target::of(&inner.catalogue.now(), &inner.cache, "", "pods", &target.namespace, &name).ok_or_else(super::target::unknown)?;
    let pods = Target { subresource: "binding".into(), ..pods };
    Write { inner, target: &pods, cx, admitted: false, dry_run: options.dry_run }.admit(Operation::Create, &mut binding).await?;
    update::change(inner, &pods, cx, &options, true, Manage::Keep, &mut |old, _| bound(&pods, old, &binding, Timestamp::now())).await?;
    let plain = Format { shape: output::format::Shape::Whole, ..format.clone() };
    let mut status = success(&Details::default());
    if let Some(map) = status.as_object_mut() {
        map.remove("details");
        map.insert("code".into(), 201.into());
    }
    Ok(output::value(201, &plain, &status, |value| output::message(catalogue::builtin(), "Status", value)))
}

fn check(binding: &Value, name: &str) -> Result<(), Status> {
    let mut causes = Vec::new();
    let kind = binding["target"]["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        let message = format!("Unsupported value: {kind:?}: supported values: \"Node\", \"<empty>\"");
        causes.push(Cause { reason: "FieldValueNotSupported", field: "target.kind".into(), message });
    }
    if binding["target"]["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause { reason: "FieldValueRequired", field: "target.name".into(), message: "Required value".into() });
    }
    // Upstream answers 500 without a reason here; a client is better served with what is wrong.
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("", "Binding", name, causes)) }
}

/// 409 that names the subresource, as upstream does here.
fn conflict(pods: &Target, why: &str) -> Status {
    pods.conflict(why).about("", "pods/binding", &pods.name)
}

/// The pod on its node.
fn bound(pods: &Target, old: &Value, binding: &Value, now: Timestamp) -> Result<Value, Status> {
    let uid = meta::text(binding, "uid");
    if !uid.is_empty() && uid != meta::text(old, "uid") {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta::text(old, "uid"));
        return Err(pods.conflict(&why));
    }
    if meta::is_deleting(old) {
        return Err(conflict(pods, &format!("pod {} is being deleted, cannot be assigned to a host", pods.name)));
    }
    if let Some(node) = old["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
        return Err(conflict(pods, &format!("pod {} is already assigned to node {node:?}", pods.name)));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(pods, &format!("pod {} has non-empty .spec.schedulingGates", pods.name)));
    }
    let mut new = old.clone();
    new["spec"]["nodeName"] = binding["target"]["name"].clone();
    if let Some(annotations) = binding["metadata"]["annotations"].as_object() {
        meta::of(&mut new);
        meta::map(&mut new["metadata"], "annotations").extend(annotations.clone());
    }
    let conditions = meta::map(&mut new, "status").entry("conditions").or_insert(Value::Null);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let condition = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": meta::time(now)});
    if let Some(list) = conditions.as_array_mut() {
        match list.iter_mut().find(|c| c["type"] == "PodScheduled") {
            Some(known) => *known = condition,
            None => list.push(condition),
        }
    }
    Ok(new)
}
