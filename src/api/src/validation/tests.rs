//! Cases of validation: an object, its causes.

use serde_json::json;

use super::*;
use crate::catalogue::builtin;
use crate::{defaulting, structural};

fn causes(group: &str, version: &str, plural: &str, mut object: Value) -> Vec<(&'static str, String)> {
    let resource = builtin().resource(group, version, plural).unwrap();
    structural::prune(&resource.schema, &mut object).unwrap();
    defaulting::apply(resource, &mut object);
    create(resource, &object).into_iter().map(|c| (c.reason, c.field)).collect()
}

fn check(group: &str, plural: &str, object: Value, expected: &[(&'static str, &str)]) {
    let expected: Vec<(&str, String)> = expected.iter().map(|(reason, field)| (*reason, (*field).to_owned())).collect();
    assert_eq!(causes(group, "v1", plural, object), expected);
}

#[test]
fn metadata_of_every_kind() {
    let map = |metadata: Value| json!({"metadata": metadata});
    check("", "configmaps", map(json!({})), &[("FieldValueRequired", "metadata.name")]);
    check("", "configmaps", map(json!({"generateName": "a-"})), &[]);
    check("", "configmaps", map(json!({"name": "Not Valid!"})), &[("FieldValueInvalid", "metadata.name")]);
    check("", "configmaps", map(json!({"name": "a", "labels": {"-x": "y"}})), &[("FieldValueInvalid", "metadata.labels")]);
    check("", "configmaps", map(json!({"name": "a", "finalizers": ["mine"]})), &[("FieldValueInvalid", "metadata.finalizers[0]")]);
    check("", "nodes", map(json!({"name": "a", "namespace": "b"})), &[("FieldValueForbidden", "metadata.namespace")]);
}

#[test]
fn pods_name_each_wrong_field() {
    let pod = |container: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
    check("", "pods", json!({"metadata": {"name": "p"}}), &[("FieldValueRequired", "spec.containers")]);
    check("", "pods", pod(json!({"name": "a", "image": "i"})), &[]);
    check(
        "",
        "pods",
        pod(json!({"name": "a", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/a"}], "ports": [{"containerPort": 70_000}]})),
        &[
            ("FieldValueInvalid", "spec.containers[0].ports[0].containerPort"),
            ("FieldValueNotFound", "spec.containers[0].volumeMounts[0].name"),
        ],
    );
    check(
        "",
        "pods",
        pod(json!({"name": "a", "image": "i", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
        &[("FieldValueInvalid", "spec.containers[0].resources.requests")],
    );
}

#[test]
fn rules_of_restarts_have_bounds() {
    let rule = |codes: usize| json!({"action": "Restart", "exitCodes": {"operator": "In", "values": (0..codes).collect::<Vec<_>>()}});
    let pod = |policy: Value, rules: Vec<Value>| {
        let container = json!({"name": "a", "image": "i", "restartPolicy": policy, "restartPolicyRules": rules});
        json!({"metadata": {"name": "p"}, "spec": {"restartPolicy": "Always", "containers": [container]}})
    };
    check("", "pods", pod(json!("Never"), vec![rule(255); 20]), &[]);
    check("", "pods", pod(json!("Never"), vec![rule(1); 21]), &[("FieldValueTooMany", "spec.containers[0].restartPolicyRules")]);
    check(
        "",
        "pods",
        pod(json!("Never"), vec![rule(256)]),
        &[("FieldValueTooMany", "spec.containers[0].restartPolicyRules[0].exitCodes.values")],
    );
    check("", "pods", pod(Value::Null, vec![rule(1)]), &[("FieldValueRequired", "spec.containers[0].restartPolicy")]);
}

#[test]
fn workloads_select_what_they_make() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    let deployment = |selector: Value| json!({"metadata": {"name": "d"}, "spec": {"selector": selector, "template": template}});
    check("apps", "deployments", deployment(json!({"matchLabels": {"a": "b"}})), &[]);
    check("apps", "deployments", deployment(json!({"matchLabels": {"a": "c"}})), &[("FieldValueInvalid", "spec.template.metadata.labels")]);
    let job =
        json!({"metadata": {"name": "j"}, "spec": {"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    check("batch", "jobs", job, &[("FieldValueRequired", "spec.template.spec.restartPolicy")]);
}

#[test]
fn a_pod_changes_its_image_and_little_else() {
    let resource = builtin().resource("", "v1", "pods").unwrap();
    let make = |image: &str, node: &str| {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [{"name": "a", "image": image}]}});
        structural::prune(&resource.schema, &mut pod).unwrap();
        defaulting::apply(resource, &mut pod);
        pod
    };
    assert_eq!(update(resource, &make("i:2", "n"), &make("i:1", "n"), ""), []);
    let causes = update(resource, &make("i:1", "m"), &make("i:1", "n"), "");
    assert_eq!(causes.iter().map(|c| (c.reason, c.field.as_str())).collect::<Vec<_>>(), [("FieldValueForbidden", "spec")]);
}

#[test]
fn a_pod_is_resized_as_a_whole_within_bounds() {
    let pods = builtin().resource("", "v1", "pods").unwrap();
    let pod = |own: Value| {
        let containers = json!([{"name": "a", "image": "i", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}]);
        let mut pod = json!({"metadata": {"name": "p", "resourceVersion": "1"}, "spec": {"containers": containers, "resources": own}});
        structural::prune(&pods.schema, &mut pod).unwrap();
        defaulting::apply(pods, &mut pod);
        pod
    };
    let of = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
    let resize = |old: &Value, own: Value| -> Vec<(&str, String)> {
        update(pods, &pod(own), old, "resize").into_iter().map(|c| (c.reason, c.field)).collect()
    };
    let old = pod(of("200m", "1"));
    let check = |own: Value, expected: &[(&'static str, &str)]| {
        let expected: Vec<(&str, String)> = expected.iter().map(|(reason, field)| (*reason, (*field).to_owned())).collect();
        assert_eq!(resize(&old, own.clone()), expected, "{own}");
    };
    check(of("300m", "2"), &[]);
    let more = json!({"requests": {"cpu": "300m", "memory": "1Mi"}, "limits": {"cpu": "2"}});
    check(more, &[]);
    check(of("50m", "1"), &[("FieldValueInvalid", "spec.resources.requests[cpu]")]);
    check(of("150m", "150m"), &[("FieldValueInvalid", "spec.containers[0].resources.limits[cpu]")]);
    check(json!({"requests": {"cpu": "200m"}}), &[("FieldValueForbidden", "spec.resources.limits")]);
    let pages = json!({"requests": {"cpu": "200m", "hugepages-2Mi": "2Mi"}, "limits": {"cpu": "1", "hugepages-2Mi": "2Mi"}});
    check(pages, &[("FieldValueForbidden", "spec")]);
    assert_eq!(resize(&pod(json!(null)), of("200m", "1")), [], "a pod may get resources of its own");
    let guaranteed = json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    check(guaranteed, &[("FieldValueInvalid", "spec")]);
}

#[test]
fn bootstrap_objects_are_valid() {
    for mut object in crate::catalogue::bootstrap::objects() {
        let (group, version) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
        let resource = builtin().kind(group, version, object["kind"].as_str().unwrap()).unwrap().clone();
        let before = object.clone();
        assert_eq!(structural::prune(&resource.schema, &mut object).unwrap(), Vec::<String>::new());
        defaulting::apply(&resource, &mut object);
        assert_eq!(create(&resource, &object), [], "{before}");
    }
}

#[test]
fn a_job_is_found_by_what_the_server_gave_it() {
    let labels =
        json!({"controller-uid": "u", "job-name": "j", "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "j"});
    let job = |selector: Value, labels: Value| {
        json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"selector": selector, "template": {"metadata": {"labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}}}})
    };
    let own = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}});
    check("batch", "jobs", job(own.clone(), labels.clone()), &[]);
    let mut other = labels.clone();
    other["job-name"] = "k".into();
    check("batch", "jobs", job(own, other), &[("FieldValueInvalid", "spec.template.metadata.labels[job-name]")]);
    let invalid = [("FieldValueInvalid", "spec.selector"), ("FieldValueInvalid", "spec.template.metadata.labels")];
    check("batch", "jobs", job(json!({"matchLabels": {"a": "b"}}), labels.clone()), &invalid);
    check("batch", "jobs", job(Value::Null, labels), &[("FieldValueRequired", "spec.selector"), invalid[1]]);
}

#[test]
fn ranges_of_services_stay_but_may_get_a_partner() {
    let resource = builtin().resource("networking.k8s.io", "v1", "servicecidrs").unwrap();
    let cidrs = |list: &[&str]| json!({"metadata": {"name": "k"}, "spec": {"cidrs": list}});
    let fields = |new: &[&str], old: &[&str]| -> Vec<String> {
        update(resource, &cidrs(new), &cidrs(old), "").into_iter().map(|cause| cause.field).collect()
    };
    assert_eq!(fields(&["10.0.0.0/24"], &["10.1.0.0/24"]), ["spec.cidrs[0]"]);
    assert_eq!(fields(&["10.0.0.0/24", "fd00::/64"], &["10.0.0.0/24"]), [""; 0]);
    assert_eq!(fields(&["10.0.0.0/24"], &["10.0.0.0/24", "fd00::/64"]), ["spec.cidrs"]);
}

#[test]
fn an_expression_about_a_device_is_read_when_it_comes() {
    let class = |expression: &str| json!({"metadata": {"name": "c"}, "spec": {"selectors": [{"cel": {"expression": expression}}]}});
    let wrong = [("FieldValueInvalid", "spec.selectors[0].cel.expression")];
    for expression in
        ["device.driver == 'a.b'", "device.attributes['a.b'].model == 'x' && device.capacity['a.b'].memory.isGreaterThan(quantity('1Gi'))"]
    {
        check("resource.k8s.io", "deviceclasses", class(expression), &[]);
    }
    for expression in ["-", "xx", "device.driver", "device.nothing == 1"] {
        check("resource.k8s.io", "deviceclasses", class(expression), &wrong);
    }
}
