//! What objects take, which scopes they are in, and what quotas say to them.

use serde_json::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn told(usage: &Map) -> String {
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
}

fn check(group: &str, resource: &str, object: Value, expected: &str) {
    let kind = Kind::of(group, resource).unwrap();
    let measure = kind.measure(&object, now());
    assert_eq!(told(&measure.usage), expected, "{object}");
    for name in measure.usage.keys() {
        assert!(kind.governs(name) || name.starts_with("requests.deviceclass"), "{resource} counts {name} and does not know it");
    }
}

#[test]
fn usage_by_kind() {
    check("", "configmaps", json!({}), "configmaps=1 count/configmaps=1");
    check("apps", "deployments", json!({}), "count/deployments.apps=1");
    check("example.com", "pods", json!({}), "count/pods.example.com=1");
    let size = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1Gi"}}}});
    check(
        "",
        "persistentvolumeclaims",
        size,
        "count/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 \
         gold.storageclass.storage.k8s.io/requests.storage=1Gi persistentvolumeclaims=1 requests.storage=1Gi",
    );
    let grown = json!({"spec": {"resources": {"requests": {"storage": "1500m"}}}, "status": {"allocatedResources": {"storage": "3"}}});
    check("", "persistentvolumeclaims", grown, "count/persistentvolumeclaims=1 persistentvolumeclaims=1 requests.storage=3");
    let balancer = json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}});
    check("", "services", balancer, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=2");
    let without = json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30000}, {}]}});
    check("", "services", without, "count/services=1 services=1 services.loadbalancers=1 services.nodeports=1");
    let devices = json!({"spec": {"devices": {"requests": [
        {"exactly": {"deviceClassName": "a", "count": 2}}, {"exactly": {"deviceClassName": "a", "allocationMode": "All"}},
        {"firstAvailable": [{"deviceClassName": "b", "count": 3}, {"deviceClassName": "b", "count": 1}]}]}}});
    let expected =
        "a.deviceclass.resource.k8s.io/devices=34 b.deviceclass.resource.k8s.io/devices=3 count/resourceclaims.resource.k8s.io=1";
    check("resource.k8s.io", "resourceclaims", devices, expected);
    assert_eq!(Kind::of("", "events"), None);
}

#[test]
fn a_pod_counts_as_long_as_it_can_run() {
    let pod = |status: Value, metadata: Value| {
        let resources = json!({"requests": {"cpu": "100m", "hugepages-2Mi": "2Mi", "nvidia.com/gpu": "1"}, "limits": {"memory": "1Gi"}});
        json!({"metadata": metadata, "spec": {"containers": [{"name": "c", "resources": resources}]}, "status": status})
    };
    let all = "count/pods=1 cpu=100m hugepages-2Mi=2Mi limits.memory=1Gi pods=1 requests.cpu=100m requests.hugepages-2Mi=2Mi requests.nvidia.com/gpu=1";
    check("", "pods", pod(json!({}), json!({})), all);
    check("", "pods", pod(json!({"phase": "Failed"}), json!({})), "count/pods=1");
    let leaving = |at: &str| json!({"deletionTimestamp": at, "deletionGracePeriodSeconds": 30});
    check("", "pods", pod(json!({}), leaving("2026-01-01T00:09:40Z")), all);
    check("", "pods", pod(json!({}), leaving("2026-01-01T00:09:00Z")), "count/pods=1");
    let growing = json!({"containerStatuses": [{"name": "c", "resources": {"requests": {"cpu": "300m"}}}]});
    assert!(told(&Kind::of("", "pods").unwrap().measure(&pod(growing, json!({})), now()).usage).contains("requests.cpu=300m"));
}

#[test]
fn a_pod_with_resources_of_its_own_counts_with_what_it_still_has() {
    let pod = |pending: &str| {
        let spec = json!({"containers": [{"name": "c"}], "overhead": {"cpu": "10m"}, "resources": {"requests": {"cpu": "100m"}}});
        let condition = json!([{"type": "PodResizePending", "status": "True", "reason": pending}]);
        let has = json!({"requests": {"cpu": "310m"}});
        json!({"spec": spec, "status": {"resources": has, "allocatedResources": {"cpu": "60m"}, "conditions": condition}})
    };
    let cpu = |pod: &Value| Kind::of("", "pods").unwrap().measure(pod, now()).usage["requests.cpu"].to_string();
    assert_eq!(cpu(&pod("Deferred")), "310m", "until it has shrunk");
    let mut grows = pod("Deferred");
    grows["status"]["resources"]["requests"]["cpu"] = "60m".into();
    assert_eq!(cpu(&grows), "110m", "what it asks for");
    let mut never = pod("Infeasible");
    never["status"]["resources"]["requests"]["cpu"] = "60m".into();
    assert_eq!(cpu(&never), "60m", "what this node never gives does not count");
}

#[test]
fn scopes() {
    let pods = Kind::of("", "pods").unwrap();
    let within = |spec: Value, scopes: Value| pods.measure(&json!({"spec": spec}), now()).is_in(&Scope::all(&scopes));
    let plain = |name: &str| json!({"scopes": [name]});
    let class = |operator: &str, values: Value| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}});
    let asks = json!({"containers": [{"resources": {"limits": {"memory": "1"}}}]});
    let high = json!({"priorityClassName": "high"});
    let across = json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "podAffinityTerm": {"topologyKey": "x", "namespaceSelector": {}}}]}}});
    for (spec, scopes, expected) in [
        (json!({}), plain("BestEffort"), true),
        (json!({}), plain("NotBestEffort"), false),
        (asks.clone(), plain("BestEffort"), false),
        (asks, json!({"scopes": ["NotBestEffort", "NotTerminating"]}), true),
        (json!({"activeDeadlineSeconds": 5}), plain("Terminating"), true),
        (json!({}), plain("Terminating"), false),
        (across, plain("CrossNamespacePodAffinity"), true),
        (json!({"affinity": {"podAffinity": {}}}), plain("CrossNamespacePodAffinity"), false),
        (high.clone(), class("In", json!(["low", "high"])), true),
        (high.clone(), class("NotIn", json!(["low", "high"])), false),
        (high.clone(), class("Exists", json!([])), true),
        (high, class("DoesNotExist", json!([])), false),
        (json!({}), class("In", json!(["high"])), false),
        (json!({}), class("NotIn", json!(["high"])), true),
        (json!({}), class("DoesNotExist", json!([])), true),
        (json!({}), plain("VolumeAttributesClass"), false),
    ] {
        assert_eq!(within(spec.clone(), scopes.clone()), expected, "{spec} in {scopes}");
    }
    let maps = Kind::of("", "configmaps").unwrap().measure(&json!({}), now());
    assert!(!maps.is_in(&Scope::all(&plain("BestEffort"))) && maps.is_in(&[]));
    let claim = json!({"spec": {"volumeAttributesClassName": "fast"}, "status": {"currentVolumeAttributesClassName": "slow"}});
    let claim = Kind::of("", "persistentvolumeclaims").unwrap().measure(&claim, now());
    let slow =
        json!({"scopeSelector": {"matchExpressions": [{"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["slow"]}]}});
    assert!(claim.is_in(&Scope::all(&slow)));
}

fn ask(status: Value, object: Value, old: Option<Value>) -> String {
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {}}, "status": status});
    let (kind, limits) = (Kind::of("", "pods").unwrap(), Limits::of(&quota));
    let charge = match Ask::of(&kind, &object, old.as_ref(), now()).charge(&limits) {
        Ok(Some(charge)) => charge,
        Ok(None) => return "nothing".into(),
        Err(refusal) => return refusal.to_string(),
    };
    charge.add_to(&limits, &limits.used, true).map_or_else(|refusal| refusal.to_string(), |used| told(&used))
}

#[test]
fn what_a_quota_says() {
    let pod = |resources: Value| json!({"spec": {"containers": [{"name": "b", "resources": resources}, {"name": "a", "resources": {}}]}});
    let cpu = pod(json!({"requests": {"cpu": "1"}}));
    assert_eq!(ask(json!({}), cpu.clone(), None), "nothing");
    assert_eq!(ask(json!({"hard": {"secrets": "1"}, "used": {"secrets": "1"}}), cpu.clone(), None), "nothing");
    assert_eq!(ask(json!({"hard": {"pods": "1"}}), cpu.clone(), None), "status unknown for quota: q, resources: pods");
    assert_eq!(ask(json!({"hard": {"cpu": "1"}, "used": {"cpu": "0"}}), cpu.clone(), None), "failed quota: q: must specify cpu for: a");
    let gpu = json!({"hard": {"requests.nvidia.com/gpu": "1", "pods": "9"}, "used": {"requests.nvidia.com/gpu": "0", "pods": "2"}});
    assert_eq!(ask(gpu, cpu.clone(), None), "pods=3 requests.nvidia.com/gpu=0");
    let storage =
        json!({"hard": {"requests.ephemeral-storage": "1Gi", "pods": "1"}, "used": {"requests.ephemeral-storage": "1Gi", "pods": "1"}});
    let disk = pod(json!({"requests": {"ephemeral-storage": "1Ki"}}));
    assert_eq!(
        ask(storage, disk, None),
        "exceeded quota: q, requested: pods=1,requests.ephemeral-storage=1Ki, used: pods=1,requests.ephemeral-storage=1Gi, \
         limited: pods=1,requests.ephemeral-storage=1Gi"
    );
    let hard = json!({"hard": {"requests.ephemeral-storage": "3"}, "used": {"requests.ephemeral-storage": "2"}});
    let size = |amount: &str| pod(json!({"requests": {"ephemeral-storage": amount}}));
    assert_eq!(ask(hard.clone(), size("3"), Some(size("2"))), "requests.ephemeral-storage=3");
    assert_eq!(ask(hard, size("1"), Some(size("2"))), "nothing");
}
