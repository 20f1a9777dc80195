//! ValidatingAdmissionPolicy: says in a policy's status what is wrong with its expressions for the kinds that it is about.

use async_trait::async_trait;
use coracle_api::{
    catalogue::{Resource, api_version, builtin},
    cel::{
        Type,
        typecheck::{self, Remark, Subject},
    },
    custom::checks::Checks,
};
use coracle_client::{Informers, Key, Lister};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use crate::{
    plan::{Patch, Plan, Target, document},
    runner::{Controller, Past, Wakeups},
    writer::{Refused, refused},
};

/// Serves validating policies.
pub struct Policies {
    client: Client,
    policies: Lister<ValidatingAdmissionPolicy>,
}

impl Policies {
    /// Subscribes to policies.
    pub fn new(client: Client, informers: &Informers, wakeups: &Wakeups) -> Self {
        let policies = informers.of::<ValidatingAdmissionPolicy>();
        wakeups.watch(&policies, |_, new| new.filter(|policy| is_new(policy)).map(Key::of).into_iter().collect());
        Self { client, policies: policies.lister() }
    }

    /// All definitions of custom kinds, for policies that are about some.
    async fn definitions(&self) -> Result<Vec<Value>, Refused> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind);
        let list = api.list(&Default::default()).await.map_err(|e| refused(&e))?;
        Ok(list.items.into_iter().map(|definition| definition.data["spec"].clone()).collect())
    }
}

/// Whether its status does not speak of its present spec.
fn is_new(policy: &ValidatingAdmissionPolicy) -> bool {
    let seen = policy.status.as_ref().and_then(|status| status.observed_generation);
    policy.metadata.deletion_timestamp.is_none() && seen < policy.metadata.generation
}

#[async_trait]
impl Controller for Policies {
    fn name(&self) -> &'static str {
        "validatingadmissionpolicy-status"
    }

    async fn plan(&self, key: &Key, _now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(policy) = self.policies.get(key).filter(|policy| is_new(policy)) else { return Ok(Plan::default()) };
        let spec = document(&policy.spec);
        let custom = if all_built_in(&spec) { Vec::new() } else { self.definitions().await? };
        Ok(plan(&policy, &spec, &custom))
    }

    fn keys(&self) -> Vec<Key> {
        self.policies.list().iter().filter(|policy| is_new(policy)).map(|policy| Key::of(&**policy)).collect()
    }
}

/// Group and version of the parameters, and their kind.
fn param_kind(spec: &Value) -> Option<(&str, &str, &str)> {
    let (at, kind) = (spec["paramKind"]["apiVersion"].as_str()?, spec["paramKind"]["kind"].as_str()?);
    let (group, version) = at.split_once('/').unwrap_or(("", at));
    Some((group, version, kind))
}

fn all_built_in(spec: &Value) -> bool {
    let named = typecheck::named(spec).iter().all(|[group, version, plural]| builtin().resource(group, version, plural).is_some());
    named && param_kind(spec).is_none_or(|(group, version, kind)| builtin().kind(group, version, kind).is_some())
}

/// A version of a custom kind.
struct Custom {
    names: [String; 4],
    checks: Checks,
}

fn customs(definitions: &[Value]) -> Vec<Custom> {
    let of = |spec: &Value| -> Vec<Custom> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (group, names) = (text(&spec["group"]), &spec["names"]);
        let versions = spec["versions"].as_array().into_iter().flatten();
        versions
            .map(|version| Custom {
                names: [group.clone(), text(&version["name"]), text(&names["plural"]), text(&names["kind"])],
                checks: Checks::read(&version["schema"]["openAPIV3Schema"]),
            })
            .collect()
    };
    definitions.iter().flat_map(of).collect()
}

/// Reports on the policy, once for each of its generations.
fn plan(policy: &ValidatingAdmissionPolicy, spec: &Value, definitions: &[Value]) -> Plan {
    let customs = customs(definitions);
    let told = |group: &str, version: &str, kind: &str| format!("{}, Kind={kind}", api_version(group, version));
    let own = |resource: &'static Resource| Subject {
        name: told(&resource.group, &resource.version, &resource.kind),
        object: Type::of_schema(&resource.schema),
    };
    let mut subjects: Vec<Subject<'_>> = Vec::new();
    for [group, version, plural] in typecheck::named(spec) {
        let found = builtin().resource(&group, &version, &plural).map(|resource| own(resource));
        let custom = || {
            let custom = customs.iter().find(|c| c.names[..3] == [group.as_str(), &version, &plural])?;
            let object = Type::of(&custom.checks, true).unwrap_or(Type::Dyn);
            Some(Subject { name: told(&group, &version, &custom.names[3]), object })
        };
        subjects.extend(found.or_else(custom));
    }
    subjects.sort_by(|a, b| a.name.cmp(&b.name));
    let params = param_kind(spec).and_then(|(group, version, kind)| {
        let found = builtin().kind(group, version, kind).map(|resource| Type::of_schema(&resource.schema));
        let is = |c: &&Custom| (c.names[0].as_str(), c.names[1].as_str(), c.names[3].as_str()) == (group, version, kind);
        found.or_else(|| customs.iter().find(is).and_then(|custom| Type::of(&custom.checks, true)))
    });
    let remarks = typecheck::remarks(spec, &subjects, params.as_ref());
    let warning = |remark: &Remark| json!({"fieldRef": remark.field, "warning": remark.text});
    let warnings = if remarks.is_empty() { Value::Null } else { remarks.iter().map(warning).collect() };
    let status = json!({"observedGeneration": policy.metadata.generation, "typeChecking": {"expressionWarnings": warnings}});
    let patch = Patch { subresource: Some("status"), ..Patch::merge(Target::of(policy), json!({ "status": status })) };
    Plan { status: Some(patch), ..Plan::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: Value) -> ValidatingAdmissionPolicy {
        serde_json::from_value(json!({"metadata": {"name": "p", "generation": 2}, "spec": spec, "status": {"observedGeneration": 1}}))
            .unwrap()
    }

    fn warnings(spec: Value, definitions: &[Value]) -> Value {
        let policy = policy(spec);
        assert!(is_new(&policy));
        let status = plan(&policy, &document(&policy.spec), definitions).status.unwrap().body["status"].clone();
        assert_eq!(status["observedGeneration"], 2);
        status["typeChecking"]["expressionWarnings"].clone()
    }

    #[test]
    fn a_policy_is_told_what_its_kinds_do_not_have() {
        let spec = |group: &str, plural: &str, expression: &str| {
            json!({"matchConstraints": {"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [plural], "operations": ["*"]}]},
                "validations": [{"expression": expression}]})
        };
        assert_eq!(warnings(spec("apps", "deployments", "object.spec.replicas > 1"), &[]), Value::Null);
        let found = warnings(spec("apps", "deployments", "object.spec.nope > 1"), &[]);
        assert_eq!(found[0]["fieldRef"], "spec.validations[0].expression");
        assert!(found[0]["warning"].as_str().unwrap().starts_with("apps/v1, Kind=Deployment: undefined field 'nope'"));
        let boats = json!({"group": "sea.test", "names": {"plural": "boats", "kind": "Boat"}, "versions": [{"name": "v1", "schema":
            {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"crew": {"type": "integer"}}}}}}}]});
        assert_eq!(warnings(spec("sea.test", "boats", "object.spec.crew > 1"), std::slice::from_ref(&boats)), Value::Null);
        assert_ne!(warnings(spec("sea.test", "boats", "object.spec.crew > 'a'"), &[boats]), Value::Null);
        assert_eq!(warnings(spec("gone.test", "boats", "object.spec.crew > 'a'"), &[]), Value::Null);
    }
}
