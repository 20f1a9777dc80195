//! Cases of LimitRanges: what is filled in, what is refused.

use serde_json::json;

use super::*;

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
}

#[test]
fn containers_get_what_they_do_not_say() {
    let range = json!({"spec": {"limits": [{"type": "Container", "default": {"cpu": "500m", "memory": "64Mi"}, "defaultRequest": {"cpu": "100m"}},
        {"type": "Pod", "default": {"cpu": "9"}}]}});
    let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "a"}, container(json!({"cpu": "1"}), json!({"cpu": "2"}))],
        "initContainers": [{"name": "i"}]}});
    defaults::apply(&range, &mut pod);
    let full = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "64Mi"}});
    assert_eq!(pod["spec"]["containers"][0]["resources"], full);
    assert_eq!(pod["spec"]["initContainers"][0]["resources"], full);
    let partly = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "64Mi"}});
    assert_eq!(pod["spec"]["containers"][1]["resources"], partly);
    let text = pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"].as_str().unwrap();
    assert_eq!(
        text,
        "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; memory limit for container c; \
         cpu request for init container i; cpu, memory limit for init container i"
    );
    let before = pod.clone();
    defaults::apply(&json!({"spec": {"limits": []}}), &mut pod);
    assert_eq!(pod, before);
}

#[test]
fn bounds_hold_for_containers_pods_and_claims() {
    let check = |limit: Value, resource: &str, spec: Value, count: usize| {
        let found = violations(&limit, resource, &json!({"spec": spec}));
        assert_eq!(found.len(), count, "{limit} {spec} {found:?}");
    };
    let pod = |containers: Value| json!({"containers": containers});
    let bound = |field: &str, name: &str, value: &str| json!({"type": "Container", field: {name: value}});
    let one = |requests: Value, limits: Value| pod(json!([container(requests, limits)]));
    check(bound("min", "cpu", "50m"), "pods", one(json!({"cpu": "10m"}), json!({})), 1);
    check(bound("min", "cpu", "50m"), "pods", one(json!({}), json!({})), 1);
    check(bound("min", "cpu", "50m"), "pods", one(json!({"cpu": "50m"}), json!({})), 0);
    check(bound("max", "cpu", "1"), "pods", one(json!({}), json!({"cpu": "2"})), 1);
    check(bound("max", "cpu", "1"), "pods", one(json!({}), json!({})), 1);
    check(bound("max", "cpu", "1"), "pods", one(json!({}), json!({"cpu": "1000m"})), 0);
    check(bound("maxLimitRequestRatio", "cpu", "2"), "pods", one(json!({"cpu": "100m"}), json!({"cpu": "1"})), 1);
    check(bound("maxLimitRequestRatio", "cpu", "2"), "pods", one(json!({"cpu": "500m"}), json!({"cpu": "1"})), 0);
    check(bound("maxLimitRequestRatio", "cpu", "2"), "pods", one(json!({}), json!({"cpu": "1"})), 1);
    let two = pod(json!([container(json!({}), json!({"memory": "600Mi"})), container(json!({}), json!({"memory": "600Mi"}))]));
    check(json!({"type": "Pod", "max": {"memory": "1Gi"}}), "pods", two.clone(), 1);
    check(bound("max", "memory", "1Gi"), "pods", two, 0);
    let claim = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}});
    check(limit.clone(), "persistentvolumeclaims", claim("5Gi"), 1);
    check(limit.clone(), "persistentvolumeclaims", claim("1Gi"), 0);
    check(limit, "pods", claim("5Gi"), 0);
}

#[test]
fn a_pod_asks_for_its_largest_moment() {
    let cpu = |amount: &str| json!({"resources": {"requests": {"cpu": amount}}});
    let mut sidecar = cpu("1");
    sidecar["restartPolicy"] = "Always".into();
    let spec = json!({"containers": [cpu("1"), cpu("500m")], "initContainers": [sidecar, cpu("4")], "overhead": {"cpu": "100m"}});
    assert_eq!(of_pod(&spec).request("cpu").unwrap().millis(), 5100);
    let spec = json!({"containers": [cpu("1")], "resources": {"requests": {"cpu": "3"}}});
    assert_eq!(of_pod(&spec).request("cpu").unwrap().millis(), 3000);
    assert_eq!(of_pod(&json!({"containers": [cpu("1")], "overhead": {"cpu": "1"}})).limit("cpu"), None);
}
