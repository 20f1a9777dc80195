//! Cases of warnings: an object, the fields that are told.

use serde_json::json;

use super::*;
use crate::catalogue::builtin;
use crate::{defaulting, structural};

fn made(group: &str, plural: &str, mut object: Value) -> Value {
    let resource = builtin().resource(group, "v1", plural).unwrap();
    structural::prune(&resource.schema, &mut object).unwrap();
    defaulting::apply(resource, &mut object);
    object
}

fn fields(texts: &[String]) -> Vec<&str> {
    texts.iter().map(|text| text.split(": ").next().unwrap()).collect()
}

fn check(group: &str, plural: &str, object: Value, expected: &[&str]) {
    let resource = builtin().resource(group, "v1", plural).unwrap();
    let texts = create(resource, &made(group, plural, object));
    assert_eq!(fields(&texts), expected, "{texts:?}");
}

fn pod(spec: Value) -> Value {
    let mut spec = spec;
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "a", "image": "i"}]);
    }
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn pods_tell_what_is_old() {
    check("", "pods", pod(json!({})), &[]);
    check("", "pods", json!({"metadata": {"name": "a.b"}, "spec": {"containers": []}}), &["metadata.name"]);
    check("", "pods", pod(json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}})), &["spec.nodeSelector[beta.kubernetes.io/os]"]);
    check("", "pods", pod(json!({"volumes": [{"name": "g", "gitRepo": {"repository": "x"}}]})), &["spec.volumes[0].gitRepo"]);
    let annotated = json!({"metadata": {"name": "p", "annotations": {"container.seccomp.security.alpha.kubernetes.io/a": "x"}},
        "spec": {"containers": [{"name": "a", "image": "i"}]}});
    check("", "pods", annotated, &["metadata.annotations[container.seccomp.security.alpha.kubernetes.io/a]"]);
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "failure-domain.beta.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule"}]});
    check("", "pods", pod(spread), &["spec.topologySpreadConstraints[0].topologyKey", "spec.topologySpreadConstraints[0].labelSelector"]);
}

#[test]
fn pods_tell_what_is_doubled() {
    let env = |second: Value| pod(json!({"containers": [{"name": "a", "image": "i", "env": [{"name": "X", "value": "1"}, second]}]}));
    check("", "pods", env(json!({"name": "X", "value": "2"})), &["spec.containers[0].env[1]"]);
    check("", "pods", env(json!({"name": "X", "value": "$(X)2"})), &[]);
    check("", "pods", env(json!({"name": "X", "value": "$(X)"})), &["spec.containers[0].env[1]"]);
    let ports = |ports: Value| pod(json!({"containers": [{"name": "a", "image": "i", "ports": ports}]}));
    check("", "pods", ports(json!([{"containerPort": 80}, {"containerPort": 80}])), &["spec.containers[0].ports[1]"]);
    check("", "pods", ports(json!([{"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}])), &[]);
    check("", "pods", ports(json!([{"containerPort": 80, "hostIP": "10.0.0.1"}])), &["spec.containers[0].ports[0]"]);
    check("", "pods", pod(json!({"imagePullSecrets": [{"name": "s"}, {"name": "s"}]})), &["spec.imagePullSecrets[1].name"]);
    let limits = json!({"containers": [{"name": "a", "image": "i", "resources": {"limits": {"memory": "100m"}}}]});
    check("", "pods", pod(limits), &["spec.containers[0].resources.limits[memory]", "spec.containers[0].resources.requests[memory]"]);
}

#[test]
fn volumes_tell_of_files_in_each_others_way() {
    let items = |paths: &[&str]| -> Value { paths.iter().map(|path| json!({"key": "k", "path": path})).collect() };
    let config = |paths: &[&str]| pod(json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": items(paths)}}]}));
    check("", "pods", config(&["a", "b/c", "b/d"]), &[]);
    check("", "pods", config(&["a", "ab", "a/"]), &["spec.volumes[0]"]);
    check("", "pods", config(&["a/b", "a"]), &["spec.volumes[0]"]);
    let sources = json!([{"serviceAccountToken": {"path": "t"}}, {"secret": {"name": "s", "items": items(&["u"])}}, {}]);
    check("", "pods", pod(json!({"volumes": [{"name": "v", "projected": {"sources": sources}}]})), &["spec.volumes[0].projected"]);
}

#[test]
fn other_kinds_tell_what_they_ignore() {
    let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    check("", "services", service(json!({"externalIPs": ["10.0.0.1"]})), &["spec.externalIPs"]);
    check(
        "",
        "services",
        service(json!({"type": "ExternalName", "externalName": "a.b", "externalIPs": ["10.0.0.1"]})),
        &["spec.externalIPs"],
    );
    check("", "services", service(json!({"type": "LoadBalancer", "loadBalancerIP": "010.0.0.1"})), &["spec.loadBalancerIP"]);
    check("", "services", service(json!({"loadBalancerSourceRanges": ["10.0.0.1/8"]})), &["spec.loadBalancerSourceRanges[0]"]);
    let driver = json!({"metadata": {"name": "d"}, "spec": {"tokenRequests": [{"audience": "a"}]}});
    check("storage.k8s.io", "csidrivers", driver, &["spec.serviceAccountTokenInSecrets"]);
    let claim = json!({"metadata": {"name": "c"}, "spec": {"resources": {"requests": {"storage": "1500m"}}}});
    check("", "persistentvolumeclaims", claim, &["spec.resources.requests[storage]"]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {"image": "i"}}});
    check("", "persistentvolumes", volume, &["spec.persistentVolumeReclaimPolicy", "spec.rbd"]);
}

#[test]
fn a_template_is_told_when_it_changes() {
    let resource = builtin().resource("apps", "v1", "deployments").unwrap();
    let deployment = |generation: i64| {
        let spec = json!({"containers": [{"name": "a", "image": "i"}], "nodeSelector": {"beta.kubernetes.io/os": "linux"}});
        made("apps", "deployments", json!({"metadata": {"name": "d", "generation": generation}, "spec": {"template": {"spec": spec}}}))
    };
    let place = "spec.template.spec.nodeSelector[beta.kubernetes.io/os]";
    assert_eq!(fields(&create(resource, &deployment(1))), [place]);
    assert_eq!(fields(&update(resource, &deployment(2), &deployment(1), "")), [place]);
    assert_eq!(update(resource, &deployment(2), &deployment(2), ""), Vec::<String>::new());
    assert_eq!(update(resource, &deployment(2), &deployment(1), "status"), Vec::<String>::new());
}

#[test]
fn kinds_that_go_say_so() {
    let told = |plural: &str| deprecation(builtin().resource("", "v1", plural).unwrap()).is_some();
    assert!(told("endpoints") && !told("pods"));
}
