//! PATCH: JSON patch, merge patch and strategic merge patch.

use bytes::Bytes;
use coracle_api::{
    decode::{self, Decoded, Duplicate},
    defaulting,
    patch::{self, PatchError},
    status::{Cause, Status},
};
use http::Response;
use serde_json::Value;

use super::{
    Inner, apply,
    body::{self, Expected, Settle},
    manage::Manage,
    options::{FieldValidation, WriteOptions},
    read::{answer, include},
    target::Target,
    update,
};
use crate::{body::Body, output::format::Format, request::Context, strategy::meta};

/// A patch, read once and applied as often as it takes.
#[derive(Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Kubernetes' own.
    Strategic(Value),
}

impl Patch {
    /// Of the request's media type.
    pub fn read(cx: &Context, body: &Bytes, custom: bool) -> Result<(Self, Vec<Duplicate>), Status> {
        let supported = if custom {
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        } else {
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml"
        };
        let media = body::media(cx);
        let make: fn(Value) -> Self = match media.as_str() {
            "application/json-patch+json" => Self::Json,
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" if !custom => Self::Strategic,
            _ if custom => return Err(body::unsupported(supported)),
            _ => return Err(body::unsupported(supported).about("", "", "")),
        };
        if body.len() > body::MAX_BODY_BYTES {
            return Err(body::too_large());
        }
        let Decoded { value, duplicates } = decode::json(body).map_err(|error| body::refused(&error, None))?;
        cx.audit.sent(&value);
        Ok((make(value), duplicates))
    }

    /// The object that the patch makes of `object`.
    pub fn apply(&self, object: &mut Value, schema: &coracle_api::schema::Schema) -> Result<(), Status> {
        let applied = match self {
            Self::Json(patch) => patch::json(object, patch),
            Self::Merge(patch) => patch::merge(object, patch),
            Self::Strategic(patch) => patch::strategic(schema, object, patch),
        };
        applied.map_err(|error| match error {
            PatchError::Malformed(why) => Status::bad_request(why),
            PatchError::TooMany(_) => Status::new(413, "RequestEntityTooLarge", error.to_string()),
            PatchError::Inapplicable(_) => Status::new(422, "Invalid", error.to_string()).about("", "", ""),
        })
    }
}

/// Applies a patch to an object in the version of the path and makes the result canonical.
pub fn patched(patch: &Patch, current: &Value, expected: Expected<'_>, validation: FieldValidation, cx: &Context) -> Result<Value, Status> {
    let mut object = current.clone();
    patch.apply(&mut object, expected.schema)?;
    let decoded = Decoded { value: object, duplicates: Vec::new() };
    let body = body::settle(decoded, expected, validation).map_err(|error| match error {
        Settle::Status(status) => no_object(&status.message),
        Settle::Strict(problems) => no_object(&format!("strict decoding error: {}", problems.join(", "))),
    })?;
    cx.warnings.extend(body.warnings);
    Ok(body.object)
}

/// 422: what the patch makes is no object of its kind.
fn no_object(why: &str) -> Status {
    let cause = Cause { reason: "FieldValueInvalid", field: "patch".into(), message: format!("Invalid value: {why}") };
    Status::invalid("", "", "", vec![cause])
}

/// Only an apply can be forced.
pub fn refuse_force(options: &WriteOptions) -> Result<(), Status> {
    if options.force.is_none() {
        return Ok(());
    }
    let cause = Cause {
        reason: "FieldValueForbidden",
        field: "force".into(),
        message: "Forbidden: may not be specified for non-apply patch".into(),
    };
    Err(Status::invalid("meta.k8s.io", "PatchOptions", "", vec![cause]))
}

/// Answers a PATCH.
pub async fn patch(inner: &Inner, target: &Target, cx: &Context, body: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(cx, "PatchOptions")?;
    let resource = &target.resource;
    if body::media(cx) == apply::MEDIA {
        return apply::apply(inner, target, cx, body, &options, format).await;
    }
    let (patch, duplicates) = Patch::read(cx, body, resource.custom)?;
    refuse_force(&options)?;
    let doubled: Vec<String> = duplicates.iter().map(ToString::to_string).collect();
    if options.field_validation == FieldValidation::Strict && !doubled.is_empty() {
        return Err(Status::bad_request(format!("strict decoding error: {}", doubled.join(", "))));
    }
    let expected = Expected { group: &resource.group, version: &resource.version, kind: &resource.kind, schema: &resource.schema };
    if options.field_validation == FieldValidation::Warn {
        cx.warnings.extend(doubled);
    }
    let written = update::change(inner, target, cx, &options, false, Manage::Track, &mut |old, _| {
        let mut object = patched(&patch, old, expected, options.field_validation, cx)?;
        check_identity(target, &mut object)?;
        defaulting::apply(resource, &mut object);
        Ok(object)
    })
    .await?;
    answer(inner, 200, target, format, include(cx)?, written.json).await
}

/// A patch may not rename or move.
pub fn check_identity(target: &Target, object: &mut Value) -> Result<(), Status> {
    super::create::settle_namespace(target, object)?;
    let name = meta::text(object, "name");
    if name == target.name {
        return Ok(());
    }
    Err(Status::bad_request(format!("the name of the object ({name}) does not match the name on the URL ({})", target.name)))
}
