//! Nobody grants by a role or a binding what they may not do themselves, unless they may `escalate` or `bind`.
//!
//! Upstream does this in the storage of roles and bindings; here it is a plugin like any other check of a write.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::authorization::{
    Authorizers, Question, masters,
    rbac::{GROUP, Rule, covers, rules_of},
};

/// The plugin.
#[derive(Debug)]
pub struct RoleEscalation {
    /// Who may do what.
    pub authorizers: Arc<Authorizers>,
}

#[async_trait]
impl Plugin for RoleEscalation {
    fn name(&self) -> &'static str {
        "RoleEscalation"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let writes = matches!(write.operation, Operation::Create | Operation::Update);
        let Some(object) = object.filter(|_| writes && write.info.group == GROUP) else { return Ok(()) };
        if write.user.groups.iter().any(|group| group == masters::GROUP) {
            return Ok(());
        }
        match write.info.resource.as_str() {
            "roles" | "clusterroles" => self.role(write, object),
            "rolebindings" | "clusterrolebindings" => self.binding(write, object),
            _ => Ok(()),
        }
    }
}

impl RoleEscalation {
    fn role(&self, write: &Attributes<'_>, role: &Value) -> Result<(), Status> {
        let same = |field: &str| write.old.is_some_and(|old| old[field] == role[field]);
        if write.operation == Operation::Update && same("rules") && same("aggregationRule") {
            return Ok(());
        }
        if self.may(write, "escalate", &write.info.resource, &write.info.name) {
            return Ok(());
        }
        let mut rules = rules_of(role);
        if role["aggregationRule"].is_object() && !same("aggregationRule") {
            // What will be aggregated is not known yet: it may be everything.
            let all = || vec!["*".to_owned()];
            rules.push(Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() });
            rules.push(Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() });
        }
        self.confirm(write, &rules)
    }

    fn binding(&self, write: &Attributes<'_>, binding: &Value) -> Result<(), Status> {
        let same = |field: &str| write.old.is_some_and(|old| old[field] == binding[field]);
        if write.operation == Operation::Update && same("roleRef") && same("subjects") {
            return Ok(());
        }
        let text = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default();
        let (kind, name) = (text("kind"), text("name"));
        let resource = if kind == "ClusterRole" { "clusterroles" } else { "roles" };
        if self.may(write, "bind", resource, name) {
            return Ok(());
        }
        let rules = self.authorizers.rbac.snapshot().role(kind, name, &write.info.namespace);
        let rules = rules.ok_or_else(|| Status::not_found(GROUP, resource, name))?;
        self.confirm(write, &rules)
    }

    fn may(&self, write: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
        let namespace = &write.info.namespace;
        let blank = Question::blank(write.user);
        self.authorizers.allows(&Question { verb, is_resource: true, group: GROUP, version: "v1", resource, namespace, name, ..blank })
    }

    fn confirm(&self, write: &Attributes<'_>, wanted: &[Rule]) -> Result<(), Status> {
        let (owned, _) = self.authorizers.rbac.snapshot().rules(write.user, &write.info.namespace);
        let missing = covers(&owned, wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let user = write.user;
        let list: Vec<String> = missing.iter().map(shown).collect();
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            list.join("\n")
        );
        Err(refuse(write, &why))
    }
}

/// A rule as upstream shows it here: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
fn shown(rule: &Rule) -> String {
    let fields = [
        ("NonResourceURLs", &rule.non_resource_urls),
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> = fields.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}")).collect();
    format!("{{{}}}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_as_upstream_does() {
        let rule = Rule { verbs: vec!["get".into()], api_groups: vec![String::new()], resources: vec!["pods".into()], ..Rule::default() };
        assert_eq!(shown(&rule), r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#);
    }
}
