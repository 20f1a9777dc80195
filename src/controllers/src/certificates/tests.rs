//! From request to certificate, step by step.

use std::time::Duration;

use k8s_openapi::ByteString;
use serde_json::Value;

use super::*;
use crate::config::SIGNING_DURATION;
use coracle_pki::{authority::Signatory, rotation};

/// Made by `openssl req -new` for `O=system:nodes, CN=system:node:n` with a P-256 key; further names where the file says so.
const NODE: &str = include_str!("node.csr");
const SERVING: &str = include_str!("serving.csr");
const ALICE: &str = include_str!("alice.csr");

fn request(pem: &str, signer: &str, usages: &[&str], more: Value) -> CertificateSigningRequest {
    let mut object = json!({
        "metadata": {"name": "r", "uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"request": document(&ByteString(pem.as_bytes().to_vec())), "signerName": signer, "usages": usages},
    });
    crate::merge::apply(&mut object, &more);
    serde_json::from_value(object).expect("a request")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

const CLIENT: [&str; 2] = ["digital signature", "client auth"];
const SERVER: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

#[test]
fn only_a_nodes_own_request_is_recognised() {
    let both = [Permission::SelfNodeClient, Permission::NodeClient];
    let node = "kubernetes.io/kube-apiserver-client-kubelet";
    for (pem, signer, usages, user, expected) in [
        (NODE, node, &CLIENT[..], "system:node:n", &both[..]),
        (NODE, node, &["digital signature", "key encipherment", "client auth"], "system:bootstrap:abcdef", &both[1..]),
        (NODE, node, &["digital signature", "client auth", "server auth"], "system:node:n", &[]),
        (NODE, "kubernetes.io/kube-apiserver-client", &CLIENT, "system:node:n", &[]),
        (SERVING, node, &CLIENT, "system:node:n", &[]),
        (ALICE, node, &CLIENT, "alice", &[]),
        ("no request", node, &CLIENT, "alice", &[]),
    ] {
        let request = request(pem, signer, usages, json!({"spec": {"username": user}}));
        assert_eq!(approve::recognised(&request), expected, "{signer} {usages:?} {user}");
    }
}

fn why(pem: &str, signer: &str, usages: &[&str]) -> String {
    match sign::verdict(&request(pem, signer, usages, json!({})), SIGNING_DURATION) {
        Verdict::Others => "others".into(),
        Verdict::Failed(why) => why,
        Verdict::Sign { by: Signatory::Client, .. } => "client".into(),
        Verdict::Sign { by: Signatory::Server, .. } => "server".into(),
    }
}

#[test]
fn each_signer_has_its_rules() {
    for (pem, signer, usages, expected) in [
        (ALICE, "kubernetes.io/kube-apiserver-client", &CLIENT[..], "client"),
        (
            ALICE,
            "kubernetes.io/kube-apiserver-client",
            &["digital signature"],
            "missing required usage for client certificate: client auth",
        ),
        (
            ALICE,
            "kubernetes.io/kube-apiserver-client",
            &["client auth", "server auth"],
            "invalid usage for client certificate: server auth",
        ),
        (NODE, "kubernetes.io/kube-apiserver-client-kubelet", &CLIENT, "client"),
        (SERVING, "kubernetes.io/kube-apiserver-client-kubelet", &CLIENT, "DNS subjectAltNames are not allowed"),
        (ALICE, "kubernetes.io/kube-apiserver-client-kubelet", &CLIENT, "subject organization is not system:nodes"),
        (SERVING, "kubernetes.io/kubelet-serving", &SERVER, "server"),
        (NODE, "kubernetes.io/kubelet-serving", &SERVER, "DNS or IP subjectAltName is required"),
        (NODE, "kubernetes.io/legacy-unknown", &["any"], "server"),
        ("", "kubernetes.io/legacy-unknown", &["any"], "the request cannot be used: PEM block type must be CERTIFICATE REQUEST"),
        (ALICE, "example.com/mine", &CLIENT, "others"),
    ] {
        assert_eq!(why(pem, signer, usages), expected, "{signer} {usages:?}");
    }
    assert!(why(SERVING, "kubernetes.io/kubelet-serving", &["server auth"]).starts_with("usages did not match"));
}

#[test]
fn a_life_is_as_long_as_asked_within_its_bounds() {
    for (asked, longest, expected) in [
        (None, 31_536_000, 31_536_000),
        (Some(3600), 31_536_000, 3600),
        (Some(1), 31_536_000, 600),
        (Some(i32::MAX), 31_536_000, 31_536_000),
        (Some(-5), 31_536_000, 600),
        (None, 20, 20),
        (Some(3600), 20, 20),
        (Some(1), 20, 20),
    ] {
        let more = json!({"spec": {"expirationSeconds": asked}});
        let asks = request(ALICE, "kubernetes.io/kube-apiserver-client", &CLIENT, more);
        let Verdict::Sign { life, .. } = sign::verdict(&asks, Duration::from_secs(longest)) else { panic!("it is signed") };
        assert_eq!(life, Duration::from_secs(expected), "{asked:?}");
    }
}

#[test]
fn a_request_goes_when_its_time_is_over() {
    let with = |status: Value| request(ALICE, "kubernetes.io/kube-apiserver-client", &CLIENT, json!({"status": status}));
    let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": "2026-01-01T10:00:00Z"}]});
    let mut issued = condition("Approved");
    issued["certificate"] = "eA==".into();
    for (status, expected) in [
        (json!({}), Some("2026-01-02T00:00:00Z")),
        (condition("Denied"), Some("2026-01-01T11:00:00Z")),
        (condition("Failed"), Some("2026-01-01T11:00:00Z")),
        (condition("Approved"), Some("2026-01-02T10:00:00Z")),
        (issued, Some("2026-01-01T11:00:00Z")),
        (json!({"conditions": [{"type": "Odd", "status": "True"}]}), None),
    ] {
        assert_eq!(clean::due(&with(status.clone())), expected.map(at), "{status}");
    }
}

#[test]
fn verdicts_are_written_by_their_subresources() {
    let pending = request(ALICE, "a.test/b", &CLIENT, json!({}));
    assert_eq!(step(&pending), Step::Judge);
    let plan = with_condition(&pending, "approval", ("Approved", "AutoApproved", "because"), at("2026-01-01T00:00:00Z"));
    let patch = &plan.patches[0];
    assert_eq!((patch.subresource, &patch.body["status"]["conditions"][0]["type"]), (Some("approval"), &json!("Approved")));
    let condition = |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True"}]}});
    for (kind, expected) in [("Approved", Step::Sign), ("Denied", Step::Nothing), ("Failed", Step::Nothing)] {
        assert_eq!(step(&request(ALICE, "a.test/b", &CLIENT, condition(kind))), expected);
    }
    let mut done = condition("Approved");
    done["status"]["certificate"] = "eA==".into();
    assert_eq!(step(&request(ALICE, "a.test/b", &CLIENT, done)), Step::Nothing);
}

#[test]
fn who_was_not_allowed_is_asked_again_ever_later() {
    let pending = request(NODE, "a.test/b", &CLIENT, json!({}));
    for (now, expected) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:16:40Z"),
    ] {
        assert_eq!(again(&pending, at(now)), at(expected));
    }
}

#[test]
fn only_the_node_beside_has_its_serving_certificate_approved() {
    let node = OwnNode { name: "n".into(), ips: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()] };
    let check = |cn: &str, user: &str, names: &[&str], ips: &[[u8; 4]], signer: &str| {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let ips: Vec<std::net::IpAddr> = ips.iter().map(|ip| (*ip).into()).collect();
        let (pem, _) = rotation::request(cn, "system:nodes", &names, &ips).expect("a request");
        approve::is_own_serving(&request(&pem, signer, &SERVER, json!({"spec": {"username": user}})), &node)
    };
    let (own, serving, ip) = ("system:node:n", "kubernetes.io/kubelet-serving", [10, 0, 0, 1]);
    assert!(check(own, own, &["n"], &[ip], serving));
    assert!(check(own, own, &[], &[ip, [10, 0, 0, 2]], serving));
    for (cn, user, names, ips, signer) in [
        (own, "system:node:m", &["n"][..], &[ip][..], serving),
        ("system:node:m", own, &["n"], &[ip], serving),
        (own, own, &["n", "kubernetes"], &[ip], serving),
        (own, own, &["n"], &[ip, [10, 0, 0, 3]], serving),
        (own, own, &[], &[], serving),
        (own, own, &["n"], &[ip], "kubernetes.io/legacy-unknown"),
    ] {
        assert!(!check(cn, user, names, ips, signer), "{cn} {user} {names:?} {ips:?} {signer}");
    }
}
