//! Limited resources: what nobody may take at all, unless a quota says how much of it.

use std::collections::BTreeSet;

use super::{Ask, Limits, Scope};

/// A rule of the operator, on the objects of one resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// API group.
    pub group: String,
    /// Plural.
    pub resource: String,
    /// A name with one of these in it is limited.
    pub contains: Vec<String>,
    /// An object in one of these is.
    pub scopes: Vec<Scope>,
}

/// Why a write is refused that no quota is about; the texts are upstream's, as clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncovered {
    /// No quota limits what it takes.
    #[error("insufficient quota to consume: {0}")]
    Names(String),
    /// No quota has the scopes that it is in.
    #[error("insufficient quota to match these scopes: [{0}]")]
    Scopes(String),
}

impl Ask<'_> {
    /// Whether the quotas of the namespace are about all that is limited in the write.
    pub fn check(&self, (group, resource): (&str, &str), limited: &[Limited], quotas: &[Limits]) -> Result<(), Uncovered> {
        let measure = &self.after;
        let of_resource = || limited.iter().filter(|rule| (rule.group.as_str(), rule.resource.as_str()) == (group, resource));
        let names = measure.usage.iter().filter(|(_, amount)| amount.signum() > 0).map(|(name, _)| name.as_str());
        let mut due: BTreeSet<&str> =
            names.filter(|name| of_resource().flat_map(|rule| &rule.contains).any(|part| name.contains(part.as_str()))).collect();
        for limits in quotas.iter().filter(|limits| limits.covers(measure)) {
            limits.names().filter(|name| self.kind.governs(name)).for_each(|name| _ = due.remove(name));
        }
        if !due.is_empty() {
            return Err(Uncovered::Names(due.into_iter().collect::<Vec<_>>().join(",")));
        }
        // Whatever the other scopes of its quota say of the object.
        let has =
            |scope: &Scope| quotas.iter().flat_map(|limits| &limits.scopes).any(|own| own.name == scope.name && measure.is_in_one(own));
        let scopes = limited.iter().flat_map(|rule| &rule.scopes).filter(|scope| measure.is_in_one(scope) && !has(scope));
        let scopes: Vec<String> = scopes.map(ToString::to_string).collect();
        if scopes.is_empty() { Ok(()) } else { Err(Uncovered::Scopes(scopes.join(" "))) }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::quota::Kind;

    fn check(limited: &Value, quotas: &[Value], resource: &str, object: &Value) -> Result<(), String> {
        let scopes = |rule: &Value| Scope::all(&json!({"scopeSelector": {"matchExpressions": rule["matchScopes"]}}));
        let contains =
            |rule: &Value| rule["matchContains"].as_array().into_iter().flatten().map(|part| part.as_str().unwrap().to_owned()).collect();
        let rule = |rule: &Value| Limited {
            resource: rule["resource"].as_str().unwrap().to_owned(),
            contains: contains(rule),
            scopes: scopes(rule),
            ..Limited::default()
        };
        let limited: Vec<Limited> = limited.as_array().unwrap().iter().map(rule).collect();
        let quotas: Vec<Limits> = quotas.iter().map(Limits::of).collect();
        let kind = Kind::of("", resource).unwrap();
        Ask::of(&kind, object, None, Timestamp::UNIX_EPOCH).check(("", resource), &limited, &quotas).map_err(|error| error.to_string())
    }

    fn quota(spec: Value, hard: Value) -> Value {
        json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": {}}})
    }

    #[test]
    fn what_is_limited_needs_a_quota() {
        let limited = json!([{"resource": "pods", "matchContains": ["cpu", "example.com/"]}, {"resource": "services", "matchContains": ["loadbalancers"]}]);
        let pod = |requests: Value| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}});
        let cpu = || pod(json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(check(&limited, &[], "pods", &pod(json!({"memory": "1Gi"}))), Ok(()));
        let both = "insufficient quota to consume: cpu,requests.cpu";
        assert_eq!(check(&limited, &[], "pods", &cpu()), Err(both.into()));
        assert_eq!(check(&limited, &[quota(json!({}), json!({"memory": "9Gi"}))], "pods", &cpu()), Err(both.into()));
        let half = quota(json!({}), json!({"cpu": "9"}));
        assert_eq!(check(&limited, std::slice::from_ref(&half), "pods", &cpu()), Err("insufficient quota to consume: requests.cpu".into()));
        let other = quota(json!({}), json!({"requests.cpu": "9"}));
        assert_eq!(check(&limited, &[half, other], "pods", &cpu()), Ok(()), "two together");
        let elsewhere = quota(json!({"scopes": ["BestEffort"]}), json!({"cpu": "9", "requests.cpu": "9"}));
        assert_eq!(check(&limited, &[elsewhere], "pods", &cpu()), Err(both.into()), "a quota of other pods is about others");
        let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}]}});
        assert_eq!(check(&limited, &[], "services", &service("ClusterIP")), Ok(()));
        assert_eq!(
            check(&limited, &[], "services", &service("LoadBalancer")),
            Err("insufficient quota to consume: services.loadbalancers".into())
        );
        assert_eq!(check(&limited, &[], "secrets", &json!({})), Ok(()));
    }

    #[test]
    fn a_class_that_is_limited_needs_a_quota_of_it() {
        let selector = |values: &[&str]| json!([{"scopeName": "PriorityClass", "operator": "In", "values": values}]);
        let limited = json!([{"resource": "pods", "matchScopes": selector(&["high", "top"])}]);
        let pod = |class: &str| json!({"spec": {"priorityClassName": class, "containers": [{"name": "c"}]}});
        let with = |values: &[&str]| quota(json!({"scopeSelector": {"matchExpressions": selector(values)}}), json!({"pods": "1"}));
        assert_eq!(check(&limited, &[], "pods", &pod("low")), Ok(()));
        let why = "insufficient quota to match these scopes: [{PriorityClass In [high top]}]";
        assert_eq!(check(&limited, &[], "pods", &pod("high")), Err(why.into()));
        assert_eq!(check(&limited, &[with(&["top"])], "pods", &pod("high")), Err(why.into()));
        assert_eq!(check(&limited, &[with(&["high"])], "pods", &pod("high")), Ok(()));
    }
}
