//! Containers: names, images, ports, restart rules; their parts are in sibling files.

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::{port_name, port_number};
use super::environment::environment;
use super::handlers::{hooks, probes};
use super::mounts::{devices, mounts};
use super::resources::{resize, resources};
use super::security;
use crate::names;

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];

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
    pub(super) fn volume(&self, name: &str) -> Option<&Value> {
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

/// Containers that are added to a running pod to look at it: they have no part in what it does.
pub(super) fn ephemeral(around: &Surroundings<'_>) {
    const NO_PART: &str = "cannot be set for an Ephemeral Container";
    let spec = around.spec;
    let mut names: Vec<String> = Vec::new();
    for list in ["containers", "initContainers"] {
        names.extend(spec.at(list).list().iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()));
    }
    let others = names.clone();
    spec.at("ephemeralContainers").each(|_, container| {
        common(&container, around);
        unique_name(&container, &mut names);
        let target = container.at("targetContainerName");
        if !target.is_empty() && !others.iter().any(|name| name == target.text()) {
            target.not_found();
        }
        let parts = ["ports", "resources", "resizePolicy", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "restartPolicy"];
        for part in parts {
            if !container.at(part).is_empty() {
                container.at(part).forbidden(NO_PART);
            }
        }
        container.at("volumeMounts").each(|_, mount| {
            for path in ["subPath", "subPathExpr"] {
                if !mount.at(path).is_empty() {
                    mount.at(path).forbidden(NO_PART);
                }
            }
        });
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

/// Rules of one container.
const RESTART_RULES: usize = 20;
/// Exit codes of one rule.
const EXIT_CODES: usize = 255;

fn restart_rules(container: &Field<'_>) {
    let rules = container.at("restartPolicyRules");
    if !rules.is_empty() && !container.at("restartPolicy").exists() {
        container.at("restartPolicy").required("must specify restartPolicy when restart rules are used");
    }
    if rules.list().len() > RESTART_RULES {
        rules.too_many(RESTART_RULES);
    }
    rules.each(|_, rule| {
        rule.at("action").one_of(&["Restart", "RestartAllContainers"]);
        let codes = rule.at("exitCodes");
        if !codes.exists() {
            codes.required("must be specified");
            return;
        }
        codes.at("operator").one_of(&["In", "NotIn"]);
        if codes.at("values").list().len() > EXIT_CODES {
            codes.at("values").too_many(EXIT_CODES);
        }
    });
}
