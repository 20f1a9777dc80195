//! Events, which two groups have: what is asked depends on the group that a client writes in, not on the one that is stored.

use std::cell::RefCell;

use serde_json::Value;

use super::field::Field;
use super::rules::{immutable, qualified_name};
use crate::catalogue::Resource;
use crate::names;
use crate::status::Cause;

/// Characters of action, reason and reportingInstance.
const MAX_WORD: usize = 128;
/// Characters of the note.
const MAX_NOTE: usize = 1024;
/// What never changes in events.k8s.io; upstream asks for the reason twice.
const FINAL: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

/// What is wrong with an event in the core group's form, written by a client of the resource `asked`.
pub(super) fn check(asked: &Resource, event: &Value, old: Option<&Value>) -> Vec<Cause> {
    let causes = RefCell::default();
    let event = Field::root(event, &causes);
    let strict = !asked.group.is_empty();
    always(&event, if strict { "reportingController" } else { "reportingComponent" });
    match (strict, old) {
        (false, _) => {}
        (true, None) => strictly_new(&event),
        (true, Some(old)) => strictly_changed(&event, old),
    }
    causes.into_inner()
}

fn always(event: &Field<'_>, controller: &str) {
    let (involved, metadata) = (event.at("involvedObject"), event.at("metadata"));
    let (namespace, own) = (involved.at("namespace"), metadata.at("namespace").text());
    let said = namespace.text();
    let new = event.at("eventTime").exists();
    let agrees = match (said.is_empty(), new) {
        (true, true) => matches!(own, "default" | "kube-system"),
        (true, false) => matches!(own, "" | "default"),
        (false, true) => true,
        (false, false) => said == own,
    };
    if !agrees {
        namespace.invalid("does not match event.namespace");
    }
    if !new {
        return;
    }
    let told = event.called(controller);
    let controller = told.holding(event.at("reportingComponent").value());
    if controller.is_empty() {
        controller.required("");
    }
    controller.all_invalid(qualified_name(controller.text()));
    for name in ["reportingInstance", "action", "reason"] {
        let field = event.at(name);
        if field.is_empty() {
            field.required("");
        }
        at_most(&field, MAX_WORD);
    }
    at_most(&event.at("message"), MAX_NOTE);
}

fn at_most(field: &Field<'_>, limit: usize) {
    if field.text().len() > limit {
        field.invalid(&format!("can have at most {limit} characters"));
    }
}

fn strictly_new(event: &Field<'_>) {
    let metadata = event.at("metadata");
    let name = metadata.at("name");
    // What is no name of anything has been told already.
    if !name.is_empty() && names::path_segment(name.text()).is_ok() {
        name.valid_by(names::dns_subdomain);
    }
    series(&event.at("series"));
    if !event.at("eventTime").exists() {
        event.at("eventTime").required("");
    }
    let kind = event.at("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        kind.invalid("must be Normal or Warning");
    }
    for name in ["firstTimestamp", "lastTimestamp"] {
        if event.at(name).exists() {
            event.at(name).invalid("needs to be unset");
        }
    }
    if event.at("count").number() != 0 {
        event.at("count").invalid("needs to be unset");
    }
    let source = event.at("source");
    if !source.at("component").is_empty() || !source.at("host").is_empty() {
        source.invalid("needs to be unset");
    }
}

fn strictly_changed(event: &Field<'_>, old: &Value) {
    if event.at("series").value() != &old["series"] {
        series(&event.at("series"));
    }
    for name in FINAL {
        immutable(&event.at(name), &old[name]);
    }
    let controller = event.called("reportingController");
    immutable(&controller.holding(event.at("reportingComponent").value()), &old["reportingComponent"]);
}

fn series(series: &Field<'_>) {
    if !series.exists() {
        return;
    }
    if series.at("count").number() < 2 {
        series.at("count").invalid("should be at least 2");
    }
    if !series.at("lastObservedTime").exists() {
        series.at("lastObservedTime").required("");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalogue::builtin;

    fn told(group: &str, event: &Value, old: Option<&Value>) -> Vec<String> {
        let asked = builtin().resource(group, "v1", "events").expect("events");
        let mut fields: Vec<String> = check(asked, event, old).into_iter().map(|cause| cause.field).collect();
        fields.dedup();
        fields
    }

    #[test]
    fn the_newer_group_asks_for_more() {
        let good = json!({"metadata": {"name": "a", "namespace": "n"}, "involvedObject": {"namespace": "n"}, "eventTime": "t", "type": "Normal",
            "reason": "R", "action": "A", "reportingComponent": "c", "reportingInstance": "i"});
        let with = |field: &str, value: Value| {
            let mut event = good.clone();
            event[field] = value;
            event
        };
        for (event, core, newer) in [
            (good.clone(), "", ""),
            (with("metadata", json!({"name": "A_b", "namespace": "n"})), "", "metadata.name"),
            (with("eventTime", Value::Null), "", "eventTime"),
            (with("type", json!("Odd")), "", "type"),
            (with("count", json!(1)), "", "count"),
            (with("source", json!({"component": "c"})), "", "source"),
            (with("series", json!({"count": 2})), "", "series.lastObservedTime"),
            (with("action", json!("x".repeat(129))), "action", "action"),
            (with("involvedObject", json!({})), "involvedObject.namespace", "involvedObject.namespace"),
            (with("reportingComponent", json!("")), "reportingComponent", "reportingController"),
        ] {
            assert_eq!(told("", &event, None).join(" "), core, "{event}");
            assert_eq!(told("events.k8s.io", &event, None).join(" "), newer, "{event}");
        }
        let changed = with("reason", json!("S"));
        assert_eq!(told("", &changed, Some(&good)), Vec::<String>::new());
        assert_eq!(told("events.k8s.io", &changed, Some(&good)), ["reason"]);
    }
}
