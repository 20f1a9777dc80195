//! Containers: names, images, ports, environment, mounts, resources, probes, hooks.

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::{data_key, descending_path, is_extended, port, port_name, port_number, quantity, resource_value};
use super::security;
use crate::names;
use crate::quantity::Quantity;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
/// Fields of a pod that its environment may show.
const SHOWN_IN_ENVIRONMENT: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that its files may show.
const SHOWN_IN_FILES: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// What a container refers to.
pub(super) struct Surroundings<'a> {
    /// The pod's spec.
    pub(super) spec: Field<'a>,
    /// Valid volumes by name.
    pub(super) volumes: &'a [(&'a str, &'a Value)],
    /// Claims for devices.
    pub(super) claims: &'a [&'a str],
}

impl Surroundings<'_> {
    fn volume(&self, name: &str) -> Option<&Value> {
        self.volumes.iter().find(|(known, _)| *known == name).map(|(_, volume)| *volume)
    }
}

/// All containers of a pod.
pub(super) fn all(around: &Surroundings<'_>) {
    let containers = around.spec.at("containers");
    containers.must_exist();
    let mut names: Vec<String> = Vec::new();
    let mut host_ports: Vec<(String, i64, String)> = Vec::new();
    containers.each(|_, container| {
        common(&container, around);
        unique_name(&container, &mut names);
        restart_rules(&container);
        container.at("restartPolicy").optional_one_of(&["Always", "Never", "OnFailure"]);
        hooks(&container, around);
        probes(&container);
        container.at("ports").each(|_, p| unique_host_port(&p, &mut host_ports));
    });
    let inits = around.spec.at("initContainers");
    inits.each(|_, container| {
        common(&container, around);
        unique_name(&container, &mut names);
        restart_rules(&container);
        container.at("restartPolicy").optional_one_of(&["Always", "Never", "OnFailure"]);
        if container.at("restartPolicy").text() == "Always" {
            hooks(&container, around);
            probes(&container);
        } else {
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                let part = container.at(name);
                if part.exists() {
                    part.forbidden("may not be set for init containers without restartPolicy=Always");
                }
            }
        }
        let mut own = Vec::new();
        container.at("ports").each(|_, p| unique_host_port(&p, &mut own));
    });
}

fn unique_name(container: &Field<'_>, names: &mut Vec<String>) {
    let name = container.at("name");
    if !name.is_empty() && names.iter().any(|known| known == name.text()) {
        name.duplicate();
    }
    names.push(name.text().to_owned());
}

fn unique_host_port(port: &Field<'_>, used: &mut Vec<(String, i64, String)>) {
    let host = port.at("hostPort");
    if host.number() == 0 {
        return;
    }
    let key = (port.at("hostIP").text().to_owned(), host.number(), port.at("protocol").text().to_owned());
    if used.contains(&key) {
        host.duplicate();
    } else {
        used.push(key);
    }
}

fn common(container: &Field<'_>, around: &Surroundings<'_>) {
    container.at("name").must_be_valid(names::dns_label);
    let image = container.at("image");
    if image.must_exist() && image.text().trim() != image.text() {
        image.invalid("must not have leading or trailing whitespace");
    }
    container.at("terminationMessagePolicy").required_one_of(&["File", "FallbackToLogsOnError"]);
    ports(&container.at("ports"));
    environment(container, around);
    mounts(container, around);
    devices(container, around);
    container.at("imagePullPolicy").required_one_of(&PULL_POLICIES);
    resources(&container.at("resources"), around.claims);
    resize(container, around);
    security::container(&container.at("securityContext"), around.spec.at("hostUsers").value() != &Value::Bool(false));
}

fn ports(ports: &Field<'_>) {
    let mut names: Vec<String> = Vec::new();
    ports.each(|_, entry| {
        let name = entry.at("name");
        if !name.is_empty() {
            let wrong = port_name(name.text());
            if !wrong.is_empty() {
                name.all_invalid(wrong);
            } else if names.iter().any(|n| n == name.text()) {
                name.duplicate();
            } else {
                names.push(name.text().to_owned());
            }
        }
        let number = entry.at("containerPort");
        if number.number() == 0 {
            number.required("");
        } else {
            port_number(&number);
        }
        if entry.at("hostPort").number() != 0 {
            port_number(&entry.at("hostPort"));
        }
        entry.at("protocol").required_one_of(&["TCP", "UDP", "SCTP"]);
    });
}

/// Printable ASCII but `=`.
fn environment_name(text: &str) -> Result<(), String> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        Ok(())
    } else {
        Err("a valid environment variable name must consist only of printable ASCII characters other than '='".into())
    }
}

fn environment(container: &Field<'_>, around: &Surroundings<'_>) {
    container.at("env").each(|_, variable| {
        variable.at("name").must_be_valid(environment_name);
        let from = variable.at("valueFrom");
        if !from.exists() {
            return;
        }
        let (field, resource, file) = (from.at("fieldRef"), from.at("resourceFieldRef"), from.at("fileKeyRef"));
        let (config, secret) = (from.at("configMapKeyRef"), from.at("secretKeyRef"));
        if field.exists() {
            field_reference(&field, &SHOWN_IN_ENVIRONMENT);
        }
        if resource.exists() {
            resource_reference(&resource, false);
        }
        for key in [config, secret] {
            if key.exists() {
                key.at("name").valid_by(names::dns_subdomain);
                key.at("key").must_be_valid(data_key);
            }
        }
        if file.exists() {
            file.at("key").must_be_valid(environment_name);
            file.at("path").must_exist();
            descending_path(&file.at("path"));
            let volume = file.at("volumeName");
            volume.must_exist();
            if around.volume(volume.text()).is_none() {
                volume.not_found();
            }
        }
        let sources = [field, resource, config, secret, file].iter().filter(|s| s.exists()).count();
        if !variable.at("value").is_empty() && sources > 0 {
            from.invalid("may not be specified when `value` is not empty");
        } else if sources > 1 {
            from.invalid("may not have more than one field specified at a time");
        } else if sources == 0 {
            from.invalid("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        }
    });
    let sources = container.at("envFrom");
    sources.each(|_, source| {
        source.at("prefix").may_be_valid(environment_name);
        let both = [source.at("configMapRef"), source.at("secretRef")];
        for reference in both.iter().filter(|r| r.exists()) {
            reference.at("name").must_be_valid(names::dns_subdomain);
        }
        match both.iter().filter(|r| r.exists()).count() {
            0 => sources.holding(source.value()).invalid("must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => sources.holding(source.value()).invalid("may not have more than one field specified at a time"),
        }
    });
}

/// A field of the pod that its environment or files show.
pub(super) fn field_reference(reference: &Field<'_>, shown: &[&str]) {
    let path = reference.at("fieldPath");
    if !reference.at("apiVersion").must_exist() || !path.must_exist() {
        return;
    }
    let subscript = path.text().split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)));
    if let Some((map, key)) = subscript {
        match map {
            "metadata.annotations" => path.all_invalid(super::super::rules::qualified_name(&key.to_lowercase())),
            "metadata.labels" => path.all_invalid(super::super::rules::qualified_name(key)),
            _ => path.invalid("does not support subscript"),
        }
        return;
    }
    let known = SHOWN_IN_ENVIRONMENT.contains(&path.text())
        || SHOWN_IN_FILES.contains(&path.text())
        || matches!(path.text(), "spec.restartPolicy" | "spec.schedulerName" | "status.phase");
    if !known {
        path.invalid("error converting fieldPath: field label not supported");
    } else if !shown.contains(&path.text()) {
        path.not_supported(shown);
    }
}

/// A resource of the container that its environment or files show.
pub(super) fn resource_reference(reference: &Field<'_>, in_file: bool) {
    const RESOURCES: [&str; 6] =
        ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
    let (container, resource, divisor) = (reference.at("containerName"), reference.at("resource"), reference.at("divisor"));
    if in_file && container.is_empty() {
        container.required("");
    } else if resource.must_exist() {
        let huge = resource.text().starts_with("limits.hugepages-") || resource.text().starts_with("requests.hugepages-");
        if !huge && !RESOURCES.contains(&resource.text()) {
            resource.not_supported(&RESOURCES);
        }
        let units: &[&str] = if resource.text().ends_with(".cpu") {
            &["0", "1m", "1"]
        } else {
            &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
        };
        if divisor.exists() && !units.contains(&divisor.text()) {
            divisor.invalid("only divisor's values that are a single unit are supported");
        }
    }
}

/// Items of a downward API volume.
pub(super) fn shown_file(item: &Field<'_>) {
    let path = item.at("path");
    if path.must_exist() {
        descending_path(&path);
    }
    let (field, resource) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    if field.exists() {
        field_reference(&field, &SHOWN_IN_FILES);
        if resource.exists() {
            item.invalid("fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.exists() {
        resource_reference(&resource, true);
    } else {
        item.required("one of fieldRef and resourceFieldRef is required");
    }
    item.at("mode").within(0, 0o777);
}

fn mounts(container: &Field<'_>, around: &Surroundings<'_>) {
    let list = container.at("volumeMounts");
    let mut paths: Vec<String> = Vec::new();
    list.each(|_, mount| {
        let (name, path) = (mount.at("name"), mount.at("mountPath"));
        name.must_exist();
        let volume = around.volume(name.text());
        if volume.is_none() {
            name.not_found();
        }
        if path.must_exist() && paths.iter().any(|p| p == path.text()) {
            path.invalid("must be unique");
        }
        paths.push(path.text().to_owned());
        let (sub, expression) = (mount.at("subPath"), mount.at("subPathExpr"));
        descending_path(&sub);
        descending_path(&expression);
        if !sub.is_empty() && !expression.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        let shared = list.holding(mount.value());
        let propagation = shared.at("mountPropagation");
        propagation.optional_one_of(&["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && container.value()["securityContext"]["privileged"] != true {
            propagation.forbidden("Bidirectional mount propagation is available only to privileged containers");
        }
        let recursive = shared.at("recursiveReadOnly");
        recursive.optional_one_of(&["Disabled", "Enabled", "IfPossible"]);
        if matches!(recursive.text(), "Enabled" | "IfPossible") {
            if !mount.at("readOnly").is_true() {
                recursive.forbidden("may only be specified when readOnly is true");
            }
            if !matches!(propagation.text(), "" | "None") {
                recursive.forbidden("may only be specified when mountPropagation is None or not specified");
            }
        }
    });
}

fn devices(container: &Field<'_>, around: &Surroundings<'_>) {
    let (mut names, mut paths): (Vec<String>, Vec<String>) = Default::default();
    container.at("volumeDevices").each(|_, device| {
        let (name, path) = (device.at("name"), device.at("devicePath"));
        if name.must_exist() && names.iter().any(|n| n == name.text()) {
            name.invalid("must be unique");
        }
        names.push(name.text().to_owned());
        match around.volume(name.text()) {
            None => name.not_found(),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        if path.must_exist() && paths.iter().any(|p| p == path.text()) {
            path.invalid("must be unique");
        }
        paths.push(path.text().to_owned());
    });
}

/// Whether more may be limited than is requested.
fn overcommits(name: &str) -> bool {
    !is_extended(name) && !name.starts_with("hugepages-")
}

/// Limits and requests of a container, or of a whole pod.
pub(super) fn resources(resources: &Field<'_>, claims: &[&str]) {
    let (limits, requests) = (resources.at("limits"), resources.at("requests"));
    limits.each_key(|name, value| {
        resource_name(name, &value);
        resource_value(name, &value);
    });
    requests.each_key(|name, value| {
        resource_name(name, &value);
        resource_value(name, &value);
        let limit = limits.key(name);
        let (asked, most) = (quantity(&value), quantity(&limit));
        if limit.exists() {
            if !overcommits(name) && asked != most {
                requests.holding(value.value()).invalid("must be equal to the limit");
            } else if overcommits(name) && asked > most {
                requests.holding(value.value()).invalid("must be less than or equal to the limit");
            }
        } else if !overcommits(name) {
            limits.required("Limit must be set for non overcommit resources");
        }
    });
    let names: Vec<&str> =
        [limits, requests].iter().filter_map(|r| r.value().as_object()).flatten().map(|(name, _)| name.as_str()).collect();
    if names.iter().any(|n| n.starts_with("hugepages-")) && !names.iter().any(|n| matches!(*n, "cpu" | "memory")) {
        resources.forbidden("HugePages require cpu or memory");
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    resources.at("claims").each(|_, claim| {
        let (name, request) = (claim.at("name"), claim.at("request"));
        request.may_be_valid(names::dns_label);
        if name.is_empty() {
            claim.required("");
            return;
        }
        let key = (name.text().to_owned(), request.text().to_owned());
        if seen.contains(&key) {
            claim.duplicate();
        }
        seen.push(key);
        if !claims.contains(&name.text()) {
            claim.not_found();
        }
    });
}

fn resource_name(name: &str, value: &Field<'_>) {
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let wrong = super::super::rules::qualified_name(name);
    if !wrong.is_empty() {
        value.all_invalid(wrong);
    } else if !name.contains('/') && !standard {
        value.invalid("must be a standard resource for containers");
    }
}

fn resize(container: &Field<'_>, around: &Surroundings<'_>) {
    let list = container.at("resizePolicy");
    let mut seen: Vec<String> = Vec::new();
    for policy in list.list() {
        let policy = list.holding(policy);
        let (resource, restart) = (policy.at("resourceName"), policy.at("restartPolicy"));
        match resource.text() {
            "cpu" | "memory" => {}
            "" => list.required(""),
            _ => list.holding(resource.value()).not_supported(&["cpu", "memory"]),
        }
        match restart.text() {
            "NotRequired" => {}
            "RestartContainer" if around.spec.at("restartPolicy").text() == "Never" => {
                list.holding(restart.value()).invalid("must be 'NotRequired' when `restartPolicy` is 'Never'");
            }
            "RestartContainer" => {}
            "" => list.required(""),
            _ => list.holding(restart.value()).not_supported(&["NotRequired", "RestartContainer"]),
        }
        if seen.iter().any(|s| s == resource.text()) {
            list.holding(resource.value()).duplicate();
        }
        seen.push(resource.text().to_owned());
    }
}

fn restart_rules(container: &Field<'_>) {
    container.at("restartPolicyRules").each(|_, rule| {
        rule.at("action").one_of(&["Restart", "RestartAllContainers"]);
        let codes = rule.at("exitCodes");
        if !codes.exists() {
            codes.required("must be specified");
            return;
        }
        codes.at("operator").one_of(&["In", "NotIn"]);
    });
}

fn hooks(container: &Field<'_>, around: &Surroundings<'_>) {
    let lifecycle = container.at("lifecycle");
    let grace = around.spec.at("terminationGracePeriodSeconds").number();
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.at(name);
        if hook.exists() {
            let kinds = action(&hook);
            let sleep = hook.at("sleep");
            if sleep.exists() && !(0..=grace).contains(&sleep.at("seconds").number()) {
                sleep.holding(sleep.at("seconds").value()).invalid("must be non-negative and less than terminationGracePeriodSeconds");
            }
            count(&hook, kinds + usize::from(sleep.exists()));
        }
    }
}

fn count(handler: &Field<'_>, kinds: usize) {
    match kinds {
        0 => handler.required("must specify a handler type"),
        1 => {}
        _ => handler.forbidden("may not specify more than 1 handler type"),
    }
}

/// Checks what a hook or probe does; returns in how many ways it does it.
fn action(handler: &Field<'_>) -> usize {
    let (exec, http, tcp) = (handler.at("exec"), handler.at("httpGet"), handler.at("tcpSocket"));
    if exec.exists() {
        exec.at("command").must_exist();
    }
    if http.exists() {
        http.at("path").must_exist();
        port(&http.at("port"));
        http.at("scheme").one_of(&["HTTP", "HTTPS"]);
        let headers = http.at("httpHeaders");
        for header in headers.list() {
            let name = header["name"].as_str().unwrap_or_default();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                headers.holding(&header["name"]).invalid("a valid HTTP header must consist of alphanumeric characters or '-'");
            }
        }
    }
    if tcp.exists() {
        port(&tcp.at("port"));
    }
    [exec, http, tcp].iter().filter(|a| a.exists()).count()
}

fn probes(container: &Field<'_>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if !probe.exists() {
            continue;
        }
        let grpc = probe.at("grpc");
        if grpc.exists() {
            port_number(&grpc.at("port"));
        }
        let kinds = action(&probe) + usize::from(grpc.exists());
        count(&probe, kinds);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            probe.at(number).not_negative();
        }
        let grace = probe.at("terminationGracePeriodSeconds");
        if name == "readinessProbe" && grace.exists() {
            grace.invalid("must not be set for readinessProbes");
        } else if grace.exists() {
            grace.positive();
        }
        let successes = probe.at("successThreshold");
        if name != "readinessProbe" && successes.number() != 1 {
            successes.invalid("must be 1");
        }
    }
}

/// Sum that a pod asks for as a whole is not below what its containers ask for.
pub(super) fn pod_resources(spec: &Field<'_>) {
    let whole = spec.at("resources");
    if !whole.exists() {
        return;
    }
    resources(&whole, &[]);
    let requests = whole.at("requests");
    requests.each_key(|name, value| {
        let asked = spec.at("containers").list().iter().filter_map(|c| c["resources"]["requests"][name].as_str()?.parse::<Quantity>().ok());
        if asked.fold(Quantity::from_units(0), Quantity::plus) > quantity(&value) {
            value.invalid("must be greater than or equal to aggregate container requests");
        }
    });
}
