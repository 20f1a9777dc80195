//! Pods and pod templates.

mod containers;
mod environment;
mod handlers;
mod mounts;
mod resources;
mod scheduling;
mod security;
mod update;
mod volumes;

use super::field::Field;
use super::rules::{ip, labels, qualified_name, resource_value};
use crate::names;
use containers::Surroundings;

pub(super) use scheduling::tolerations;
pub(super) use update::update;
pub(super) use volumes::{claim_spec, persistent_source};

/// A pod that is created.
pub(super) fn create(pod: &Field<'_>) {
    let spec = pod.at("spec");
    self::spec(&spec);
    let metadata = pod.at("metadata");
    let annotations = metadata.at("annotations");
    let mirror = annotations.key("kubernetes.io/config.mirror");
    if mirror.exists() && spec.at("nodeName").is_empty() {
        mirror.invalid("must set spec.nodeName if mirror pod annotation is set");
    }
    let ephemeral = spec.at("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("cannot be set on create");
    }
}

/// A pod template; `labels` stands beside `spec` in upstream's paths.
pub(super) fn template(template: &Field<'_>) {
    let metadata = template.at("metadata");
    let own_labels = template.called("labels");
    labels(&own_labels.holding(metadata.at("labels").value()));
    let annotations = template.called("annotations");
    super::metadata::annotations(&annotations.holding(metadata.at("annotations").value()));
    self::spec(&template.at("spec"));
    let ephemeral = template.at("spec");
    let ephemeral = ephemeral.at("ephemeralContainers");
    if !ephemeral.is_empty() {
        ephemeral.forbidden("ephemeral containers not allowed in pod template");
    }
}

fn spec(spec: &Field<'_>) {
    let volumes = volumes::all(&spec.at("volumes"));
    let claims = claims(&spec.at("resourceClaims"));
    let around = Surroundings { spec: *spec, volumes: &volumes, claims: &claims };
    containers::all(&around);
    containers::ephemeral(&around);
    spec.at("restartPolicy").required_one_of(&["Always", "OnFailure", "Never"]);
    dns(spec);
    labels(&spec.at("nodeSelector"));
    security::pod(spec);
    scheduling::affinity(&spec.at("affinity"));
    scheduling::tolerations(&spec.at("tolerations"));
    scheduling::spread(&spec.at("topologySpreadConstraints"));
    scheduling::gates(&spec.at("schedulingGates"));
    spec.at("readinessGates").each(|_, gate| {
        let kind = gate.at("conditionType");
        kind.all_invalid(qualified_name(kind.text()));
    });
    spec.at("serviceAccountName").may_be_valid(names::dns_subdomain);
    spec.at("nodeName").may_be_valid(names::dns_subdomain);
    spec.at("priorityClassName").may_be_valid(names::dns_subdomain);
    spec.at("runtimeClassName").may_be_valid(names::dns_subdomain);
    spec.at("hostname").may_be_valid(names::dns_label);
    spec.at("subdomain").may_be_valid(names::dns_label);
    if spec.at("hostnameOverride").exists() {
        spec.at("hostnameOverride").valid_by(names::dns_subdomain);
    }
    spec.at("hostAliases").each(|_, alias| {
        ip(&alias.at("ip"));
        alias.at("hostnames").each(|_, name| name.valid_by(names::dns_subdomain));
    });
    spec.at("activeDeadlineSeconds").within(1, i64::from(i32::MAX));
    spec.at("terminationGracePeriodSeconds").not_negative();
    spec.at("preemptionPolicy").optional_one_of(&["Never", "PreemptLowerPriority"]);
    spec.at("overhead").each_key(|name, value| resource_value(name, &value));
    let os = spec.at("os");
    if os.exists() && os.at("name").must_exist() && !matches!(os.at("name").text(), "linux" | "windows") {
        os.holding(os.at("name").value()).not_supported(&["linux", "windows"]);
    }
}

fn dns(spec: &Field<'_>) {
    let policy = spec.at("dnsPolicy");
    policy.required_one_of(&["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    let config = spec.at("dnsConfig");
    if policy.text() == "None" {
        if !config.exists() {
            config.required("must provide `dnsConfig` when `dnsPolicy` is None");
        } else if config.at("nameservers").is_empty() {
            config.at("nameservers").required("must provide at least one DNS nameserver when `dnsPolicy` is None");
        }
    }
    let (servers, searches) = (config.at("nameservers"), config.at("searches"));
    if servers.list().len() > 3 {
        servers.invalid("must not have more than 3 nameservers");
    }
    servers.each(|_, server| ip(&server));
    if searches.list().len() > 32 {
        searches.invalid("must not have more than 32 search paths");
    }
    searches.each(|_, search| match search.text() {
        "." => {}
        text => {
            let relaxed = text.strip_suffix('.').unwrap_or(text).replace('_', "a");
            if let Err(message) = names::dns_subdomain(&relaxed) {
                search.invalid(&message);
            }
        }
    });
    config.at("options").each(|_, option| {
        if option.at("name").is_empty() {
            option.required("must not be empty");
        }
    });
}

/// Claims for devices; returns their names.
fn claims<'a>(claims: &Field<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    claims.each(|_, claim| {
        let name = claim.at("name");
        name.must_be_valid(names::dns_label);
        if !name.is_empty() && claims.list().iter().filter(|c| c["name"] == name.text()).count() > 1 && names.contains(&name.text()) {
            name.duplicate();
        }
        let (direct, template) = (claim.at("resourceClaimName"), claim.at("resourceClaimTemplateName"));
        if direct.exists() == template.exists() {
            claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`");
        }
        for reference in [direct, template] {
            if reference.exists() {
                reference.valid_by(names::dns_subdomain);
            }
        }
        if let Some(known) = claims.list().iter().filter_map(|c| c["name"].as_str()).find(|n| *n == name.text() && !n.is_empty()) {
            names.push(known);
        }
    });
    names
}
