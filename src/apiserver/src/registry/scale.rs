//! The subresource `scale`: how many, seen and set without knowing what of.

use std::sync::Arc;

use bytes::Bytes;
use coracle_api::{
    apply::{Managers, Path, Versions, from_scale, to_scale},
    catalogue::Resource,
    protobuf,
    schema::Schema,
    selector::LabelSelector,
    status::{Cause, Status},
    structural,
};
use http::Response;
use serde_json::{Map, Value, json};

use super::{
    Inner,
    apply::{self, Configuration, merged},
    body::{self, Expected},
    manage::{self, KindVersions, Manage},
    options::WriteOptions,
    patch::{self, Patch, patched},
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

/// Kind of the body.
const KIND: &str = "Scale";
/// Its version.
const VERSION: &str = "autoscaling/v1";
/// Where the numbers of an object are: JSON paths of names.
struct Paths<'r> {
    wanted: &'r str,
    found: &'r str,
    selector: &'r str,
}

impl<'r> Paths<'r> {
    fn of(resource: &'r Resource) -> Self {
        match resource.definition.as_ref().and_then(|definition| definition.scale.as_ref()) {
            Some(scale) => Self { wanted: &scale.spec_replicas, found: &scale.status_replicas, selector: &scale.label_selector },
            None => Self { wanted: ".spec.replicas", found: ".status.replicas", selector: ".spec.selector" },
        }
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('.').filter(|name| !name.is_empty())
}

/// The field of a resource that is its scale.
fn replicas(resource: &Resource) -> Path {
    Path::of_names(&names(Paths::of(resource).wanted).collect::<Vec<_>>())
}

fn at<'v>(object: &'v Value, path: &str) -> &'v Value {
    names(path).fold(object, |value, name| &value[name])
}

/// The scale of an object.
fn of(object: &Value, paths: &Paths<'_>) -> Value {
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        meta::put(&mut metadata, field, object["metadata"].get(field).cloned());
    }
    let mut spec = Map::new();
    if let Some(replicas) = at(object, paths.wanted).as_i64().filter(|n| *n != 0) {
        spec.insert("replicas".into(), replicas.into());
    }
    let mut status = json!({"replicas": at(object, paths.found).as_i64().unwrap_or(0)});
    let selector = if paths.selector.is_empty() { String::new() } else { selector(at(object, paths.selector)) };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// As text: a LabelSelector, or the plain map of a ReplicationController.
fn selector(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    if selector.get("matchLabels").is_some() || selector.get("matchExpressions").is_some() {
        return LabelSelector::from_value(selector).map(|selector| selector.to_string()).unwrap_or_default();
    }
    let pairs = selector.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}

fn schema(target: &Target) -> Result<&Arc<Schema>, Status> {
    target.resource.subresource("scale").map(|s| &s.schema).ok_or_else(super::target::unknown)
}

fn respond(target: &Target, format: &Format, object: &Value) -> Result<Response<Body>, Status> {
    let schema = schema(target)?;
    let format = Format { shape: output::format::Shape::Whole, ..format.clone() };
    Ok(output::value(200, &format, &of(object, &Paths::of(&target.resource)), |scale| protobuf::encode(schema, scale)))
}

/// Answers a GET.
pub async fn get(inner: &Inner, target: &Target, format: &Format) -> Result<Response<Body>, Status> {
    inner.cache.catch_up().await;
    let object = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?;
    respond(target, format, &object.value())
}

/// The kind Scale, whatever it scales.
struct ScaleVersions<'a>(&'a Arc<Schema>);

impl Versions for ScaleVersions<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        (api_version == VERSION).then(|| Arc::clone(self.0))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        (from == VERSION && to == VERSION).then(|| object.clone())
    }
}

/// What a request asks of a scale.
enum Wish {
    Whole(Value),
    Patch(Patch),
    Apply(Configuration),
}

impl Wish {
    fn read(cx: &Context, bytes: &Bytes, target: &Target, expected: Expected<'_>, options: &WriteOptions) -> Result<Self, Status> {
        if cx.info.verb != "patch" {
            return body::object(cx, bytes, expected, options.field_validation).map(Self::Whole);
        }
        if body::media(cx) == apply::MEDIA {
            apply::check_options(options)?;
            return Configuration::read(bytes, VERSION, KIND).map(Self::Apply);
        }
        patch::refuse_force(options)?;
        Patch::read(cx, bytes, target.resource.custom).map(|(patch, _)| Self::Patch(patch))
    }
}

/// Answers a PUT or a PATCH.
pub async fn set(inner: &Inner, target: &Target, cx: &Context, bytes: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let patches = cx.info.verb == "patch";
    let options = WriteOptions::read(cx, if patches { "PatchOptions" } else { "UpdateOptions" })?;
    let schema = schema(target)?;
    let expected = Expected { group: "autoscaling", version: "v1", kind: KIND, schema };
    let wish = Wish::read(cx, bytes, target, expected, &options)?;
    let write = Write { inner, target, cx, admitted: false, dry_run: options.dry_run };
    let kind_versions = KindVersions::new(inner.catalogue.now(), target);
    let replicas_at = |version: &str| kind_versions.resource(version).map(|resource| replicas(resource));
    // What the request asks of an object: its scale as it is, as it will be, and who manages that.
    let wished = |old: &Value| -> Result<(Value, Value, Managers), Status> {
        let (live, known) = (of(old, &Paths::of(&target.resource)), to_scale(&manage::managers(old), &replicas_at));
        let versions = ScaleVersions(schema);
        let (scale, managers) = match &wish {
            Wish::Apply(config) => {
                let (mut scale, managers) = merged(&write, &options, (schema, VERSION), &live, config, known, &versions)?;
                structural::prune(schema, &mut scale).map_err(|error| body::refused(&error, None))?;
                config.check_doubled(options.field_validation)?;
                (scale, managers)
            }
            Wish::Patch(patch) => {
                let scale = patched(patch, &live, expected, options.field_validation, cx)?;
                let managers = manage::track(&write, &options, (schema, VERSION), (&live, &scale), known, &versions);
                (scale, managers)
            }
            Wish::Whole(scale) => {
                let managers = manage::track(&write, &options, (schema, VERSION), (&live, scale), known, &versions);
                (scale.clone(), managers)
            }
        };
        Ok((live, scale, managers))
    };
    // Plugins see scales, not what is scaled.
    let held = target.collection.get(&target.key()).ok_or_else(|| target.not_found())?.value();
    let (live, mut scale, _) = wished(&*inner.shown(target, &held).await?)?;
    let asked = scale["spec"]["replicas"].clone();
    write.mutate(Operation::Update, &mut scale, Some(&live)).await?;
    write.validate(Operation::Update, Some(&scale), Some(&live)).await?;
    let changed = Some(scale["spec"]["replicas"].take()).filter(|replicas| *replicas != asked);
    // What the main resource's update would do, generation included.
    let main = Target { subresource: String::new(), ..target.clone() };
    let written = update::change(inner, &main, cx, &options, true, Manage::Settled, &mut |old, _| {
        let (_, mut scale, managers) = wished(old)?;
        if let Some(replicas) = &changed {
            scale["spec"]["replicas"] = replicas.clone();
        }
        let mut new = scaled(target, old, &scale)?;
        let managers = from_scale(&manage::managers(old), managers, &target.resource.api_version(), &replicas_at);
        manage::set(&mut new, managers.write());
        Ok(new)
    })
    .await?;
    if let Wish::Apply(config) = &wish {
        config.warn(cx, options.field_validation);
    }
    respond(target, format, &serde_json::from_slice(&written.json).unwrap_or_default())
}

/// The object with the replicas that a scale asks for.
fn scaled(target: &Target, old: &Value, scale: &Value) -> Result<Value, Status> {
    let name = meta::text(scale, "name");
    if name != target.name {
        return Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", target.name)));
    }
    let mut causes = Vec::new();
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    let paths = Paths::of(&target.resource);
    if replicas < 0 && target.resource.custom {
        let message = format!("Invalid value: {replicas}: should be a non-negative integer");
        return Err(target.invalid(vec![Cause { reason: "FieldValueInvalid", field: paths.wanted.to_owned(), message }]));
    }
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        causes.push(Cause { reason: "FieldValueInvalid", field: "spec.replicas".into(), message });
    }
    if !causes.is_empty() {
        return Err(Status::invalid("autoscaling", "Scale", name, causes));
    }
    let mut new = old.clone();
    let names: Vec<&str> = names(paths.wanted).collect();
    if let [above @ .., last] = names.as_slice() {
        let parent = above.iter().fold(&mut new, |value, name| meta::map_of(value).entry(*name).or_insert(Value::Null));
        meta::map_of(parent).insert((*last).to_owned(), replicas.into());
    }
    let metadata = meta::of(&mut new);
    meta::put(metadata, "uid", scale["metadata"].get("uid").cloned());
    // Without one the scale is set whatever the object is by now, also of kinds whose own updates must name one.
    if let Some(revision) = scale["metadata"]["resourceVersion"].as_str().filter(|revision| !revision.is_empty()) {
        metadata.insert("resourceVersion".into(), revision.into());
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
        let built_in = Paths { wanted: ".spec.replicas", found: ".status.replicas", selector: ".spec.selector" };
        let scale = of(&object, &built_in);
        assert_eq!(
            (&scale["spec"]["replicas"], &scale["status"]["replicas"], &scale["metadata"]["labels"]),
            (&json!(3), &json!(2), &Value::Null)
        );
        assert_eq!(scale["status"]["selector"], "a=b,c");
        let controller = json!({"metadata": {"name": "a"}, "spec": {"replicas": 0, "selector": {"a": "b", "c": "d"}}});
        let scale = of(&controller, &built_in);
        assert_eq!((&scale["spec"], &scale["status"]), (&json!({}), &json!({"replicas": 0, "selector": "a=b,c=d"})));
    }
}
