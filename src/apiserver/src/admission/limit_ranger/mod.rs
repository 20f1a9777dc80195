//! LimitRanger: containers get what the LimitRanges of their namespace give those that ask for nothing, and nobody asks for more or less than they allow.

mod defaults;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::{
    amounts::{Amounts, of_claim, of_container, of_pod},
    quantity::Quantity,
    status::Status,
};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::objects::Objects;

/// The plugin.
#[derive(Debug)]
pub struct LimitRanger {
    /// Where LimitRanges are looked up.
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate, Say::Validate]
    }

    async fn mutate(&self, write: &Attributes<'_>, pod: &mut Value) -> Result<(), Status> {
        if write.is("", "pods") && write.operation == Operation::Create && write.info.subresource.is_empty() {
            for range in self.ranges(write) {
                defaults::apply(&range, pod);
            }
        }
        Ok(())
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(object) = object.filter(|_| concerns(write)) else { return Ok(()) };
        // What is going may ask for what it likes.
        if write.operation == Operation::Update && object["metadata"]["deletionTimestamp"].is_string() {
            return Ok(());
        }
        let mut found = Vec::new();
        for range in self.ranges(write) {
            for limit in range["spec"]["limits"].as_array().into_iter().flatten() {
                found.extend(violations(limit, &write.info.resource, object));
            }
        }
        match found.as_slice() {
            [] => Ok(()),
            [one] => Err(refuse(write, one)),
            several => Err(refuse(write, &format!("[{}]", several.join(", ")))),
        }
    }
}

impl LimitRanger {
    fn ranges(&self, write: &Attributes<'_>) -> Vec<Value> {
        self.objects.list("", "limitranges", &write.info.namespace)
    }
}

/// Pods when they are made or resized, and claims.
fn concerns(write: &Attributes<'_>) -> bool {
    match (write.operation, write.info.subresource.as_str()) {
        (Operation::Create, "") => write.is("", "pods") || write.is("", "persistentvolumeclaims"),
        (Operation::Update, "") => write.is("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => write.is("", "pods"),
        _ => false,
    }
}

/// What an object asks for that one item of a LimitRange does not allow.
fn violations(limit: &Value, resource: &str, object: &Value) -> Vec<String> {
    let kind = limit["type"].as_str().unwrap_or_default();
    match (kind, resource) {
        ("Container", "pods") => {
            let lists = ["initContainers", "containers"].into_iter();
            let containers = lists.flat_map(|list| object["spec"][list].as_array().into_iter().flatten());
            containers.flat_map(|container| compare(limit, kind, &of_container(container))).collect()
        }
        ("Pod", "pods") => compare(limit, kind, &of_pod(&object["spec"])),
        ("PersistentVolumeClaim", "persistentvolumeclaims") => compare(limit, kind, &of_claim(&object["spec"])),
        _ => Vec::new(),
    }
}

/// Each bound of a map, with the name of its resource.
fn bounds<'a>(limit: &'a Value, which: &str) -> impl Iterator<Item = (&'a str, Quantity)> + use<'a> {
    let map = limit[which].as_object().into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.parse().ok()?)))
}

fn compare(limit: &Value, kind: &str, asked: &Amounts) -> Vec<String> {
    let mut out = Vec::new();
    // A claim has only requests: they stand for both.
    let is_claim = kind == "PersistentVolumeClaim";
    for (name, least) in bounds(limit, "min") {
        match (asked.request(name), asked.limit(name)) {
            (None, _) => out.push(format!("minimum {name} usage per {kind} is {least}. No request is specified")),
            (Some(request), _) if request < least => {
                out.push(format!("minimum {name} usage per {kind} is {least}, but request is {request}"));
            }
            (_, Some(most)) if most < least => out.push(format!("minimum {name} usage per {kind} is {least}, but limit is {most}")),
            _ => {}
        }
    }
    for (name, most) in bounds(limit, "max") {
        match (asked.request(name), asked.limit(name)) {
            (_, None) if !is_claim => out.push(format!("maximum {name} usage per {kind} is {most}. No limit is specified")),
            (_, Some(own)) if own > most => out.push(format!("maximum {name} usage per {kind} is {most}, but limit is {own}")),
            (Some(request), _) if request > most => {
                out.push(format!("maximum {name} usage per {kind} is {most}, but request is {request}"));
            }
            _ => {}
        }
    }
    for (name, ratio) in bounds(limit, "maxLimitRequestRatio") {
        let given = |amount: Option<Quantity>| amount.filter(|amount| amount.signum() > 0);
        let what = format!("{name} max limit to request ratio per {kind} is {ratio}");
        match (given(asked.request(name)), given(asked.limit(name))) {
            (None, _) => out.push(format!("{what}, but no request is specified or request is 0")),
            (_, None) => out.push(format!("{what}, but no limit is specified or limit is 0")),
            (Some(request), Some(own)) => {
                let (own, request) = (i128::from(own.millis()), i128::from(request.millis()));
                if own * 1000 > i128::from(ratio.millis()) * request {
                    out.push(format!("{what}, but provided ratio is {}.{:03}", own / request, own * 1000 / request % 1000));
                }
            }
        }
    }
    out
}
