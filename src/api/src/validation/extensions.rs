//! What extends or protects the server: webhooks, policies, API services, flow control.

use super::field::{Field, doubles};
use super::rules::{label_selector, qualified_name};
use super::{general, policies};
use crate::catalogue::Resource;
use crate::cel::environment::{CONDITION, Compiler, Environment};
use crate::names;

pub(super) fn check(resource: &Resource, object: &Field<'_>) {
    match resource.plural.as_str() {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            webhooks(&object.at("webhooks"), resource.plural.starts_with("mutating"))
        }
        "apiservices" => api_service(object),
        "prioritylevelconfigurations" => priority_level(&object.at("spec")),
        "flowschemas" => flow_schema(&object.at("spec")),
        "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
            policies::policy(object, resource.plural.starts_with("mutating"));
        }
        "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
            policies::binding(&object.at("spec"), resource.plural.starts_with("mutating"));
        }
        _ => general::check(&resource.schema, object),
    }
}

fn webhooks(webhooks: &Field<'_>, mutating: bool) {
    let mut names: Vec<String> = Vec::new();
    webhooks.each(|_, hook| {
        let name = hook.at("name");
        if name.must_exist() {
            if let Err(message) = names::dns_subdomain(name.text()) {
                name.invalid(&message);
            } else if name.text().split('.').count() < 3 {
                name.invalid("should be a domain with at least three segments separated by dots");
            }
        }
        if names.iter().any(|n| n == name.text()) {
            name.duplicate();
        }
        names.push(name.text().to_owned());
        hook.at("rules").each(|_, rule| self::rule(&rule));
        for (field, allowed) in [("failurePolicy", ["Fail", "Ignore"]), ("matchPolicy", ["Equivalent", "Exact"])] {
            hook.at(field).optional_one_of(&allowed);
        }
        let effects = hook.at("sideEffects");
        if effects.exists() {
            effects.one_of(&["None", "NoneOnDryRun"])
        } else {
            effects.required("must specify one of None, NoneOnDryRun")
        }
        hook.at("timeoutSeconds").within(1, 30);
        if mutating {
            hook.at("reinvocationPolicy").optional_one_of(&["IfNeeded", "Never"]);
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            label_selector(&hook.at(selector));
        }
        client(&hook.at("clientConfig"));
        versions(&hook.at("admissionReviewVersions"));
        conditions(&hook.at("matchConditions"), false);
    });
}

fn versions(versions: &Field<'_>) {
    if versions.is_empty() {
        versions.required("must specify one of v1, v1beta1");
        return;
    }
    let list = versions.list();
    let doubled = doubles(list);
    let mut known = false;
    versions.each(|i, version| {
        version.valid_by(names::dns_1035_label);
        if doubled[i] {
            version.invalid("duplicate version");
        }
        known |= matches!(version.text(), "v1" | "v1beta1");
    });
    if !known {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}

/// More conditions than these nobody needs to narrow a webhook or policy. Upstream's bound.
const MAX_CONDITIONS: usize = 64;

/// Match conditions; `params` says whether they may speak of parameters.
pub(super) fn conditions(conditions: &Field<'_>, params: bool) {
    if conditions.list().len() > MAX_CONDITIONS {
        conditions.too_many(MAX_CONDITIONS);
    }
    let (compiler, environment) = (Compiler::default(), Environment { params, authorizer: true, patches: false });
    let mut names: Vec<String> = Vec::new();
    conditions.each(|_, condition| {
        let expression = condition.at("expression");
        match expression.text().trim() {
            "" => expression.required(""),
            source => {
                if let Err(error) = compiler.compile(source, environment, &CONDITION) {
                    expression.invalid(&format!("compilation failed: {error}"));
                }
            }
        }
        let name = condition.at("name");
        if name.must_exist() {
            name.all_invalid(qualified_name(name.text()));
            if names.iter().any(|n| n == name.text()) {
                name.duplicate();
            }
            names.push(name.text().to_owned());
        }
    });
}

pub(super) fn rule(rule: &Field<'_>) {
    for name in ["operations", "apiGroups", "apiVersions", "resources"] {
        let list = rule.at(name);
        list.must_exist();
        let several = list.list().len() > 1;
        if several && list.list().iter().any(|v| v == "*") && name != "resources" {
            list.invalid("if '*' is present, must not specify other values");
        }
        list.each(|_, entry| match name {
            "operations" => entry.one_of(&["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]),
            "apiVersions" | "resources" => drop(entry.must_exist()),
            _ => {}
        });
    }
    rule.at("scope").optional_one_of(&["*", "Cluster", "Namespaced"]);
}

fn client(client: &Field<'_>) {
    let (url, service) = (client.at("url"), client.at("service"));
    if url.exists() == service.exists() {
        client.required("exactly one of url or service is required");
    }
    if url.exists() {
        let rest = url.text().strip_prefix("https://");
        if rest.is_none() {
            url.invalid("'https' is the only allowed URL scheme");
        }
        if rest.unwrap_or_default().is_empty() {
            url.invalid("host must be specified");
        }
    }
    if service.exists() {
        for name in ["name", "namespace"] {
            // A missing namespace is told at the name, too.
            if service.at(name).is_empty() {
                service.at("name").required(&format!("service {name} is required"));
            }
        }
        service.at("port").within(1, 65_535);
        let path = service.at("path");
        if path.exists() && !path.is_empty() && !path.text().starts_with('/') {
            path.invalid("must start with a '/'");
        }
    }
}

fn api_service(service: &Field<'_>) {
    let spec = service.at("spec");
    let metadata = service.at("metadata");
    let (group, version) = (spec.at("group"), spec.at("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    if !metadata.at("name").is_empty() && metadata.at("name").text() != wanted {
        metadata.at("name").invalid("must be `spec.version+\".\"+spec.group`");
    }
    if group.is_empty() && version.text() != "v1" {
        group.required("only v1 may have an empty group and it better be legacy kube");
    }
    group.may_be_valid(names::dns_subdomain);
    version.valid_by(names::dns_1035_label);
    spec.at("groupPriorityMinimum").must_be_within(1, 20_000);
    spec.at("versionPriority").must_be_within(1, 1_000);
    let (target, skip) = (spec.at("service"), spec.at("insecureSkipTLSVerify"));
    if target.exists() {
        for name in ["namespace", "name"] {
            target.at(name).must_exist();
        }
        target.at("port").within(1, 65_535);
        if skip.is_true() && !spec.at("caBundle").is_empty() {
            skip.invalid("may not be true if caBundle is present");
        }
    } else {
        if !spec.at("caBundle").is_empty() {
            spec.at("caBundle").invalid("local APIServices may not have a caBundle");
        }
        if skip.is_true() {
            skip.invalid("local APIServices may not have insecureSkipTLSVerify");
        }
    }
}

impl Field<'_> {
    fn must_be_within(&self, low: i64, high: i64) {
        if !(low..=high).contains(&self.number()) {
            self.invalid(&format!("must be between {low} and {high}, inclusive"));
        }
    }
}

fn priority_level(spec: &Field<'_>) {
    let (kind, limited) = (spec.at("type"), spec.at("limited"));
    match kind.text() {
        "" => kind.required(""),
        "Exempt" if limited.exists() => limited.forbidden("must be nil if the type is not Limited"),
        "Exempt" => {}
        "Limited" if !limited.exists() => limited.required("must not be empty when type is Limited"),
        "Limited" => {
            limited.at("nominalConcurrencyShares").not_negative();
            limited.at("lendablePercent").within(0, 100);
            let response = limited.at("limitResponse");
            let (kind, queuing) = (response.at("type"), response.at("queuing"));
            match kind.text() {
                "" => kind.required(""),
                "Reject" if queuing.exists() => queuing.forbidden("must be nil if limited.limitResponse.type is not Limited"),
                "Reject" => {}
                "Queue" if !queuing.exists() => queuing.required("must not be empty if limited.limitResponse.type is Limited"),
                "Queue" => {
                    for name in ["queueLengthLimit", "queues", "handSize"] {
                        let number = queuing.at(name);
                        if number.number() <= 0 {
                            number.invalid("must be positive");
                        }
                    }
                    if queuing.at("handSize").number() > queuing.at("queues").number() {
                        queuing.at("handSize").invalid("should not be greater than queues");
                    }
                }
                _ => kind.not_supported(&["Queue", "Reject"]),
            }
        }
        _ => kind.not_supported(&["Exempt", "Limited"]),
    }
}

fn flow_schema(spec: &Field<'_>) {
    const VERBS: [&str; 10] = ["*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
    spec.at("matchingPrecedence").must_be_within(1, 10_000);
    let level = spec.at("priorityLevelConfiguration");
    level.at("name").must_be_valid(names::dns_subdomain);
    let method = spec.at("distinguisherMethod");
    if method.exists() {
        method.at("type").one_of(&["ByNamespace", "ByUser"]);
    }
    spec.at("rules").each(|_, rule| {
        if rule.at("subjects").is_empty() {
            rule.at("subjects").required("subjects must contain at least one value");
        }
        rule.at("subjects").each(|_, subject| {
            let part = match subject.at("kind").text() {
                "User" => "user",
                "Group" => "group",
                "ServiceAccount" => "serviceAccount",
                _ => return subject.at("kind").not_supported(&["Group", "ServiceAccount", "User"]),
            };
            let who = subject.at(part);
            if !who.exists() {
                who.required("is required for this kind of subject");
                return;
            }
            who.at("name").must_exist();
            if part == "serviceAccount" {
                who.at("namespace").must_exist();
            }
        });
        rule.at("resourceRules").each(|_, rule| {
            for name in ["verbs", "apiGroups", "resources"] {
                rule.at(name).must_exist();
            }
            unknown_verbs(&rule.at("verbs"), &VERBS);
            let namespaces = rule.at("namespaces");
            if namespaces.is_empty() && !rule.at("clusterScope").is_true() {
                namespaces.required("resource rules that are not cluster scoped must supply at least one namespace");
            }
            namespaces.each(|_, namespace| {
                if namespace.text() != "*" {
                    namespace.valid_by(names::dns_label);
                }
            });
        });
        rule.at("nonResourceRules").each(|_, rule| {
            for name in ["verbs", "nonResourceURLs"] {
                rule.at(name).must_exist();
            }
            unknown_verbs(&rule.at("verbs"), &["*", "delete", "get", "head", "options", "patch", "post", "put"]);
            rule.at("nonResourceURLs").each(|_, url| {
                if url.text() != "*" && !url.text().starts_with('/') {
                    url.invalid("must begin with '/'");
                }
            });
        });
    });
}

fn unknown_verbs(verbs: &Field<'_>, known: &[&str]) {
    if verbs.list().iter().any(|v| !v.as_str().is_some_and(|v| known.contains(&v))) {
        verbs.not_supported(known);
    }
}
