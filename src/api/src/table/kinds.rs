//! Lines of everything that runs no pods.

use serde_json::Value;

use super::text::{self, access_modes, joined, or_none, shortened};
use super::{Print, Seen};

/// By group and plural.
pub(super) const PRINTERS: &[(&str, &str, Print)] = &[
    ("", "configmaps", |o| vec![o.name(), (o.len("/data") + o.len("/binaryData")).into(), o.age()]),
    ("", "secrets", |o| vec![o.name(), o.text("/type").into(), o.len("/data").into(), o.age()]),
    ("", "serviceaccounts", name_and_age),
    ("", "namespaces", |o| vec![o.name(), o.text("/status/phase").into(), o.age()]),
    ("", "nodes", node),
    ("", "services", service),
    ("", "endpoints", endpoints),
    ("", "events", event),
    ("events.k8s.io", "events", event),
    ("", "persistentvolumes", volume),
    ("", "persistentvolumeclaims", claim),
    ("", "resourcequotas", quota),
    ("discovery.k8s.io", "endpointslices", endpoint_slice),
    ("networking.k8s.io", "ingresses", ingress),
    ("networking.k8s.io", "ingressclasses", |o| {
        let group = o.text("/spec/parameters/apiGroup");
        let dot = if group.is_empty() { "" } else { "." };
        let kind = format!("{}{dot}{group}/{}", o.text("/spec/parameters/kind"), o.text("/spec/parameters/name"));
        let parameters = if o.at("/spec/parameters").is_some() { kind } else { "<none>".into() };
        vec![o.name(), o.text("/spec/controller").into(), parameters.into(), o.age()]
    }),
    ("networking.k8s.io", "networkpolicies", |o| vec![o.name(), text::selector(o.at("/spec/podSelector")).into(), o.age()]),
    ("networking.k8s.io", "servicecidrs", |o| vec![o.name(), joined(o.list("/spec/cidrs"), ",").into(), o.age()]),
    ("networking.k8s.io", "ipaddresses", |o| {
        let parent = ["group", "resource", "namespace", "name"].map(|f| o.text(&format!("/spec/parentRef/{f}")));
        let resource = if parent[0].is_empty() { parent[1].to_owned() } else { format!("{}.{}", parent[1], parent[0]) };
        let parts = [resource.as_str(), parent[2], parent[3]];
        vec![o.name(), parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/").into()]
    }),
    ("rbac.authorization.k8s.io", "rolebindings", binding),
    ("rbac.authorization.k8s.io", "clusterrolebindings", binding),
    ("certificates.k8s.io", "certificatesigningrequests", signing_request),
    ("apiregistration.k8s.io", "apiservices", |o| {
        let service = match o.at("/spec/service") {
            Some(_) => format!("{}/{}", o.text("/spec/service/namespace"), o.text("/spec/service/name")),
            None => "Local".into(),
        };
        let available = o.condition("Available").map_or_else(
            || "Unknown".to_owned(),
            |c| match (c["status"].as_str().unwrap_or_default(), c["reason"].as_str().unwrap_or_default()) {
                ("True", _) => "True".into(),
                (status, reason) => format!("{status} ({reason})"),
            },
        );
        vec![o.name(), service.into(), available.into(), o.age()]
    }),
    ("metrics.k8s.io", "nodes", |o| vec![o.name(), o.text("/usage/cpu").into(), o.text("/usage/memory").into(), o.text("/window").into()]),
    ("metrics.k8s.io", "pods", |o| {
        let sum = |name: &str| text::sum(o.list("/containers").iter().filter_map(|c| c["usage"][name].as_str()));
        vec![o.name(), sum("cpu").into(), sum("memory").into(), o.text("/window").into()]
    }),
    ("storage.k8s.io", "storageclasses", |o| {
        vec![
            with_default(o, "storageclass.kubernetes.io/is-default-class"),
            o.text("/provisioner").into(),
            o.text_or("/reclaimPolicy", "Delete"),
            o.text_or("/volumeBindingMode", "Immediate"),
            o.flag("/allowVolumeExpansion").into(),
            o.age(),
        ]
    }),
    ("storage.k8s.io", "csidrivers", |o| {
        let audiences: Vec<&str> = o.list("/spec/tokenRequests").iter().filter_map(|r| r["audience"].as_str()).collect();
        let tokens = if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") };
        vec![
            o.name(),
            o.at("/spec/attachRequired").is_none_or(|v| v == true).into(),
            o.flag("/spec/podInfoOnMount").into(),
            o.flag("/spec/storageCapacity").into(),
            tokens.into(),
            o.flag("/spec/requiresRepublish").into(),
            joined(o.list("/spec/volumeLifecycleModes"), ",").into(),
            o.age(),
        ]
    }),
    ("storage.k8s.io", "csinodes", |o| vec![o.name(), o.len("/spec/drivers").into(), o.age()]),
    ("storage.k8s.io", "volumeattachments", |o| {
        vec![
            o.name(),
            o.text("/spec/attacher").into(),
            o.text("/spec/source/persistentVolumeName").into(),
            o.text("/spec/nodeName").into(),
            o.flag("/status/attached").into(),
            o.age(),
        ]
    }),
    ("storage.k8s.io", "volumeattributesclasses", |o| {
        vec![with_default(o, "volumeattributesclass.kubernetes.io/is-default-class"), o.text("/driverName").into(), o.age()]
    }),
    ("scheduling.k8s.io", "priorityclasses", |o| {
        vec![o.name(), o.number("/value").into(), o.flag("/globalDefault").into(), o.age(), o.text("/preemptionPolicy").into()]
    }),
    ("coordination.k8s.io", "leases", |o| vec![o.name(), o.text("/spec/holderIdentity").into(), o.age()]),
    ("node.k8s.io", "runtimeclasses", |o| vec![o.name(), o.text("/handler").into(), o.age()]),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", |o| vec![o.name(), o.len("/webhooks").into(), o.age()]),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", |o| vec![o.name(), o.len("/webhooks").into(), o.age()]),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", |o| policy(o, "/spec/validations")),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies", |o| policy(o, "/spec/mutations")),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", policy_binding),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings", policy_binding),
    ("resource.k8s.io", "deviceclasses", name_and_age),
    ("resource.k8s.io", "resourceclaimtemplates", name_and_age),
    ("resource.k8s.io", "resourceclaims", |o| {
        let states = [
            (o.is_terminating(), "deleted"),
            (o.at("/status/allocation").is_some(), "allocated"),
            (o.len("/status/reservedFor") > 0, "reserved"),
        ];
        let mut states: Vec<&str> = states.into_iter().filter(|s| s.0).map(|s| s.1).collect();
        if !states.contains(&"allocated") {
            states.push("pending");
        }
        vec![o.name(), states.join(",").into(), o.age()]
    }),
    ("resource.k8s.io", "resourceslices", |o| {
        vec![o.name(), o.text("/spec/nodeName").into(), o.text("/spec/driver").into(), o.text("/spec/pool/name").into(), o.age()]
    }),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", |o| {
        let dangling = o.condition("Dangling").and_then(|c| c["status"].as_str()).unwrap_or("?");
        vec![
            o.name(),
            o.text("/spec/priorityLevelConfiguration/name").into(),
            o.number("/spec/matchingPrecedence").into(),
            o.text_or("/spec/distinguisherMethod/type", "<none>"),
            o.age(),
            dangling.into(),
        ]
    }),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", |o| {
        let queuing = |f: &str| o.at(&format!("/spec/limited/limitResponse/queuing/{f}")).cloned().unwrap_or_else(|| "<none>".into());
        let part = if o.text("/spec/type") == "Exempt" { "exempt" } else { "limited" };
        let shares = o.at(&format!("/spec/{part}/nominalConcurrencyShares")).cloned().unwrap_or_else(|| "<none>".into());
        vec![o.name(), o.text("/spec/type").into(), shares, queuing("queues"), queuing("handSize"), queuing("queueLengthLimit"), o.age()]
    }),
];

fn name_and_age(o: &Seen<'_>) -> Vec<Value> {
    vec![o.name(), o.age()]
}

fn with_default(o: &Seen<'_>, annotation: &str) -> Value {
    match o.at("/metadata/annotations").and_then(|a| a[annotation].as_str()) {
        Some("true") => format!("{} (default)", o.text("/metadata/name")).into(),
        _ => o.name(),
    }
}

fn node(o: &Seen<'_>) -> Vec<Value> {
    let mut status = match o.condition("Ready").map(|c| c["status"] == "True") {
        Some(true) => "Ready".to_owned(),
        Some(false) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if o.flag("/spec/unschedulable") {
        status += ",SchedulingDisabled";
    }
    let labels = o.at("/metadata/labels").and_then(Value::as_object).into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    let address = |kind: &str| {
        let found = o.list("/status/addresses").iter().find(|a| a["type"] == kind);
        Value::from(found.and_then(|a| a["address"].as_str()).unwrap_or("<none>"))
    };
    vec![
        o.name(),
        status.into(),
        or_none(roles.join(",")).into(),
        o.age(),
        o.text("/status/nodeInfo/kubeletVersion").into(),
        address("InternalIP"),
        address("ExternalIP"),
        o.text_or("/status/nodeInfo/osImage", "<unknown>"),
        o.text_or("/status/nodeInfo/kernelVersion", "<unknown>"),
        o.text_or("/status/nodeInfo/containerRuntimeVersion", "<unknown>"),
    ]
}

fn balancer(o: &Seen<'_>) -> String {
    let ingress = o.list("/status/loadBalancer/ingress").iter();
    let mut names: Vec<&str> = ingress.filter_map(|i| i["ip"].as_str().or(i["hostname"].as_str())).collect();
    names.sort_unstable();
    names.dedup();
    names.join(",")
}

fn service(o: &Seen<'_>) -> Vec<Value> {
    let external = joined(o.list("/spec/externalIPs"), ",");
    let outside = match o.text("/spec/type") {
        "ExternalName" => o.text("/spec/externalName").to_owned(),
        "LoadBalancer" => {
            let parts: Vec<String> = [balancer(o), external].into_iter().filter(|p| !p.is_empty()).collect();
            if parts.is_empty() { "<pending>".into() } else { parts.join(",") }
        }
        _ => or_none(external),
    };
    let ports = o.list("/spec/ports").iter().map(|p| {
        let (port, protocol) = (&p["port"], p["protocol"].as_str().unwrap_or_default());
        match p["nodePort"].as_i64() {
            Some(node) if node > 0 => format!("{port}:{node}/{protocol}"),
            _ => format!("{port}/{protocol}"),
        }
    });
    let ports = or_none(ports.collect::<Vec<_>>().join(","));
    let inside = match o.text("/spec/clusterIPs/0") {
        "" => o.text_or("/spec/clusterIP", "<none>"),
        ip => ip.into(),
    };
    vec![
        o.name(),
        o.text("/spec/type").into(),
        inside,
        outside.into(),
        if o.text("/spec/type") == "ExternalName" && o.len("/spec/ports") == 0 { "<none>".into() } else { ports.into() },
        o.age(),
        text::labels(o.at("/spec/selector")).into(),
    ]
}

fn endpoints(o: &Seen<'_>) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in o.list("/subsets") {
        let ips = subset["addresses"].as_array().into_iter().flatten().filter_map(|a| a["ip"].as_str());
        let ports: Vec<&Value> = subset["ports"].as_array().into_iter().flatten().map(|p| &p["port"]).collect();
        if ports.is_empty() {
            all.extend(ips.map(str::to_owned));
        } else {
            let ips: Vec<&str> = ips.collect();
            all.extend(ports.iter().flat_map(|port| ips.iter().map(|ip| text::host_port(ip, port))));
        }
    }
    vec![o.name(), or_none(shortened(&all)).into(), o.age()]
}

fn endpoint_slice(o: &Seen<'_>) -> Vec<Value> {
    let unset = |list: Vec<String>| if list.is_empty() { "<unset>".to_owned() } else { shortened(&list) };
    let ports = o.list("/ports").iter().map(|p| if p["port"].is_null() { "*".to_owned() } else { p["port"].to_string() }).collect();
    let addresses = o.list("/endpoints").iter().flat_map(|e| e["addresses"].as_array().into_iter().flatten());
    let addresses = addresses.filter_map(Value::as_str).map(str::to_owned).collect();
    vec![o.name(), o.text("/addressType").into(), unset(ports).into(), unset(addresses).into(), o.age()]
}

fn event(o: &Seen<'_>) -> Vec<Value> {
    // The two groups name the same fields differently.
    let either = |a: &str, b: &str| o.since(a).or_else(|| o.since(b));
    let text = |a: &str, b: &str| if o.at(a).is_some() { o.text(a) } else { o.text(b) };
    let unknown = || "<unknown>".to_owned();
    let first = either("/firstTimestamp", "/deprecatedFirstTimestamp").or_else(|| o.since("/eventTime")).unwrap_or_else(unknown);
    let mut last = either("/lastTimestamp", "/deprecatedLastTimestamp").unwrap_or_else(|| first.clone());
    let mut count = o.number("/count").max(o.number("/deprecatedCount")).max(1);
    if o.at("/series").is_some() {
        last = o.since("/series/lastObservedTime").unwrap_or_else(unknown);
        count = o.number("/series/count");
    }
    let of = |field: &str| text(&format!("/involvedObject/{field}"), &format!("/regarding/{field}"));
    let kind = of("kind").to_lowercase();
    let object = if of("name").is_empty() { kind } else { format!("{kind}/{}", of("name")) };
    let component = match text("/source/component", "/deprecatedSource/component") {
        "" => text("/reportingComponent", "/reportingController"),
        component => component,
    };
    let host = match text("/source/host", "/deprecatedSource/host") {
        "" => o.text("/reportingInstance"),
        host => host,
    };
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        last.into(),
        o.text("/type").into(),
        o.text("/reason").into(),
        object.into(),
        of("fieldPath").into(),
        source.into(),
        text("/message", "/note").trim().into(),
        first.into(),
        count.into(),
        o.name(),
    ]
}

fn volume(o: &Seen<'_>) -> Vec<Value> {
    let claim = match o.text("/spec/claimRef/name") {
        "" => String::new(),
        name => format!("{}/{name}", o.text("/spec/claimRef/namespace")),
    };
    let phase = if o.is_terminating() { "Terminating".into() } else { o.text("/status/phase").into() };
    vec![
        o.name(),
        o.text("/spec/capacity/storage").into(),
        access_modes(o.list("/spec/accessModes")).into(),
        o.text("/spec/persistentVolumeReclaimPolicy").into(),
        phase,
        claim.into(),
        o.text("/spec/storageClassName").into(),
        o.text_or("/spec/volumeAttributesClassName", "<unset>"),
        o.text("/status/reason").into(),
        o.age(),
        o.text_or("/spec/volumeMode", "<unset>"),
    ]
}

fn claim(o: &Seen<'_>) -> Vec<Value> {
    let bound = !o.text("/spec/volumeName").is_empty();
    let phase = if o.is_terminating() { "Terminating".into() } else { o.text("/status/phase").into() };
    let modes = if bound { access_modes(o.list("/status/accessModes")) } else { String::new() };
    vec![
        o.name(),
        phase,
        o.text("/spec/volumeName").into(),
        if bound { o.text("/status/capacity/storage") } else { "" }.into(),
        modes.into(),
        o.text("/spec/storageClassName").into(),
        o.text_or("/spec/volumeAttributesClassName", "<unset>"),
        o.age(),
        o.text_or("/spec/volumeMode", "<unset>"),
    ]
}

fn quota(o: &Seen<'_>) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (name, hard) in o.at("/status/hard").and_then(Value::as_object).into_iter().flatten() {
        let used = o.at("/status/used").and_then(|u| u[name].as_str()).unwrap_or("0");
        let line = format!("{name}: {used}/{}", hard.as_str().unwrap_or_default());
        if name.starts_with("limits") { limits.push(line) } else { requests.push(line) }
    }
    vec![o.name(), requests.join(", ").into(), limits.join(", ").into(), o.age()]
}

fn ingress(o: &Seen<'_>) -> Vec<Value> {
    let hosts: Vec<String> =
        o.list("/spec/rules").iter().filter_map(|r| r["host"].as_str()).filter(|h| !h.is_empty()).map(str::to_owned).collect();
    let hosts = if hosts.is_empty() { "*".into() } else { shortened(&hosts) };
    let ports = if o.len("/spec/tls") > 0 { "80, 443" } else { "80" };
    vec![o.name(), o.text_or("/spec/ingressClassName", "<none>"), hosts.into(), balancer(o).into(), ports.into(), o.age()]
}

fn binding(o: &Seen<'_>) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = o.list("/subjects").iter().filter(|s| s["kind"] == kind);
        let names = subjects.map(|s| match (kind, s["namespace"].as_str(), s["name"].as_str().unwrap_or_default()) {
            ("ServiceAccount", Some(namespace), name) => format!("{namespace}/{name}"),
            (_, _, name) => name.to_owned(),
        });
        Value::from(names.collect::<Vec<_>>().join(", "))
    };
    let role = format!("{}/{}", o.text("/roleRef/kind"), o.text("/roleRef/name"));
    vec![o.name(), role.into(), o.age(), of("User"), of("Group"), of("ServiceAccount")]
}

fn signing_request(o: &Seen<'_>) -> Vec<Value> {
    let has = |kind: &str| o.condition(kind).is_some();
    let mut condition = match () {
        () if has("Denied") => "Denied".to_owned(),
        () if has("Approved") => "Approved".into(),
        () => "Pending".into(),
    };
    if has("Failed") {
        condition = if condition == "Pending" { "Failed".into() } else { condition + ",Failed" };
    }
    if !o.text("/status/certificate").is_empty() {
        condition += ",Issued";
    }
    let lasts = o.at("/spec/expirationSeconds").and_then(Value::as_i64).map_or_else(|| "<none>".to_owned(), text::duration);
    vec![o.name(), o.age(), o.text_or("/spec/signerName", "<none>"), o.text("/spec/username").into(), lasts.into(), condition.into()]
}

fn policy(o: &Seen<'_>, rules: &str) -> Vec<Value> {
    let kind = match o.at("/spec/paramKind") {
        Some(_) => format!("{}/{}", o.text("/spec/paramKind/apiVersion"), o.text("/spec/paramKind/kind")),
        None => "<unset>".into(),
    };
    vec![o.name(), o.len(rules).into(), kind.into(), o.age()]
}

fn policy_binding(o: &Seen<'_>) -> Vec<Value> {
    let reference = match (o.at("/spec/paramRef"), o.text("/spec/paramRef/namespace"), o.text("/spec/paramRef/name")) {
        (None, ..) => "<unset>".to_owned(),
        (Some(_), _, "") => text::selector(o.at("/spec/paramRef/selector")),
        (Some(_), "", name) => name.to_owned(),
        (Some(_), namespace, name) => format!("{namespace}/{name}"),
    };
    vec![o.name(), o.text("/spec/policyName").into(), reference.into(), o.age()]
}
