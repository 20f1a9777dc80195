//! Which names a definition gets, and the conditions that say so.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, builtin};

/// Who may define kinds in Kubernetes' own groups says where that was agreed on.
pub const APPROVED: &str = "api-approved.kubernetes.io";

/// Names that are taken in one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// What the built-in kinds of a group take.
    pub fn by_builtin(group: &str) -> Self {
        let mut taken = Self::default();
        let of_group = |all: &'static Catalogue| all.resources().iter().filter(move |r| r.group == group);
        for resource in of_group(builtin()) {
            taken.resources.extend([resource.plural.clone(), resource.singular.clone()]);
            taken.resources.extend(resource.short_names.iter().cloned());
            taken.kinds.extend([resource.kind.clone(), resource.list_kind.clone()]);
        }
        taken.resources.remove("");
        taken
    }

    /// Adds the names that a definition was given.
    pub fn add(&mut self, accepted: &Value) {
        let text = |field: &str| accepted[field].as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        self.resources.extend(["plural", "singular"].into_iter().filter_map(text));
        self.resources.extend(accepted["shortNames"].as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)));
        self.kinds.extend(["kind", "listKind"].into_iter().filter_map(text));
    }
}

/// The status that a definition should have, when the others of its group have taken these names.
pub fn status(definition: &Value, taken: &Taken, now: Timestamp) -> Value {
    let old = &definition["status"];
    let (names, conflict) = accept(&definition["spec"]["names"], &old["acceptedNames"], taken);
    let mut conditions: Vec<Value> = old["conditions"].as_array().cloned().unwrap_or_default();
    let established = conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True");
    match &conflict {
        None => set(&mut conditions, "NamesAccepted", true, "NoConflicts", "no conflicts found", now),
        Some((reason, why)) => set(&mut conditions, "NamesAccepted", false, reason, why, now),
    }
    if !established {
        match &conflict {
            None => set(&mut conditions, "Established", true, "InitialNamesAccepted", "the initial names have been accepted", now),
            Some(_) => set(&mut conditions, "Established", false, "NotAccepted", "not all names are accepted", now),
        }
    }
    if let Some((approved, reason, message)) = approval(definition) {
        set(&mut conditions, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message, now);
    }
    let mut status = old.as_object().cloned().unwrap_or_default();
    status.insert("acceptedNames".into(), names);
    status.insert("conditions".into(), conditions.into());
    status.into()
}

/// Puts a condition into a list, in the place of the one of its type; its time changes with its status only.
pub fn set(conditions: &mut Vec<Value>, kind: &str, status: bool, reason: &str, message: &str, now: Timestamp) {
    let word = if status { "True" } else { "False" };
    let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({"type": kind, "status": word, "lastTransitionTime": time, "reason": reason, "message": message});
    match conditions.iter_mut().find(|c| c["type"] == kind) {
        Some(old) if old["status"] == word => {
            old["reason"] = reason.into();
            old["message"] = message.into();
        }
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

/// The names that can be given, and the reason and words for the first that cannot.
fn accept(wanted: &Value, given: &Value, taken: &Taken) -> (Value, Option<(&'static str, String)>) {
    let mut names: Map<String, Value> = given.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    let mut clash = |reason: &'static str, name: &str| conflict = Some((reason, format!("{name:?} is already in use")));
    for (field, reason, all) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let name = wanted[field].as_str().unwrap_or_default();
        if name != given[field].as_str().unwrap_or_default() && all.contains(name) {
            clash(reason, name);
        } else if name.is_empty() && !matches!(field, "plural" | "kind") {
            names.remove(field);
        } else {
            names.insert(field.into(), name.into());
        }
    }
    let list =
        |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect() };
    let (short, ours) = (list(&wanted["shortNames"]), list(&given["shortNames"]));
    match short.iter().find(|name| !ours.contains(name) && taken.resources.contains(*name)) {
        Some(name) => clash("ShortNamesConflict", name),
        None => put(&mut names, "shortNames", short),
    }
    put(&mut names, "categories", list(&wanted["categories"]));
    (names.into(), conflict)
}

fn put(names: &mut Map<String, Value>, field: &str, words: Vec<String>) {
    if words.is_empty() {
        names.remove(field);
    } else {
        names.insert(field.into(), words.into());
    }
}

/// Whether the group is Kubernetes' own.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"].iter().any(|own| group.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// Whether the annotation's text is an approval: a URL, or the word for those that need none.
pub fn is_approval(text: &str) -> bool {
    text.starts_with("unapproved") || (text.split_once("://").is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty()))
}

fn approval(definition: &Value) -> Option<(bool, &'static str, String)> {
    if !is_protected(definition["spec"]["group"].as_str().unwrap_or_default()) {
        return None;
    }
    Some(match definition["metadata"]["annotations"][APPROVED].as_str() {
        None | Some("") => (false, "MissingAnnotation", format!("protected groups must have approval annotation {APPROVED:?}")),
        Some(text) if text.starts_with("unapproved") => (false, "UnapprovedAPI", format!("not approved: {text:?}")),
        Some(text) if is_approval(text) => (true, "ApprovedAnnotation", format!("approved in {text}")),
        Some(text) => {
            (false, "InvalidAnnotation", format!("protected groups must have approval annotation {APPROVED:?} with a URL, got {text:?}"))
        }
    })
}
