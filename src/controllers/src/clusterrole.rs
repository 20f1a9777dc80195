//! ClusterRole aggregation: a role with an aggregation rule has the rules of all roles that its selectors match.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::core::{Selector, SelectorExt};
use serde_json::json;

use crate::{
    plan::{Patch, Plan, Target, document},
    runner::{Controller, Past, Wakeups},
    writer::Refused,
};

/// Serves ClusterRoles that aggregate others.
#[derive(Debug)]
pub struct Aggregations {
    roles: Lister<ClusterRole>,
}

impl Aggregations {
    /// Subscribes to what it needs.
    pub fn new(informers: &Informers, wakeups: &Wakeups) -> Self {
        let roles = informers.of::<ClusterRole>();
        let lister = roles.lister();
        wakeups.watch(&roles, move |old, new| {
            let changed = [old, new].into_iter().flatten();
            let labels: Vec<_> = changed.clone().map(|role| role.metadata.labels.clone().unwrap_or_default()).collect();
            let matches = |role: &ClusterRole| selectors(role).iter().any(|s| labels.iter().any(|labels| s.matches(labels)));
            let above =
                lister.list().into_iter().filter(|role| role.aggregation_rule.is_some() && matches(role)).map(|role| Key::of(&*role));
            let own = changed.filter(|role| role.aggregation_rule.is_some()).map(Key::of);
            let mut keys: Vec<Key> = above.chain(own).collect();
            keys.sort();
            keys.dedup();
            keys
        });
        Self { roles: roles.lister() }
    }
}

/// Those of the role's rule; one that cannot be read matches nothing.
fn selectors(role: &ClusterRole) -> Vec<Selector> {
    let selectors = role.aggregation_rule.iter().flat_map(|rule| rule.cluster_role_selectors.iter().flatten());
    selectors.filter_map(|selector| Selector::try_from(selector.clone()).ok()).collect()
}

#[async_trait]
impl Controller for Aggregations {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let role = self.roles.get(key).filter(|role| role.aggregation_rule.is_some() && role.metadata.deletion_timestamp.is_none());
        Ok(role.map_or_else(Plan::default, |role| plan(&role, &self.roles.list())))
    }

    fn keys(&self) -> Vec<Key> {
        self.roles.list().iter().filter(|role| role.aggregation_rule.is_some()).map(|role| Key::of(&**role)).collect()
    }
}

/// The rules of the others, by the order of selectors and then of names, each once.
pub fn plan(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Plan {
    let mut sorted: Vec<&Arc<ClusterRole>> = all.iter().filter(|other| other.metadata.name != role.metadata.name).collect();
    sorted.sort_by_key(|other| other.metadata.name.clone());
    let none = Default::default();
    let mut rules: Vec<&PolicyRule> = Vec::new();
    for selector in selectors(role) {
        for other in sorted.iter().filter(|other| selector.matches(other.metadata.labels.as_ref().unwrap_or(&none))) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(&rule) {
                    rules.push(rule);
                }
            }
        }
    }
    let mut plan = Plan::default();
    if role.rules.iter().flatten().ne(rules.iter().copied()) {
        plan.patches.push(Patch::merge(Target::of(role), json!({"rules": document(&rules)})));
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn role(name: &str, label: &str, rules: &[&str], aggregates: &[&str]) -> Arc<ClusterRole> {
        let rules: Vec<Value> = rules.iter().map(|verb| json!({"verbs": [verb]})).collect();
        let selectors: Vec<Value> = aggregates.iter().map(|label| json!({"matchLabels": {"to": label}})).collect();
        let rule = (!aggregates.is_empty()).then(|| json!({"clusterRoleSelectors": selectors}));
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": rules, "aggregationRule": rule}))
                .unwrap(),
        )
    }

    #[test]
    fn rules_are_gathered_once_each_in_order() {
        let check = |own: &[&str], expected: Option<&[&str]>| {
            let sum = role("sum", "a", own, &["b", "a"]);
            let all = [
                sum.clone(),
                role("z", "a", &["get", "list"], &[]),
                role("y", "b", &["watch"], &[]),
                role("x", "a", &["get"], &[]),
                role("w", "c", &["no"], &[]),
            ];
            let verbs = plan(&sum, &all).patches.first().map(|patch| {
                patch.body["rules"].as_array().unwrap().iter().map(|rule| rule["verbs"][0].as_str().unwrap().to_owned()).collect::<Vec<_>>()
            });
            assert_eq!(verbs, expected.map(|verbs| verbs.iter().map(|v| (*v).to_owned()).collect()));
        };
        check(&["old"], Some(&["watch", "get", "list"]));
        check(&["watch", "get", "list"], None);
    }
}
