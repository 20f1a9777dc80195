//! The APIServices of what is served here: one for each version of each group, made and kept by this server. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use coracle_api::catalogue::Catalogue;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    order,
    service::{AUTOMANAGED, ApiService},
};
use crate::{resource_metrics, strategy::meta};

/// An APIService that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    group: String,
    version: String,
    priorities: (i64, i64),
    /// Comes with a definition, and goes with it; what does not is looked after only when the server starts.
    defined: bool,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is missing.
    Create(Wanted),
    /// It was made for another priority.
    Update(Wanted),
    /// What it was made for is served no more.
    Delete {
        /// Of the APIService.
        name: String,
        /// Of the APIService.
        uid: String,
    },
    /// It is served here, and does not say so.
    Available(String),
}

impl Wanted {
    /// `v1.apps`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.version, self.group)
    }

    /// Its spec.
    pub fn spec(&self) -> Value {
        let (group_priority, version_priority) = self.priorities;
        let numbers = json!({"version": self.version, "groupPriorityMinimum": group_priority, "versionPriority": version_priority});
        let mut spec = numbers.as_object().cloned().unwrap_or_default();
        if !self.group.is_empty() {
            spec.insert("group".into(), self.group.as_str().into());
        }
        spec.into()
    }

    /// The whole object.
    pub fn object(&self) -> Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": self.name(), "labels": {AUTOMANAGED: self.mode()}},
            "spec": self.spec(),
        })
    }

    fn mode(&self) -> &'static str {
        if self.defined { "true" } else { "onstart" }
    }

    fn is(&self, service: &ApiService) -> bool {
        let there = (service.group.as_str(), service.version.as_str(), service.group_priority, service.version_priority);
        service.remote.is_none() && there == (&self.group, &self.version, self.priorities.0, self.priorities.1)
    }
}

/// Of everything that is served here.
pub fn wanted(catalogue: &Catalogue) -> Vec<Wanted> {
    let (mut out, mut seen) = (Vec::new(), HashSet::new());
    for resource in catalogue.resources() {
        if !seen.insert((&resource.group, &resource.version)) {
            continue;
        }
        let builtin = order::builtin(&resource.group, &resource.version);
        let Some(priorities) = builtin.or(resource.custom.then_some(order::DEFINED)) else { continue };
        let (group, version) = (resource.group.clone(), resource.version.clone());
        out.push(Wanted { group, version, priorities, defined: builtin.is_none() });
    }
    out
}

/// What leads from the APIServices that are there to those that should be. Others' are left as they are.
pub fn plan(wanted: &[Wanted], services: &[Arc<ApiService>], at_start: bool) -> Vec<Step> {
    let there: HashMap<&str, &Arc<ApiService>> = services.iter().map(|service| (service.name.as_str(), service)).collect();
    let names: HashSet<String> = wanted.iter().map(Wanted::name).collect();
    let mut steps = Vec::new();
    for one in wanted.iter().filter(|one| one.defined || at_start) {
        match there.get(one.name().as_str()) {
            None => steps.push(Step::Create(one.clone())),
            // What an extension API server has taken over stays its own.
            Some(service) if one.group == resource_metrics::GROUP && service.remote.is_some() => {}
            Some(service) if service.automanaged.as_deref() == Some(one.mode()) && !one.is(service) => {
                steps.push(Step::Update(one.clone()))
            }
            Some(_) => {}
        }
    }
    for service in services {
        let ours = match service.automanaged.as_deref() {
            Some("true") => true,
            Some("onstart") => at_start,
            _ => false,
        };
        if ours && !names.contains(&service.name) {
            steps.push(Step::Delete { name: service.name.clone(), uid: service.uid.clone() });
        } else if service.remote.is_none()
            && service.available.as_ref().is_none_or(|(status, reason)| status != "True" || reason != "Local")
        {
            steps.push(Step::Available(service.name.clone()));
        }
    }
    steps
}

/// An APIService with another word on its availability; the time counts only where the status changes.
pub fn with_condition(service: &Value, status: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut new = service.clone();
    let mut conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old = conditions.iter().position(|condition| condition["type"] == "Available");
    let since = old.filter(|at| conditions[*at]["status"] == status).map(|at| conditions[at]["lastTransitionTime"].clone());
    let since = since.filter(Value::is_string).unwrap_or_else(|| meta::time(now).into());
    let condition = json!({"type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    match old {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    meta::map(&mut new, "status").insert("conditions".into(), conditions.into());
    new
}

#[cfg(test)]
mod tests {
    use coracle_api::catalogue::builtin;

    use super::*;

    fn one(group: &str, priorities: (i64, i64), defined: bool) -> Wanted {
        Wanted { group: group.into(), version: "v1".into(), priorities, defined }
    }

    fn there(wanted: &Wanted, change: impl FnOnce(&mut ApiService)) -> Arc<ApiService> {
        let mut service = ApiService::read(&wanted.object());
        service.available = Some(("True".into(), "Local".into()));
        service.uid = "u".into();
        change(&mut service);
        Arc::new(service)
    }

    #[test]
    fn built_in_groups_have_one_each() {
        let all = wanted(builtin());
        let names: Vec<String> = all.iter().map(Wanted::name).collect();
        assert!(names.contains(&"v1.".to_owned()) && names.contains(&"v2.autoscaling".to_owned()));
        assert!(!names.iter().any(|name| name.contains("apiregistration")), "who serves them needs none");
        assert_eq!(all[0].spec(), json!({"version": "v1", "groupPriorityMinimum": 18_000, "versionPriority": 1}));
        let services: Vec<Arc<ApiService>> = all.iter().map(|wanted| there(wanted, |_| {})).collect();
        assert_eq!(plan(&all, &services, true), []);
    }

    #[test]
    fn steps() {
        let (builtin, defined) = (one("apps", (17_800, 15), false), one("a.test", order::DEFINED, true));
        let check = |wanted: &[Wanted], services: &[Arc<ApiService>], at_start: bool, expected: &[Step]| {
            assert_eq!(plan(wanted, services, at_start), expected);
        };
        let both = [builtin.clone(), defined.clone()];
        check(&both, &[], true, &[Step::Create(builtin.clone()), Step::Create(defined.clone())]);
        // What an administrator has deleted stays deleted until the next start.
        check(&both, &[], false, &[Step::Create(defined.clone())]);
        let delete = |name: &str| Step::Delete { name: name.into(), uid: "u".into() };
        check(&[], &[there(&builtin, |_| {}), there(&defined, |_| {})], false, &[delete("v1.a.test")]);
        check(&[], &[there(&builtin, |_| {})], true, &[delete("v1.apps")]);
        let moved = there(&defined, |service| service.group_priority = 1);
        let only = [defined.clone()];
        check(&only, &[moved], false, &[Step::Update(defined.clone())]);
        let theirs = there(&defined, |service| (service.group_priority, service.automanaged) = (1, None));
        let theirs = [theirs];
        check(&only, &theirs, false, &[]);
        check(&[], &theirs, true, &[]);
        let metrics = one(resource_metrics::GROUP, (100, 100), false);
        let server = json!({"namespace": "kube-system", "name": "metrics-server"});
        let taken = there(&metrics, |service| {
            let mut object = metrics.object();
            object["spec"]["service"] = server;
            *service = ApiService::read(&object);
        });
        check(&[metrics], &[taken], true, &[]);
        let silent = there(&defined, |service| service.available = None);
        check(&only, &[silent], false, &[Step::Available("v1.a.test".into())]);
    }

    #[test]
    fn a_condition_keeps_its_time() {
        let now = |second| Timestamp::from_second(second).expect("a time");
        let other = json!({"status": {"conditions": [{"type": "Other"}]}});
        let first = with_condition(&other, "False", "A", "a", now(0));
        let second = with_condition(&first, "False", "B", "b", now(60));
        let third = with_condition(&second, "True", "C", "c", now(60));
        let time = |service: &Value| service["status"]["conditions"][1]["lastTransitionTime"].clone();
        assert_eq!(time(&first), "1970-01-01T00:00:00Z");
        assert_eq!((time(&second), &second["status"]["conditions"][1]["reason"]), (time(&first), &json!("B")));
        assert_eq!(time(&third), "1970-01-01T00:01:00Z");
        assert_eq!(third["status"]["conditions"][0], json!({"type": "Other"}));
    }
}
