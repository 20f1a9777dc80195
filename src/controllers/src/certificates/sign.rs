//! What the built-in signers sign, by which authority and for how long, and what they refuse.

use std::{collections::BTreeSet, time::Duration};

use coracle_pki::{authority::Signatory, request::SigningRequest};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// Clients of the API server, people mostly.
const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Nodes as clients of the API server.
pub(super) const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Nodes as servers.
pub(super) const NODE_SERVING: &str = "kubernetes.io/kubelet-serving";
/// No promises of trust; v1 of the API takes no new ones, but old ones may be stored.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Shortest life that a request gets by asking for it.
const SHORTEST: Duration = Duration::from_secs(600);
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// What becomes of an approved request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is for a signer elsewhere.
    Others,
    /// It will never be signed.
    Failed(String),
    /// It is signed.
    Sign { by: Signatory, asked: Box<SigningRequest>, life: Duration },
}

/// `longest` is the life of what is signed, unless the request asks for less.
pub(super) fn verdict(request: &CertificateSigningRequest, longest: Duration) -> Verdict {
    let spec = &request.spec;
    let by = match spec.signer_name.as_str() {
        API_CLIENT | NODE_CLIENT => Signatory::Client,
        NODE_SERVING | LEGACY => Signatory::Server,
        _ => return Verdict::Others,
    };
    let asked = match SigningRequest::from_pem(&spec.request.0) {
        Ok(asked) => asked,
        Err(error) => return Verdict::Failed(format!("the request cannot be used: {error}")),
    };
    let usages = spec.usages.as_deref().unwrap_or_default();
    let checked = match spec.signer_name.as_str() {
        API_CLIENT => check_client(usages),
        NODE_CLIENT => check_node_client(&asked, usages),
        NODE_SERVING => check_node_serving(&asked, usages),
        _ => Ok(()),
    };
    match checked {
        Ok(()) => Verdict::Sign { by, asked: Box::new(asked), life: life(spec.expiration_seconds, longest) },
        Err(why) => Verdict::Failed(why),
    }
}

fn life(asked_s: Option<i32>, longest: Duration) -> Duration {
    asked_s.map_or(longest, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)).max(SHORTEST).min(longest))
}

fn check_client(usages: &[String]) -> Result<(), String> {
    if let Some(other) = usages.iter().find(|usage| !matches!(usage.as_str(), "digital signature" | "key encipherment" | "client auth")) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    match usages.iter().any(|usage| usage == "client auth") {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

/// A node's client certificate is for its name alone.
pub(super) fn check_node_client(asked: &SigningRequest, usages: &[String]) -> Result<(), String> {
    check_node(asked)?;
    for (names, what) in [
        (asked.dns_names.is_empty(), "DNS"),
        (asked.emails.is_empty(), "Email"),
        (asked.ips.is_empty(), "IP"),
        (asked.uris.is_empty(), "URI"),
    ] {
        if !names {
            return Err(format!("{what} subjectAltNames are not allowed"));
        }
    }
    check_usages(usages, "client auth")
}

pub(super) fn check_node_serving(asked: &SigningRequest, usages: &[String]) -> Result<(), String> {
    check_node(asked)?;
    if asked.dns_names.is_empty() && asked.ips.is_empty() {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if !asked.emails.is_empty() {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if !asked.uris.is_empty() {
        return Err("URI subjectAltNames are not allowed".into());
    }
    check_usages(usages, "server auth")
}

fn check_node(asked: &SigningRequest) -> Result<(), String> {
    if asked.organisations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    match asked.common_name.starts_with(NODE_PREFIX) {
        true => Ok(()),
        false => Err(format!("subject common name does not begin with {NODE_PREFIX}")),
    }
}

/// These and no others; a key that is not RSA enciphers nothing.
fn check_usages(usages: &[String], purpose: &str) -> Result<(), String> {
    let given: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let with = BTreeSet::from(["digital signature", "key encipherment", purpose]);
    let without = BTreeSet::from(["digital signature", purpose]);
    if given == with || given == without { Ok(()) } else { Err(format!("usages did not match {with:?}")) }
}
