//! ResourceQuota: its status says what its spec allows and what is used of that.

use std::collections::BTreeMap;

use coracle_api::{amounts::Map, quantity::Quantity};
use k8s_openapi::{
    api::core::v1::{ResourceQuota, ResourceQuotaStatus},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use crate::plan::{Patch, Plan, Target};

type Texts = BTreeMap<String, Text>;

/// Whether the status has taken in what the spec allows.
pub fn is_settled(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    quota.status.as_ref().is_some_and(|status| status.used.is_some() && same(status.hard.as_ref(), hard))
}

/// Tells what was counted; of names that nobody counts, what was said before.
pub fn plan(quota: &ResourceQuota, counted: &Map) -> Plan {
    let hard = quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default();
    let before = quota.status.clone().unwrap_or_default();
    let told = before.used.clone().unwrap_or_default();
    let used: Texts = hard
        .keys()
        .filter_map(|name| {
            let counted = counted.get(name).map(|amount| Text(amount.to_string()));
            // The same amount in other words is no news.
            let stays = told.get(name).filter(|told| counted.as_ref().is_none_or(|counted| number(counted) == number(told)));
            Some((name.clone(), stays.cloned().or(counted)?))
        })
        .collect();
    let after = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
    let status = if quota.status.is_some() && same(before.hard.as_ref(), after.hard.as_ref()) && before.used == after.used {
        None
    } else {
        Patch::status(Target::of(quota), quota.status.as_ref(), &after)
    };
    Plan { status, ..Plan::default() }
}

fn number(text: &Text) -> Option<Quantity> {
    text.0.parse().ok()
}

fn same(a: Option<&Texts>, b: Option<&Texts>) -> bool {
    let none = Texts::new();
    let (a, b) = (a.unwrap_or(&none), b.unwrap_or(&none));
    a.len() == b.len() && a.iter().zip(b).all(|((name, a), (other, b))| name == other && number(a) == number(b))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(status: Value, counted: &[(&str, &str)], expected: Value) {
        let quota: ResourceQuota = serde_json::from_value(json!({"metadata": {"name": "q", "namespace": "a"},
            "spec": {"hard": {"pods": "5", "memory": "1Gi", "example.com/unknown": "1"}}, "status": status}))
        .unwrap();
        let counted: Map = counted.iter().map(|(name, amount)| ((*name).to_owned(), amount.parse().unwrap())).collect();
        let body = plan(&quota, &counted).status.map_or(Value::Null, |patch| patch.body["status"].clone());
        assert_eq!(body, expected);
    }

    #[test]
    fn the_status_follows_the_count() {
        let counted = [("pods", "2"), ("memory", "512Mi")];
        let hard = json!({"pods": "5", "memory": "1Gi", "example.com/unknown": "1"});
        check(Value::Null, &counted, json!({"hard": hard, "used": {"memory": "512Mi", "pods": "2"}}));
        check(json!({"hard": hard, "used": {"pods": "2", "memory": "536870912"}}), &counted, Value::Null);
        check(
            json!({"hard": hard, "used": {"pods": "3", "memory": "512Mi", "gone": "1"}}),
            &counted,
            json!({"used": {"gone": null, "pods": "2"}}),
        );
        let unknown = json!({"hard": hard, "used": {"pods": "3", "memory": "512Mi", "example.com/unknown": "1"}});
        check(unknown, &counted, json!({"used": {"pods": "2"}}));
        check(
            json!({"hard": {"pods": "5"}, "used": {"pods": "2", "memory": "512Mi"}}),
            &counted,
            json!({"hard": {"memory": "1Gi", "example.com/unknown": "1"}}),
        );
    }
}
