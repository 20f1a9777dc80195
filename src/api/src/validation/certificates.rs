//! Certificate signing requests: what is asked for, and how far it has come. Keys and signatures are the API server's to check.

use serde_json::Value;

use super::field::{Field, doubles};
use crate::names;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// Never given to anybody in this version of the API.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// Shortest life that can be asked for, in seconds.
const SHORTEST_S: i64 = 600;
/// Conditions that are there and true, or not there.
const VERDICTS: [&str; 3] = ["Approved", "Denied", "Failed"];

pub(super) fn check(object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    match old {
        None => spec(&object.at("spec")),
        // What is asked for stays as it was, whatever is sent.
        Some(old) => change(&object.at("status"), &old["status"], subresource),
    }
}

fn spec(spec: &Field<'_>) {
    let usages = spec.at("usages");
    if usages.is_empty() {
        usages.required("usages must contain at least one value");
    }
    let list = usages.list();
    let doubled = doubles(list);
    usages.each(|i, usage| {
        usage.one_of(&USAGES);
        if doubled[i] {
            usage.duplicate();
        }
    });
    let signer = spec.at("signerName");
    if signer.text() == LEGACY_SIGNER {
        signer.invalid("the legacy signerName is not allowed via this API version");
    } else if signer.must_exist() {
        match signer.text().split_once('/') {
            Some((domain, path)) if !path.is_empty() => {
                if let Err(message) = names::dns_subdomain(domain) {
                    signer.invalid(&message);
                }
                if !domain.contains('.') {
                    signer.invalid("should be a domain with at least two segments separated by dots");
                }
            }
            _ => signer.invalid("must be a fully qualified domain and path of the form 'example.com/signer-name'"),
        }
    }
    spec.at("expirationSeconds").within(SHORTEST_S, i64::from(i32::MAX));
}

fn change(status: &Field<'_>, old: &Value, subresource: &str) {
    let conditions = status.at("conditions");
    let before = list(&old["conditions"]);
    each(&conditions, before);
    for kind in VERDICTS {
        let (was, is) = (of_type(before, kind), of_type(conditions.list(), kind));
        if is.len() < was.len() {
            conditions.forbidden(&format!("updates may not remove a condition of type {kind:?}"));
        } else if subresource != "approval" && kind != "Failed" {
            if is.len() > was.len() {
                conditions.forbidden(&format!("updates may not add a condition of type {kind:?}"));
            } else if is != was {
                conditions.forbidden(&format!("updates may not modify a condition of type {kind:?}"));
            }
        }
    }
    let certificate = status.at("certificate");
    let had = old["certificate"].as_str().unwrap_or_default();
    if certificate.text() != had {
        if subresource != "status" {
            certificate.forbidden("updates may not set certificate content");
        } else if !had.is_empty() {
            certificate.forbidden("updates may not modify existing certificate content");
        }
    }
}

/// The rules of conditions; what an older server let in may stay.
fn each(conditions: &Field<'_>, before: &[Value]) {
    let had = |kind: &str| before.iter().any(|c| c["type"] == kind);
    let had_nameless = before.iter().any(|c| c["type"].as_str().unwrap_or_default().is_empty());
    let had_twice = doubles(before.iter().map(|c| &c["type"])).contains(&true);
    let all = conditions.list();
    let doubled = doubles(all.iter().map(|c| &c["type"]));
    let first = |kind: &str| all.iter().position(|c| c["type"] == kind).unwrap_or(usize::MAX);
    let both = first("Approved").max(first("Denied"));
    let mut told = had("Approved") && had("Denied");
    conditions.each(|i, condition| {
        let (kind, status) = (condition.at("type"), condition.at("status"));
        if !had_nameless {
            kind.must_exist();
        }
        let allowed: &[&str] = if VERDICTS.contains(&kind.text()) { &["True"] } else { &["False", "True", "Unknown"] };
        if status.must_exist() {
            status.one_of(allowed);
        }
        if !told && i >= both {
            told = true;
            conditions.invalid("Approved and Denied conditions are mutually exclusive");
        }
        if !had_twice && doubled[i] {
            kind.duplicate();
        }
    });
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn of_type<'v>(conditions: &'v [Value], kind: &str) -> Vec<&'v Value> {
    conditions.iter().filter(|condition| condition["type"] == kind).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{catalogue::builtin, validation::update};

    fn request(conditions: Value, certificate: &str) -> Value {
        let mut request = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": conditions}});
        if !certificate.is_empty() {
            request["status"]["certificate"] = certificate.into();
        }
        request
    }

    fn check(old: &Value, new: &Value, subresource: &str, expected: &[(&str, &str)]) {
        let resource = builtin().resource("certificates.k8s.io", "v1", "certificatesigningrequests").expect("a kind");
        let found = update(resource, new, old, subresource);
        let found: Vec<_> = found.iter().map(|cause| (cause.reason, cause.field.as_str())).collect();
        assert_eq!(found, expected, "{subresource:?} {new}");
    }

    #[test]
    fn verdicts_come_by_approval_and_certificates_by_status() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status});
        let (approved, denied) = (condition("Approved", "True"), condition("Denied", "True"));
        let with = |conditions: &[&Value]| request(json!(conditions), "");
        let (none, yes) = (with(&[]), with(&[&approved]));
        const CONDITIONS: &str = "status.conditions";
        const CERTIFICATE: &str = "status.certificate";
        check(&none, &yes, "approval", &[]);
        check(&none, &yes, "status", &[("FieldValueForbidden", CONDITIONS)]);
        check(&yes, &none, "approval", &[("FieldValueForbidden", CONDITIONS)]);
        check(&yes, &none, "status", &[("FieldValueForbidden", CONDITIONS)]);
        check(&none, &with(&[&approved, &denied]), "approval", &[("FieldValueInvalid", CONDITIONS)]);
        check(&none, &with(&[&condition("Failed", "True")]), "status", &[]);
        check(&none, &with(&[&condition("Failed", "False")]), "status", &[("FieldValueNotSupported", "status.conditions[0].status")]);
        check(&none, &with(&[&condition("Other", "Unknown")]), "status", &[]);
        check(&none, &with(&[&condition("", "True")]), "status", &[("FieldValueRequired", "status.conditions[0].type")]);
        let twice = condition("Other", "True");
        check(&none, &with(&[&twice, &twice]), "status", &[("FieldValueDuplicate", "status.conditions[1].type")]);
        let issued = |text: &str| request(json!([approved]), text);
        check(&yes, &issued("eA=="), "status", &[]);
        check(&yes, &issued("eA=="), "approval", &[("FieldValueForbidden", CERTIFICATE)]);
        check(&issued("eA=="), &issued("eQ=="), "status", &[("FieldValueForbidden", CERTIFICATE)]);
        let mut changed = approved.clone();
        changed["reason"] = "Another".into();
        check(&yes, &with(&[&changed]), "approval", &[]);
        check(&yes, &with(&[&changed]), "status", &[("FieldValueForbidden", CONDITIONS)]);
    }
}
