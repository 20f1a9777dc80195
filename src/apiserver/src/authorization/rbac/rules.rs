//! One rule of a role: what it allows, and whether rules allow all that another one does.

use serde::{Deserialize, Serialize};

use crate::authorization::Question;

/// Allows everything in its place.
const ANY: &str = "*";

/// A PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// What may be done.
    pub verbs: Vec<String>,
    /// In which groups.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub api_groups: Vec<String>,
    /// With which resources: `pods`, `pods/log`, `*/scale`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resources: Vec<String>,
    /// With which objects; none is all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resource_names: Vec<String>,
    /// On which other paths: `/healthz`, `/healthz/*`.
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

/// An explicit null is an empty list.
fn list<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Rule {
    /// Whether the rule allows it.
    pub fn allows(&self, question: &Question<'_>) -> bool {
        if !has(&self.verbs, question.verb) {
            return false;
        }
        if question.is_resource {
            has(&self.api_groups, question.group)
                && self.resources.iter().any(|rule| resource_matches(rule, question.resource, question.subresource))
                && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == question.name))
        } else {
            self.non_resource_urls.iter().any(|rule| path_matches(rule, question.path))
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|entry| entry == ANY || entry == wanted)
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == ANY {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((ANY, sub)) => !subresource.is_empty() && sub == subresource,
        Some((of, sub)) => of == resource && sub == subresource,
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == ANY || rule == path || rule.strip_suffix(ANY).is_some_and(|prefix| path.starts_with(prefix))
}

/// The parts of `wanted` that `owned` does not allow: empty when nobody would gain anything by it.
pub fn covers(owned: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(atoms).filter(|atom| !owned.iter().any(|rule| covers_atom(rule, atom))).collect()
}

/// One verb on one resource (and name) or path each.
fn atoms(rule: &Rule) -> Vec<Rule> {
    let one = |text: &String| vec![text.clone()];
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let atom = Rule { verbs: one(verb), api_groups: one(group), resources: one(resource), ..Rule::default() };
                if rule.resource_names.is_empty() {
                    out.push(atom);
                } else {
                    out.extend(rule.resource_names.iter().map(|name| Rule { resource_names: one(name), ..atom.clone() }));
                }
            }
        }
        out.extend(rule.non_resource_urls.iter().map(|path| Rule { verbs: one(verb), non_resource_urls: one(path), ..Rule::default() }));
    }
    out
}

fn covers_atom(rule: &Rule, atom: &Rule) -> bool {
    let within = |owned: &[String], wanted: &[String]| wanted.iter().all(|entry| has(owned, entry));
    within(&rule.verbs, &atom.verbs)
        && within(&rule.api_groups, &atom.api_groups)
        && atom.resources.iter().all(|resource| covers_resource(&rule.resources, resource))
        && (rule.resource_names.is_empty()
            || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|name| rule.resource_names.contains(name))))
        && atom.non_resource_urls.iter().all(|path| rule.non_resource_urls.iter().any(|owned| covers_path(owned, path)))
}

fn covers_resource(owned: &[String], wanted: &str) -> bool {
    has(owned, wanted) || wanted.split_once('/').is_some_and(|(_, sub)| owned.iter().any(|entry| entry.strip_prefix("*/") == Some(sub)))
}

fn covers_path(owned: &str, wanted: &str) -> bool {
    owned == wanted || owned.strip_suffix(ANY).is_some_and(|prefix| wanted.trim_end_matches('*').starts_with(prefix))
}
