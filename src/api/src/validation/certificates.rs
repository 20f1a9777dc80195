//! Certificate signing requests: what is asked for, and how far it has come. Keys and signatures are the API server's to check.

use serde_json::Value;

use super::field::Field;
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
    usages.each(|i, usage| {
        usage.one_of(&USAGES);
        if list[..i].contains(usage.value()) {
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
    let had_twice = before.iter().enumerate().any(|(i, c)| before[..i].iter().any(|other| other["type"] == c["type"]));
    let all = conditions.list();
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
        let has = |kind: &str| of_type(&all[..=i], kind).len();
        if !told && has("Approved") > 0 && has("Denied") > 0 {
            told = true;
            conditions.invalid("Approved and Denied conditions are mutually exclusive");
        }
        if !had_twice && all[..i].iter().any(|other| other["type"] == condition.value()["type"]) {
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
