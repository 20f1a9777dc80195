//! AdmissionReview: what a webhook is asked, and what its answer says. Pure.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::status::Status;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::request::User;

/// Group of the two versions.
const GROUP: &str = "admission.k8s.io";

/// A version of AdmissionReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// The first that is known of a webhook's `admissionReviewVersions`.
    pub fn first(list: &Value) -> Option<Self> {
        list.as_array().into_iter().flatten().find_map(|version| match version.as_str() {
            Some("v1") => Some(Self::V1),
            Some("v1beta1") => Some(Self::V1Beta1),
            _ => None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// Group, version and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Kind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// Group, version and plural.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Resource {
    pub group: String,
    pub version: String,
    pub resource: String,
}

/// `request` of an AdmissionReview.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    pub uid: &'a str,
    pub kind: &'a Kind,
    pub resource: &'a Resource,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub sub_resource: &'a str,
    pub request_kind: &'a Kind,
    pub request_resource: &'a Resource,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: &'a str,
    pub operation: &'a str,
    pub user_info: &'a User,
    pub object: Option<&'a Value>,
    pub old_object: Option<&'a Value>,
    pub dry_run: bool,
    pub options: Option<&'a Value>,
}

/// The body of the call.
pub(super) fn write(version: Version, request: &Request<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Review<'a> {
        kind: &'static str,
        api_version: String,
        request: &'a Request<'a>,
    }
    let api_version = format!("{GROUP}/{}", version.word());
    // Values, texts and maps of texts: there is nothing that JSON cannot say.
    serde_json::to_vec(&Review { kind: "AdmissionReview", api_version, request }).unwrap_or_default()
}

/// What a webhook answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Verdict {
    /// It lets the write pass.
    pub allowed: bool,
    /// Why not.
    pub result: Option<Value>,
    /// A JSON patch of the object.
    pub patch: Option<Value>,
    /// For the author of the request.
    pub warnings: Vec<String>,
    /// For the audit log.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Value>,
    patch: Option<String>,
    patch_type: Option<String>,
    audit_annotations: Option<BTreeMap<String, String>>,
    warnings: Option<Vec<String>>,
}

/// Reads the answer to the call with this uid; the error says what is wrong with it.
pub(super) fn read(version: Version, uid: &str, mutating: bool, answer: Value) -> Result<Verdict, String> {
    let head = |field: &str| answer[field].as_str().unwrap_or_default();
    let (is, wanted) = ((head("apiVersion").to_owned(), head("kind").to_owned()), format!("{GROUP}/{}", version.word()));
    let Some(response) = answer.get("response").filter(|response| !response.is_null()) else {
        return Err("webhook response was absent".into());
    };
    let response: Response = serde_json::from_value(response.clone()).map_err(|error| format!("response: {error}"))?;
    // The older version never asked for these.
    if version == Version::V1 {
        if response.uid != uid {
            return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
        }
        if (is.0.as_str(), is.1.as_str()) != (&wanted, "AdmissionReview") {
            return Err(format!("expected webhook response of {wanted}, Kind=AdmissionReview, got {}, Kind={}", is.0, is.1));
        }
    }
    let bytes =
        response.patch.as_deref().map(|text| STANDARD.decode(text).map_err(|error| format!("response.patch is not base64: {error}")));
    let bytes = bytes.transpose()?.filter(|bytes| !bytes.is_empty());
    let patch = patch(version, mutating, bytes.as_deref(), response.patch_type.as_deref())?;
    if let Some(status) = &response.status {
        check_status(status)?;
    }
    Ok(Verdict {
        allowed: response.allowed,
        result: response.status,
        patch,
        warnings: response.warnings.unwrap_or_default(),
        annotations: response.audit_annotations.unwrap_or_default(),
    })
}

fn patch(version: Version, mutating: bool, bytes: Option<&[u8]>, kind: Option<&str>) -> Result<Option<Value>, String> {
    if version == Version::V1 {
        match (mutating, bytes, kind) {
            (false, Some(_), _) => return Err("validating webhook may not return response.patch".into()),
            (false, _, Some(_)) => return Err("validating webhook may not return response.patchType".into()),
            (true, Some(_), None) => return Err("webhook returned response.patch but not response.patchType".into()),
            (true, None, Some(_)) => return Err("webhook returned response.patchType but not response.patch".into()),
            (true, _, Some(other)) if other != "JSONPatch" => return Err(format!("unsupported patch type {other:?}")),
            _ => {}
        }
    }
    let Some(bytes) = bytes.filter(|_| mutating) else { return Ok(None) };
    let patch: Value = serde_json::from_slice(bytes).map_err(|error| format!("received undecodable patch in webhook response: {error}"))?;
    match patch.as_array() {
        Some(operations) => Ok((!operations.is_empty()).then_some(patch)),
        None if patch.is_null() => Ok(None),
        None => Err("received undecodable patch in webhook response: it is not a list of operations".into()),
    }
}

/// A status of other types than a Status has would be no answer to any client.
fn check_status(status: &Value) -> Result<(), String> {
    let fits = status.is_null()
        || status.is_object()
            && ["status", "message", "reason"].iter().all(|field| status[*field].is_null() || status[*field].is_string())
            && (status["code"].is_null() || status["code"].as_u64().is_some_and(|code| code < 1000))
            && (status["details"].is_null() || status["details"].is_object());
    if fits { Ok(()) } else { Err("response.status is not a Status".into()) }
}

/// A webhook's no, as the client hears it. Clients match on these words.
pub(super) fn denied(webhook: &str, result: Option<&Value>) -> Status {
    let nothing = Value::Null;
    let result = result.unwrap_or(&nothing);
    let text = |field: &str| result[field].as_str().filter(|text| !text.is_empty());
    let code = result["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| (400..600).contains(code)).unwrap_or(400);
    let by = format!("admission webhook {webhook:?} denied the request");
    let message = match (text("message"), text("reason")) {
        (Some(why), _) | (None, Some(why)) => format!("{by}: {why}"),
        (None, None) => format!("{by} without explanation"),
    };
    let mut given = Map::new();
    given.insert("kind".into(), "Status".into());
    given.insert("apiVersion".into(), "v1".into());
    given.insert("metadata".into(), json!({}));
    given.insert("status".into(), text("status").filter(|status| *status != "Success").unwrap_or("Failure").into());
    given.insert("message".into(), message.as_str().into());
    for field in ["reason", "details"] {
        if let Some(value) = result.get(field).filter(|value| !value.is_null()) {
            given.insert(field.into(), value.clone());
        }
    }
    given.insert("code".into(), code.into());
    Status::new(code, "", message).given(given.into())
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
