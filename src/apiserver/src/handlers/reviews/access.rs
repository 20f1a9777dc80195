//! Access reviews: the question in one, and what must hold of it.

use std::collections::BTreeMap;

use coracle_api::status::Cause;
use serde_json::Value;

use crate::{authorization::Question, request::User};

/// A question that owns its words.
pub(super) struct Asked {
    user: User,
    resource: Option<[String; 7]>,
    path: Option<[String; 2]>,
    field_selector: String,
}

impl Asked {
    /// From a spec; `myself` stands in for the user that it does not name.
    pub fn of(spec: &Value, myself: Option<&User>) -> Self {
        let user = myself.cloned().unwrap_or_else(|| User {
            name: text(&spec["user"]),
            uid: text(&spec["uid"]),
            groups: strings(&spec["groups"]),
            extra: spec["extra"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, values)| (key.to_lowercase(), strings(values)))
                .collect::<BTreeMap<_, _>>(),
        });
        let attributes = &spec["resourceAttributes"];
        let resource = attributes
            .is_object()
            .then(|| ["verb", "group", "version", "resource", "subresource", "namespace", "name"].map(|field| text(&attributes[field])));
        let other = &spec["nonResourceAttributes"];
        let path = other.is_object().then(|| [text(&other["verb"]), text(&other["path"])]);
        Self { user, resource, path, field_selector: selector(&attributes["fieldSelector"]) }
    }

    /// The question.
    pub fn question(&self) -> Question<'_> {
        let blank = Question::blank(&self.user);
        match (&self.resource, &self.path) {
            (Some([verb, group, version, resource, subresource, namespace, name]), _) => Question {
                verb,
                is_resource: true,
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
                field_selector: &self.field_selector,
                ..blank
            },
            (None, Some([verb, path])) => Question { verb, path, ..blank },
            (None, None) => blank,
        }
    }
}

/// What is wrong with the spec of an access review.
pub(super) fn validate(kind: &str, spec: &Value, namespace: &str) -> Vec<Cause> {
    let cause = |reason, field: &str, message: &str| Cause { reason, field: field.into(), message: message.into() };
    let invalid = |field: &str, message: &str| cause("FieldValueInvalid", field, message);
    let mut out = Vec::new();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_object(), path.is_object()) {
        (true, true) => {
            out.push(invalid("spec.nonResourceAttributes", "Invalid value: cannot be specified in combination with resourceAttributes"))
        }
        (false, false) => {
            out.push(invalid(
                "spec.resourceAttributes",
                "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
        _ => {}
    }
    if kind != "SelfSubjectAccessReview" && text(&spec["user"]).is_empty() && strings(&spec["groups"]).is_empty() {
        out.push(invalid("spec.user", "Invalid value: \"\": at least one of user or group must be specified"));
    }
    if resource.is_object() {
        for (name, rank) in [("fieldSelector", false), ("labelSelector", true)] {
            requirements(&resource[name], &format!("spec.resourceAttributes.{name}"), rank, &mut out);
        }
        if kind == "LocalSubjectAccessReview" && text(&resource["namespace"]) != namespace {
            let message = format!("Invalid value: {:?}: must match metadata.namespace", text(&resource["namespace"]));
            out.push(invalid("spec.resourceAttributes.namespace", &message));
        }
    } else if kind == "LocalSubjectAccessReview" && path.is_object() {
        out.push(invalid("spec.nonResourceAttributes", "Invalid value: disallowed on this kind of request"));
    }
    out
}

/// A selector is raw, or a list of requirements, not both.
fn requirements(selector: &Value, field: &str, labels: bool, out: &mut Vec<Cause>) {
    if !selector.is_object() {
        return;
    }
    let raw = text(&selector["rawSelector"]);
    let list = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !raw.is_empty() && !list.is_empty() {
        let message = format!("Invalid value: {raw:?}: may not specified at the same time as requirements");
        out.push(Cause { reason: "FieldValueInvalid", field: format!("{field}.rawSelector"), message });
    } else if raw.is_empty() && list.is_empty() {
        let message = format!("Required value: when {field} is specified, requirements or rawSelector is required");
        out.push(Cause { reason: "FieldValueRequired", field: format!("{field}.requirements"), message });
    }
    for (index, requirement) in list.iter().enumerate() {
        let at = format!("{field}.requirements[{index}]");
        let (key, operator) = (text(&requirement["key"]), text(&requirement["operator"]));
        let values = strings(&requirement["values"]);
        if labels {
            if let Err(error) = coracle_api::names::qualified(&key) {
                let cause =
                    Cause { reason: "FieldValueInvalid", field: format!("{at}.key"), message: format!("Invalid value: {key:?}: {error}") };
                // Of nothing upstream says both that it is empty and that it has the wrong form.
                if key.is_empty() {
                    out.push(cause.clone());
                }
                out.push(cause);
            }
        } else if key.is_empty() {
            out.push(Cause {
                reason: "FieldValueRequired",
                field: format!("{at}.key"),
                message: "Required value: must be specified".into(),
            });
        }
        match operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let message = "Required value: must be specified when `operator` is 'In' or 'NotIn'".into();
                out.push(Cause { reason: "FieldValueRequired", field: format!("{at}.values"), message });
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let message = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'".into();
                out.push(Cause { reason: "FieldValueForbidden", field: format!("{at}.values"), message });
            }
            _ => {}
        }
    }
}

/// The requirements as the text that a request would carry, as far as authorizers look at it.
fn selector(selector: &Value) -> String {
    let raw = text(&selector["rawSelector"]);
    if !raw.is_empty() {
        return raw;
    }
    let list = selector["requirements"].as_array().into_iter().flatten();
    let terms = list.filter(|requirement| requirement["operator"] == "In").filter_map(|requirement| {
        let values = strings(&requirement["values"]);
        (values.len() == 1).then(|| format!("{}={}", text(&requirement["key"]), values[0]))
    });
    terms.collect::<Vec<_>>().join(",")
}

pub(super) fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
