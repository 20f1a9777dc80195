//! Scopes: the part of the objects that a quota is about.

use std::fmt;

use serde_json::Value;

use super::{Measure, Traits, texts};

/// One condition on an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// `BestEffort`, `PriorityClass`, ...
    pub name: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Scope {
    /// The scopes of a quota's spec; all have to hold.
    pub fn all(spec: &Value) -> Vec<Self> {
        let plain = texts(&spec["scopes"]).map(|name| Self { name: name.into_owned(), operator: Operator::Exists });
        let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().map(|expression| {
            let values = || texts(&expression["values"]).map(|value| value.into_owned()).collect();
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In(values()),
                Some("NotIn") => Operator::NotIn(values()),
                Some("DoesNotExist") => Operator::DoesNotExist,
                _ => Operator::Exists,
            };
            Self { name: expression["scopeName"].as_str().unwrap_or_default().to_owned(), operator }
        });
        plain.chain(selected).collect()
    }

    /// Whether the class that an object names, if any, is meant.
    fn means(&self, class: Option<&str>) -> bool {
        match (&self.operator, class) {
            (Operator::In(values), Some(class)) => values.iter().any(|value| value == class),
            (Operator::In(_), None) | (Operator::Exists, None) | (Operator::DoesNotExist, Some(_)) => false,
            (Operator::NotIn(values), Some(class)) => values.iter().all(|value| value != class),
            (Operator::NotIn(_), None) | (Operator::Exists, Some(_)) | (Operator::DoesNotExist, None) => true,
        }
    }
}

impl fmt::Display for Scope {
    /// As Go prints it, which is how clients are told of it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operator, values): (&str, &[String]) = match &self.operator {
            Operator::In(values) => ("In", values),
            Operator::NotIn(values) => ("NotIn", values),
            Operator::Exists => ("Exists", &[]),
            Operator::DoesNotExist => ("DoesNotExist", &[]),
        };
        write!(f, "{{{} {operator} [{}]}}", self.name, values.join(" "))
    }
}

impl Measure {
    /// Whether the object is in all of the scopes.
    pub fn is_in(&self, scopes: &[Scope]) -> bool {
        scopes.iter().all(|scope| self.is_in_one(scope))
    }

    pub(super) fn is_in_one(&self, scope: &Scope) -> bool {
        match (&self.traits, scope.name.as_str()) {
            (Traits::Pod { terminating, .. }, "Terminating") => *terminating,
            (Traits::Pod { terminating, .. }, "NotTerminating") => !*terminating,
            (Traits::Pod { best_effort, .. }, "BestEffort") => *best_effort,
            (Traits::Pod { best_effort, .. }, "NotBestEffort") => !*best_effort,
            (Traits::Pod { across, .. }, "CrossNamespacePodAffinity") => *across,
            (Traits::Pod { priority_class, .. }, "PriorityClass") => scope.means(Some(priority_class.as_str()).filter(|c| !c.is_empty())),
            (Traits::VolumeClaim { attributes_classes }, "VolumeAttributesClass") if attributes_classes.is_empty() => scope.means(None),
            (Traits::VolumeClaim { attributes_classes }, "VolumeAttributesClass") => {
                attributes_classes.iter().any(|class| scope.means(Some(class)))
            }
            _ => false,
        }
    }
}
