//! Who may do what: RBAC, reviews.

use serde_json::Value;

use super::field::Field;
use super::rules::{label_selector, qualified_name};
use crate::catalogue::Resource;
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";
pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>) {
    match resource.plural.as_str() {
        "roles" => rules(&object.at("rules"), true),
        "clusterroles" => {
            rules(&object.at("rules"), false);
            let aggregation = object.at("aggregationRule");
            if aggregation.exists() {
                let selectors = aggregation.at("clusterRoleSelectors");
                if selectors.is_empty() {
                    selectors.required("at least one clusterRoleSelector required if aggregationRule is non-nil");
                }
                selectors.each(|_, selector| {
                    label_selector(&selector);
                    if crate::selector::LabelSelector::from_value(selector.value()).is_err() {
                        selector.invalid("invalid label selector");
                    }
                });
            }
        }
        "rolebindings" => binding(object, true, old),
        "clusterrolebindings" => binding(object, false, old),
        "subjectaccessreviews" => review(&object.at("spec"), true),
        "localsubjectaccessreviews" => {
            let spec = object.at("spec");
            review(&spec, true);
            let (attributes, metadata) = (spec.at("resourceAttributes"), object.at("metadata"));
            let namespace = metadata.at("namespace");
            if attributes.exists() && !namespace.is_empty() && attributes.at("namespace").text() != namespace.text() {
                attributes.at("namespace").invalid("must match metadata.namespace");
            }
        }
        "selfsubjectaccessreviews" => review(&object.at("spec"), false),
        _ => {}
    }
}

fn rules(rules: &Field<'_>, namespaced: bool) {
    rules.each(|_, rule| {
        let (verbs, groups, resources, urls) = (rule.at("verbs"), rule.at("apiGroups"), rule.at("resources"), rule.at("nonResourceURLs"));
        if verbs.is_empty() {
            verbs.required("verbs must contain at least one value");
        }
        if !urls.is_empty() {
            if namespaced {
                urls.invalid("namespaced rules cannot apply to non-resource URLs");
            }
            if !groups.is_empty() || !resources.is_empty() || !rule.at("resourceNames").is_empty() {
                urls.invalid("rules cannot apply to both regular resources and non-resource URLs");
            }
            return;
        }
        if groups.is_empty() {
            groups.required("resource rules must supply at least one api group");
        }
        if resources.is_empty() {
            resources.required("resource rules must supply at least one resource");
        }
    });
}

fn binding(binding: &Field<'_>, namespaced: bool, old: Option<&Value>) {
    let role = binding.at("roleRef");
    role.at("apiGroup").one_of(&[GROUP]);
    role.at("kind").one_of(if namespaced { &["ClusterRole", "Role"] } else { &["ClusterRole"] });
    role.at("name").must_be_valid(names::path_segment);
    binding.at("subjects").each(|_, subject| {
        let (kind, name, group) = (subject.at("kind"), subject.at("name"), subject.at("apiGroup"));
        name.must_exist();
        match kind.text() {
            "ServiceAccount" => {
                name.may_be_valid(names::dns_subdomain);
                if !group.is_empty() {
                    group.not_supported(&[""]);
                }
                if subject.at("namespace").is_empty() && !namespaced {
                    subject.at("namespace").required("");
                }
            }
            "User" | "Group" => group.one_of(&[GROUP]),
            _ => kind.not_supported(&["Group", "ServiceAccount", "User"]),
        }
    });
    if let Some(old) = old
        && role.value() != &old["roleRef"]
    {
        role.invalid("cannot change roleRef");
    }
}

fn review(spec: &Field<'_>, of_somebody: bool) {
    let (resource, other) = (spec.at("resourceAttributes"), spec.at("nonResourceAttributes"));
    match (resource.exists(), other.exists()) {
        (true, true) => other.invalid("cannot be specified in combination with resourceAttributes"),
        (false, false) => resource.invalid("exactly one of nonResourceAttributes or resourceAttributes must be specified"),
        _ => {}
    }
    if of_somebody && spec.at("user").is_empty() && spec.at("groups").is_empty() {
        spec.at("user").invalid("at least one of user or group must be specified");
    }
    for name in ["fieldSelector", "labelSelector"] {
        let selector = resource.at(name);
        let (raw, requirements) = (selector.at("rawSelector"), selector.at("requirements"));
        if !selector.exists() {
            continue;
        }
        if raw.is_empty() && requirements.is_empty() {
            requirements.required("when resourceAttributes selectors are specified, requirements or rawSelector is required");
        } else if !raw.is_empty() && !requirements.is_empty() {
            raw.invalid("may not be specified at the same time as requirements");
        }
        requirements.each(|_, requirement| {
            let key = requirement.at("key");
            if name == "fieldSelector" {
                key.must_exist();
            } else {
                key.all_invalid(qualified_name(key.text()));
            }
            match requirement.at("operator").text() {
                "In" | "NotIn" => drop(requirement.at("values").must_exist()),
                // Upstream leaves operators that it does not know to the authorizers.
                _ => {}
            }
        });
    }
}
