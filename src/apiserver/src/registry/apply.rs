//! PATCH with a configuration: server-side apply, which also creates.

use bytes::Bytes;
use coracle_api::{
    apply::{self, Act, ApplyError, Managers, Versions},
    decode::{self, Decoded},
    defaulting,
    schema::Schema,
    status::{Cause, Details, Status},
    structural,
};
use http::Response;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Inner, body, create,
    manage::{self, KindVersions, Manage},
    options::{FieldValidation, WriteOptions},
    patch,
    read::{answer, include},
    target::Target,
    update,
    write::Write,
};
use crate::{body::Body, output::format::Format, request::Context, strategy::meta};

/// The media type of configurations: YAML, and so JSON.
pub const MEDIA: &str = "application/apply-patch+yaml";
/// An object may come and go between looking for it and writing it; so often is it looked for.
const MAX_ATTEMPTS: usize = 8;

/// What a request asks to be applied.
#[derive(Debug)]
pub struct Configuration {
    /// As the client sent it.
    pub value: Value,
    /// Fields that came twice, in words.
    pub doubled: Vec<String>,
}

impl Configuration {
    /// Of a body; JSON is read as such, as it is most of what clients send.
    pub fn read(body: &Bytes, api_version: &str, kind: &str) -> Result<Self, Status> {
        if body.len() > body::MAX_BODY_BYTES {
            return Err(body::too_large());
        }
        let looks_like_json = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let json = if looks_like_json { decode::json(body).ok() } else { None };
        let Decoded { value, duplicates } = match json {
            Some(decoded) => decoded,
            None => decode::yaml(body).map_err(|error| Status::bad_request(format!("error decoding YAML: {error}")))?,
        };
        let is = |field: &str, wanted: &str| value[field].as_str() == Some(wanted);
        if !(value.is_object() && is("apiVersion", api_version) && is("kind", kind)) {
            let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
            return Err(Status::bad_request(format!("invalid object type: {}, Kind={}", text("apiVersion"), text("kind"))));
        }
        if !value["metadata"]["managedFields"].is_null() {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        let doubled = duplicates.iter().map(ToString::to_string).collect();
        Ok(Self { value, doubled })
    }

    /// Refuses fields that came twice where that is asked for.
    pub fn check_doubled(&self, validation: FieldValidation) -> Result<(), Status> {
        if validation == FieldValidation::Strict && !self.doubled.is_empty() {
            return Err(Status::bad_request(format!("error strict decoding YAML: {}", self.doubled.join(", "))));
        }
        Ok(())
    }

    /// Tells the client of them.
    pub fn warn(&self, cx: &Context, validation: FieldValidation) {
        if validation == FieldValidation::Warn && !self.doubled.is_empty() {
            cx.warnings.extend(vec![self.doubled.join(", ")]);
        }
    }
}

/// Applies need a name to apply under.
pub fn check_options(options: &WriteOptions) -> Result<(), Status> {
    if !options.field_manager.is_empty() {
        return Ok(());
    }
    let message = "Required value: is required for apply patch".into();
    let cause = Cause { reason: "FieldValueRequired", field: "fieldManager".into(), message };
    Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]))
}

/// Answers an apply.
pub async fn apply(
    inner: &Inner,
    target: &Target,
    cx: &Context,
    body: &Bytes,
    options: &WriteOptions,
    format: &Format,
) -> Result<Response<Body>, Status> {
    check_options(options)?;
    let resource = &target.resource;
    let config = Configuration::read(body, &resource.api_version(), &resource.kind)?;
    for _ in 0..MAX_ATTEMPTS {
        let write = Write { inner, target, cx, admitted: false, dry_run: options.dry_run };
        let is_new = target.collection.get(&target.key()).is_none();
        let written = if is_new && target.subresource.is_empty() {
            let object = manage::replay(&write, |versions| configured(&write, options, &config, None, versions)).await??;
            create::insert(inner, target, cx, object, options, false, Manage::Settled).await
        } else {
            let make = &mut |old: &Value, versions: &KindVersions<'_>| configured(&write, options, &config, Some(old), versions);
            update::change(inner, target, cx, options, false, Manage::Settled, make).await
        };
        let written = match written {
            Err(status) if is_new && status.reason == "AlreadyExists" && target.subresource.is_empty() => continue,
            other => other?,
        };
        config.warn(cx, options.field_validation);
        return answer(inner, if written.created { 201 } else { 200 }, target, format, include(cx)?, written.json).await;
    }
    Err(target.conflict(update::MODIFIED))
}

/// The object that a configuration makes of the one there is, both in the version of the path, with its managers.
fn configured(
    write: &Write<'_>,
    options: &WriteOptions,
    config: &Configuration,
    old: Option<&Value>,
    versions: &KindVersions<'_>,
) -> Result<Value, Status> {
    let (target, resource) = (write.target, &write.target.resource);
    let live = match old {
        Some(old) => manage::unmanaged(old.clone()),
        None => structural::zero(&resource.schema),
    };
    let known = old.map(manage::managers).unwrap_or_default();
    let (mut object, managed_fields) = merged(write, options, (&resource.schema, &resource.api_version()), &live, config, known, versions)?;
    let managed_fields = managed_fields.write();
    structural::prune(&resource.schema, &mut object).map_err(|error| body::refused(&error, None))?;
    config.check_doubled(options.field_validation)?;
    if old.is_none() {
        let uid = meta::text(&object, "uid");
        if !uid.is_empty() {
            return Err(
                target.conflict(&format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found"))
            );
        }
        meta::of(&mut object).remove("resourceVersion");
    }
    patch::check_identity(target, &mut object)?;
    manage::set(&mut object, managed_fields);
    defaulting::apply(resource, &mut object);
    Ok(object)
}

/// The merge itself: the object, not yet canonical, and its managers.
pub fn merged(
    write: &Write<'_>,
    options: &WriteOptions,
    (schema, api_version): (&Schema, &str),
    live: &Value,
    config: &Configuration,
    known: Managers,
    versions: &dyn Versions,
) -> Result<(Value, Managers), Status> {
    let now = meta::time(Timestamp::now());
    let reach = manage::reach_of(write);
    let act = Act { manager: &options.field_manager, api_version, subresource: &write.target.subresource, now: &now, reach };
    let applied = apply::apply(schema, live, &config.value, known, &act, options.force == Some(true), versions);
    let applied = applied.map_err(|error| refused(write.target, &config.value, &error))?;
    Ok((applied.object, applied.managers))
}

fn refused(target: &Target, config: &Value, error: &ApplyError) -> Status {
    match error {
        // Upstream answers 500 without a reason here; the fault is the client's.
        ApplyError::Config(_) => {
            let text = |field: &str| config[field].as_str().unwrap_or_default();
            let (version, kind) = (text("apiVersion"), text("kind"));
            let name = format!("{}/{}; {version}, Kind={kind}", target.namespace, target.name);
            Status::bad_request(format!("failed to create typed patch object ({name}): {error}"))
        }
        ApplyError::Conflicts(conflicts) => {
            let cause = |conflict: &apply::Conflict| Cause {
                reason: "FieldManagerConflict",
                field: conflict.path.to_string(),
                message: format!("conflict with {}", conflict.manager),
            };
            let mut status = Status::new(409, "Conflict", error.to_string());
            status.details = Some(Details { causes: conflicts.iter().map(cause).collect(), ..Details::default() });
            status
        }
    }
}
