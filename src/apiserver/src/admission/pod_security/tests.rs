//! Cases of the standards: a pod, the reasons why a level does not take it.

use serde_json::json;

use super::*;

fn policy(labels: Value) -> Policy {
    let (policy, errors) = Policy::read(&labels, Policy::default());
    assert_eq!(errors, [], "{labels}");
    policy
}

fn check(level: &str, spec: Value, expected: &[&str]) {
    let standard = policy(json!({"pod-security.kubernetes.io/enforce": level})).enforce;
    at(standard, spec, expected);
}

fn at(standard: Standard, mut spec: Value, expected: &[&str]) {
    if spec["containers"].is_null() {
        spec["containers"] = json!([container(json!({}))]);
    }
    let pod = json!({"spec": spec});
    let found = violations(standard, &Pod::of(&pod));
    assert_eq!(found.iter().map(|v| v.reason).collect::<Vec<_>>(), expected, "{standard} {pod} {found:?}");
}

/// A container as restricted wants it, with these differences in its securityContext.
fn container(context: Value) -> Value {
    let mut own = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}});
    coracle_api::patch::merge(&mut own, &context).unwrap();
    json!({"name": "c", "securityContext": own})
}

fn with(context: Value) -> Value {
    json!({"containers": [container(context)]})
}

#[test]
fn baseline_closes_the_ways_to_the_host() {
    for (spec, reason) in [
        (json!({"hostNetwork": true}), "host namespaces"),
        (with(json!({"privileged": true})), "privileged"),
        (with(json!({"capabilities": {"add": ["SYS_ADMIN", "KILL"]}})), "non-default capabilities"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "hostPath volumes"),
        (json!({"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}), "hostPort"),
        (json!({"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "10.0.0.1"}}}]}), "probe or lifecycle host"),
        (with(json!({"appArmorProfile": {"type": "Unconfined"}})), "forbidden AppArmor profile"),
        (with(json!({"seLinuxOptions": {"user": "root"}})), "seLinuxOptions"),
        (with(json!({"procMount": "Unmasked"})), "procMount"),
        (with(json!({"seccompProfile": {"type": "Unconfined"}})), "seccompProfile"),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.shmmax"}]}}), "forbidden sysctls"),
        (json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}), "hostProcess"),
        (json!({"initContainers": [container(json!({"privileged": true}))]}), "privileged"),
    ] {
        check("privileged", spec.clone(), &[]);
        check("baseline", spec, &[reason]);
    }
    check("baseline", json!({"containers": [{"name": "c"}]}), &[]);
    check("baseline", json!({"hostUsers": false, "containers": [container(json!({"procMount": "Unmasked"}))]}), &[]);
}

#[test]
fn restricted_asks_for_good_practice() {
    check("restricted", json!({}), &[]);
    let all = ["allowPrivilegeEscalation != false", "unrestricted capabilities", "runAsNonRoot != true", "seccompProfile"];
    check("restricted", json!({"containers": [{"name": "c"}]}), &all);
    for (spec, reason) in [
        (with(json!({"allowPrivilegeEscalation": null})), "allowPrivilegeEscalation != false"),
        (with(json!({"capabilities": {"add": ["KILL"]}})), "unrestricted capabilities"),
        (with(json!({"runAsNonRoot": false})), "runAsNonRoot != true"),
        (with(json!({"runAsUser": 0})), "runAsUser=0"),
        (with(json!({"seccompProfile": {"type": "Unconfined"}})), "seccompProfile"),
        (json!({"volumes": [{"name": "v", "nfs": {"server": "s"}}]}), "restricted volume types"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}), "restricted volume types"),
        (json!({"hostPID": true}), "host namespaces"),
    ] {
        check("restricted", spec, &[reason]);
    }
    let of_pod = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "Localhost"}},
        "containers": [container(json!({"runAsNonRoot": null, "seccompProfile": null}))]});
    check("restricted", of_pod, &[]);
    check("restricted", json!({"hostUsers": false, "containers": [container(json!({"runAsUser": 0, "runAsNonRoot": null}))]}), &[]);
}

#[test]
fn rules_come_with_releases() {
    let at_version = |version: &str| {
        policy(json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": version})).enforce
    };
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    at(at_version("v1.31"), sysctl.clone(), &["forbidden sysctls"]);
    at(at_version("v1.32"), sysctl.clone(), &[]);
    at(at_version("latest"), sysctl, &[]);
    let probe = json!({"containers": [{"name": "c", "readinessProbe": {"tcpSocket": {"host": "a"}}}]});
    at(at_version("v1.33"), probe, &[]);
}

#[test]
fn labels_say_what_holds() {
    assert!(policy(json!(null)).is_open());
    let held = policy(json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"}));
    assert_eq!((held.enforce.to_string(), held.warn.to_string()), ("baseline:v1.30".into(), "baseline:v1.30".into()));
    let told = policy(json!({"pod-security.kubernetes.io/warn": "restricted"}));
    assert_eq!((told.enforce.level, told.warn.level), (Level::Privileged, Level::Restricted));
    for (labels, field) in [
        (json!({"pod-security.kubernetes.io/enforce": "strict"}), "metadata.labels[pod-security.kubernetes.io/enforce]"),
        (json!({"pod-security.kubernetes.io/audit": ""}), "metadata.labels[pod-security.kubernetes.io/audit]"),
        (json!({"pod-security.kubernetes.io/warn-version": "1.30"}), "metadata.labels[pod-security.kubernetes.io/warn-version]"),
        (json!({"pod-security.kubernetes.io/warn-version": "v1.030"}), "metadata.labels[pod-security.kubernetes.io/warn-version]"),
    ] {
        let (policy, errors) = Policy::read(&labels, Policy::default());
        assert_eq!(errors.iter().map(|(field, _, _)| field.as_str()).collect::<Vec<_>>(), [field]);
        assert_eq!(policy.warn.level, Level::Privileged);
    }
}

#[test]
fn pods_that_are_there_are_told_by_reason() {
    let pod = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let bad = || with(json!({"privileged": true}));
    let standard = policy(json!({"pod-security.kubernetes.io/enforce": "baseline"})).enforce;
    let told = existing("n", standard, &[pod("b", bad()), pod("a", bad()), pod("c", with(json!({})))]);
    assert_eq!(told.len(), 2);
    assert_eq!(told[1], "a (and 1 other pod): privileged");
    assert_eq!(existing("n", standard, &[pod("c", with(json!({})))]), Vec::<String>::new());
}
