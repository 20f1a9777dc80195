//! CertificateSigningRequests: what their subresources may change, and whether keys, signatures and certificates in them are what they should be.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::status::Cause;
use coracle_pki::request::{SigningRequest, check_chain};
use jiff::Timestamp;
use serde_json::Value;

use super::{Kind, meta};

/// Whether the rules of this room are for the kind.
fn concerns(kind: Kind<'_>) -> bool {
    (kind.group, kind.plural) == ("certificates.k8s.io", "certificatesigningrequests")
}

/// `certificatesigningrequests/approval`: conditions alone.
pub fn prepare_approval(new: &mut Value, old: &Value, now: Timestamp) {
    let conditions = new["status"].get("conditions").cloned();
    let metadata = new["metadata"].clone();
    *new = old.clone();
    new["metadata"] = metadata;
    meta::put(meta::map(new, "status"), "conditions", conditions);
    stamp(new, old, now);
}

/// `certificatesigningrequests/status`: who signs leaves the verdict as it is.
pub fn prepare_status(new: &mut Value, old: &Value, now: Timestamp) {
    for kind in ["Approved", "Denied"] {
        let kept: Vec<Value> = conditions(old).iter().filter(|condition| condition["type"] == kind).cloned().collect();
        let list = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        let mut mine: Vec<&mut Value> = list.into_iter().flatten().filter(|condition| condition["type"] == kind).collect();
        // With more or fewer of them it is for validation to refuse.
        if mine.len() == kept.len() {
            for (place, condition) in mine.iter_mut().zip(kept) {
                **place = condition;
            }
        }
    }
    stamp(new, old, now);
}

fn conditions(request: &Value) -> &[Value] {
    request["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Conditions say since when.
fn stamp(new: &mut Value, old: &Value, now: Timestamp) {
    let list = new.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
    for condition in list.into_iter().flatten().filter(|condition| condition.is_object()) {
        if condition["lastUpdateTime"].is_null() {
            condition["lastUpdateTime"] = meta::time(now).into();
        }
        if condition["lastTransitionTime"].is_null() {
            let same = |other: &&Value| other["type"] == condition["type"] && other["status"] == condition["status"];
            let since = conditions(old).iter().find(same).map(|other| other["lastTransitionTime"].clone()).filter(Value::is_string);
            condition["lastTransitionTime"] = since.unwrap_or_else(|| meta::time(now).into());
        }
    }
}

/// What is wrong with the request of a new object, or with the certificate of one that had another before.
pub fn check(kind: Kind<'_>, object: &Value, old: Option<&Value>) -> Option<Cause> {
    if !concerns(kind) {
        return None;
    }
    let bytes = |object: &Value, pointer: &str| {
        STANDARD.decode(object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()).unwrap_or_default()
    };
    let invalid =
        |field: &str, why: String| Cause { reason: "FieldValueInvalid", field: field.to_owned(), message: format!("Invalid value: {why}") };
    match old {
        None => SigningRequest::from_pem(&bytes(object, "/spec/request")).err().map(|error| invalid("spec.request", error.to_string())),
        Some(old) => {
            let (new, old) = (bytes(object, "/status/certificate"), bytes(old, "/status/certificate"));
            if new.is_empty() || new == old {
                return None;
            }
            check_chain(&new).err().map(|error| invalid("status.certificate", format!("<certificate data>: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";
    const THEN: &str = "2025-01-01T00:00:00Z";

    fn request(conditions: Value) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.test/b"}, "status": {"conditions": conditions}})
    }

    #[test]
    fn an_approval_changes_conditions_alone_and_says_when() {
        let old = request(json!([]));
        let mut new = request(json!([{"type": "Approved", "status": "True"}]));
        new["spec"]["signerName"] = "other.test/x".into();
        new["status"]["certificate"] = "eA==".into();
        prepare_approval(&mut new, &old, NOW.parse().expect("a time"));
        let expected = json!([{"type": "Approved", "status": "True", "lastUpdateTime": NOW, "lastTransitionTime": NOW}]);
        assert_eq!(new, request(expected));
    }

    #[test]
    fn a_signer_leaves_the_verdict_as_it_is() {
        let approved = json!({"type": "Approved", "status": "True", "reason": "Mine", "lastUpdateTime": THEN, "lastTransitionTime": THEN});
        let old = request(json!([approved]));
        let mut new = request(json!([{"type": "Approved", "status": "True", "reason": "Yours"}, {"type": "Failed", "status": "True"}]));
        prepare_status(&mut new, &old, NOW.parse().expect("a time"));
        let failed = json!({"type": "Failed", "status": "True", "lastUpdateTime": NOW, "lastTransitionTime": NOW});
        assert_eq!(new["status"]["conditions"], json!([approved, failed]));
        let mut without = request(json!([]));
        prepare_status(&mut without, &old, NOW.parse().expect("a time"));
        assert_eq!(without["status"]["conditions"], json!([]), "validation refuses it");
    }

    #[test]
    fn only_requests_and_certificates_are_taken() {
        let kind = Kind { group: "certificates.k8s.io", plural: "certificatesigningrequests", has_status: true, custom: false };
        let field = |object: &Value, old: Option<&Value>| check(kind, object, old).map(|cause| cause.field);
        let mut new = request(json!([]));
        assert_eq!(field(&new, None).as_deref(), Some("spec.request"));
        assert_eq!(field(&new, Some(&request(json!([])))), None);
        new["status"]["certificate"] = STANDARD.encode("no certificate").into();
        assert_eq!(field(&new, Some(&request(json!([])))).as_deref(), Some("status.certificate"));
        assert_eq!(field(&new, Some(&new)), None, "what is there may stay");
        let other = Kind { plural: "pods", group: "", ..kind };
        assert!(check(other, &new, None).is_none());
    }
}
