//! The subresource `scale`: how many, seen and set without knowing what of.

use bytes::Bytes;
use coracle_api::{
    protobuf,
    schema::Schema,
    selector::LabelSelector,
    status::{Cause, Status},
};
use http::Response;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    body::{self, Expected},
    options::WriteOptions,
    patch::{Patch, patched},
    target::Target,
    update,
};
use crate::{
    body::Body,
    output::{self, format::Format},
    request::Context,
    strategy::meta,
};

/// The scale of an object.
fn of(object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        meta::put(&mut metadata, field, object["metadata"].get(field).cloned());
    }
    let mut spec = Map::new();
    if let Some(replicas) = object["spec"]["replicas"].as_i64().filter(|n| *n != 0) {
        spec.insert("replicas".into(), replicas.into());
    }
    let mut status = json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0)});
    let selector = selector(&object["spec"]["selector"]);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// As text: a LabelSelector, or the plain map of a ReplicationController.
fn selector(selector: &Value) -> String {
    if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        return LabelSelector::from_value(selector).map(|selector| selector.to_string()).unwrap_or_default();
    }
    let pairs = selector.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

fn schema(target: &Target) -> Result<&Schema, Status> {
    target.resource.subresource("scale").map(|s| &*s.schema).ok_or_else(super::target::unknown)
}

fn respond(target: &Target, format: &Format, object: &Value) -> Result<Response<Body>, Status> {
    let schema = schema(target)?;
    let format = Format { shape: output::format::Shape::Whole, ..format.clone() };
    Ok(output::value(200, &format, &of(object), |scale| protobuf::encode(schema, scale)))
}

/// Answers a GET.
pub async fn get(inner: &Inner, target: &Target, format: &Format) -> Result<Response<Body>, Status> {
    inner.cache.catch_up().await;
    let object = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?;
    respond(target, format, &object.value())
}

/// Answers a PUT or a PATCH.
pub async fn set(inner: &Inner, target: &Target, cx: &Context, bytes: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let patches = cx.info.verb == "patch";
    let options = WriteOptions::read(cx, if patches { "PatchOptions" } else { "UpdateOptions" })?;
    let expected = Expected { group: "autoscaling", version: "v1", kind: "Scale", schema: schema(target)? };
    let (patch, whole) = if patches {
        (Some(Patch::read(cx, bytes, target.resource.custom)?.0), None)
    } else {
        (None, Some(body::object(cx, bytes, expected, options.field_validation)?))
    };
    // What the main resource's update would do, generation included.
    let main = Target { subresource: String::new(), ..target.clone() };
    let written = update::change(inner, &main, cx, &options, false, &mut |old| {
        let scale = match (&patch, &whole) {
            (Some(patch), _) => patched(patch, &of(old), expected, options.field_validation, cx)?,
            (None, whole) => whole.clone().unwrap_or_default(),
        };
        apply(target, old, &scale)
    })
    .await?;
    respond(target, format, &serde_json::from_slice(&written.json).unwrap_or_default())
}

/// The object with the replicas that a scale asks for.
fn apply(target: &Target, old: &Value, scale: &Value) -> Result<Value, Status> {
    let name = meta::text(scale, "name");
    if name != target.name {
        return Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", target.name)));
    }
    let mut causes = Vec::new();
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        causes.push(Cause { reason: "FieldValueInvalid", field: "spec.replicas".into(), message });
    }
    if !causes.is_empty() {
        return Err(Status::invalid("autoscaling", "Scale", name, causes));
    }
    let mut new = old.clone();
    meta::map(&mut new, "spec").insert("replicas".into(), replicas.into());
    let metadata = meta::of(&mut new);
    for field in ["resourceVersion", "uid"] {
        meta::put(metadata, field, scale["metadata"].get(field).cloned());
    }
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_what_its_object_says() {
        let object = json!({"metadata": {"name": "a", "uid": "u", "labels": {"x": "y"}}, "status": {"replicas": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]}}});
        let scale = of(&object);
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]["replicas"], &scale["metadata"]["labels"]),
            (&json!(3), &json!(2), &Value::Null)
        );
        assert_eq!(scale["status"]["selector"], "a=b,c");
        let controller = json!({"metadata": {"name": "a"}, "spec": {"replicas": 0, "selector": {"a": "b", "c": "d"}}});
        assert_eq!((&of(&controller)["spec"], &of(&controller)["status"]), (&json!({}), &json!({"replicas": 0, "selector": "a=b,c=d"})));
    }
}
