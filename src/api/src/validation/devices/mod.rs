//! Devices (KEP-4381): claims for them, their templates, and classes. What drivers publish is in [`slice`].

mod names;
mod slice;

use std::collections::HashSet;

use serde_json::Value;

use super::field::Field;
use super::rules::{is_extended, labels, qualified_name};
use crate::catalogue::Resource;
use crate::cel::{self, Program};
use crate::names::{dns_label, dns_subdomain, label_value};

/// Requests, constraints, configurations and selectors: of each at most so many.
const MAX_ITEMS: usize = 32;
/// Alternatives in one request.
const MAX_ALTERNATIVES: usize = 8;
/// Tolerations of a request, and taints of a device.
const MAX_TAINTS: usize = 16;
/// Parameters that only a driver understands, in bytes.
const MAX_PARAMETERS_BYTES: usize = 10 * 1024;
/// A CEL expression, in bytes.
const MAX_EXPRESSION_BYTES: usize = 10 * 1024;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>, subresource: &str) {
    let spec = object.at("spec");
    match (resource.plural.as_str(), subresource) {
        // All of it is unchanging, so that there is nothing new to look at.
        ("resourceclaims", "") if old.is_none() => claim(&spec),
        ("resourceclaimtemplates", "") => {
            let metadata = spec.at("metadata");
            labels(&metadata.at("labels"));
            super::metadata::annotations(&metadata.at("annotations"));
            claim(&spec.at("spec"));
        }
        ("deviceclasses", "") => {
            spec.at("selectors").each(|_, selector| self::selector(&selector));
            at_most(&spec.at("selectors"), MAX_ITEMS);
            spec.at("config").each(|_, config| configuration(&config));
            at_most(&spec.at("config"), MAX_ITEMS);
            let extended = spec.at("extendedResourceName");
            if extended.exists() && (!is_extended(extended.text()) || !qualified_name(extended.text()).is_empty()) {
                extended.invalid("must be the name of an extended resource");
            }
        }
        ("resourceslices", "") => slice::check(&spec, old),
        _ => {}
    }
}

/// No more elements than this.
fn at_most(list: &Field<'_>, most: usize) {
    if list.list().len() > most {
        list.too_many(most);
    }
}

/// Names that constraints and configurations may refer to: `request` or `request/alternative`.
fn names_of_requests(requests: &Field<'_>) -> Vec<String> {
    let mut out = Vec::new();
    for request in requests.list() {
        let name = request["name"].as_str().unwrap_or_default();
        out.push(name.to_owned());
        for alternative in request["firstAvailable"].as_array().into_iter().flatten() {
            out.push(format!("{name}/{}", alternative["name"].as_str().unwrap_or_default()));
        }
    }
    out
}

fn claim(spec: &Field<'_>) {
    let devices = spec.at("devices");
    let requests = devices.at("requests");
    let known = names_of_requests(&requests);
    at_most(&requests, MAX_ITEMS);
    unique(&requests, |request| request["name"].to_string());
    requests.each(|_, request| self::request(&request));
    at_most(&devices.at("constraints"), MAX_ITEMS);
    devices.at("constraints").each(|_, constraint| self::constraint(&constraint, &known));
    at_most(&devices.at("config"), MAX_ITEMS);
    devices.at("config").each(|_, config| {
        references(&config.at("requests"), &known);
        configuration(&config);
    });
}

/// Each element once.
fn unique(list: &Field<'_>, key: impl Fn(&Value) -> String) {
    let mut seen: HashSet<String> = HashSet::new();
    list.each(|_, element| {
        let own = key(element.value());
        if seen.contains(&own) {
            element.duplicate();
        }
        seen.insert(own);
    });
}

fn request(request: &Field<'_>) {
    request.at("name").valid_by(dns_label);
    let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
    match (exactly.exists(), !first.is_empty()) {
        (false, false) => request.required("exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => request.invalid("exactly one of `exactly` or `firstAvailable` is required, but both are set"),
        (true, false) => devices(&exactly),
        (false, true) => {
            at_most(&first, MAX_ALTERNATIVES);
            unique(&first, |alternative| alternative["name"].to_string());
            first.each(|_, alternative| {
                alternative.at("name").valid_by(dns_label);
                devices(&alternative);
            });
        }
    }
}

/// Which devices, and how many.
fn devices(wanted: &Field<'_>) {
    wanted.at("deviceClassName").must_be_valid(dns_subdomain);
    at_most(&wanted.at("selectors"), MAX_ITEMS);
    wanted.at("selectors").each(|_, selector| self::selector(&selector));
    let (mode, count) = (wanted.at("allocationMode"), wanted.at("count"));
    match mode.text() {
        "All" if count.number() != 0 => count.invalid("must not be specified when allocationMode is 'All'"),
        "All" => {}
        "ExactCount" => count.positive(),
        _ => mode.not_supported(&["All", "ExactCount"]),
    }
    at_most(&wanted.at("tolerations"), MAX_TAINTS);
    wanted.at("tolerations").each(|_, toleration| {
        let (key, value, effect) = (toleration.at("key"), toleration.at("value"), toleration.at("effect"));
        if !key.is_empty() {
            key.all_invalid(qualified_name(key.text()));
        }
        match toleration.at("operator").text() {
            "Exists" if !value.is_empty() => value.invalid("must be empty for operator `Exists`"),
            "Exists" => {}
            "Equal" => value.valid_by(label_value),
            _ => toleration.at("operator").required_one_of(&["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            effect.one_of(&EFFECTS);
        }
    });
}

fn selector(selector: &Field<'_>) {
    let cel = selector.at("cel");
    if !cel.exists() {
        return cel.required("");
    }
    let expression = cel.at("expression");
    if expression.text().len() > MAX_EXPRESSION_BYTES {
        expression.too_long(MAX_EXPRESSION_BYTES);
    } else if expression.text().trim().is_empty() {
        expression.invalid("must be an expression that says true or false of a device");
    } else if let Err(error) = Program::compile(expression.text(), &[("device", device())], &[cel::Type::BOOL]) {
        expression.invalid(&format!("compilation failed: {error}"));
    }
}

/// What an expression knows of a device: attributes and capacities are in groups by their domain.
fn device() -> cel::Type<'static> {
    let fields = [
        ("driver", cel::Type::STRING),
        ("allowMultipleAllocations", cel::Type::BOOL),
        ("attributes", cel::Type::map(cel::Type::map(cel::Type::Dyn))),
        ("capacity", cel::Type::map(cel::Type::map(cel::Type::Dyn))),
    ];
    cel::Type::record("kubernetes.DRADevice", fields)
}

fn constraint(constraint: &Field<'_>, known: &[String]) {
    references(&constraint.at("requests"), known);
    let (matches, distinct) = (constraint.at("matchAttribute"), constraint.at("distinctAttribute"));
    match (matches.exists(), distinct.exists()) {
        (true, _) => names::fully_qualified(&matches),
        (false, true) => names::fully_qualified(&distinct),
        (false, false) => constraint.required("exactly one of `matchAttribute` or `distinctAttribute` is required"),
    }
}

/// Names of requests of the same claim.
fn references(names: &Field<'_>, known: &[String]) {
    const WHAT: &str = "must be the name of a request in the claim, or of a request and a subrequest separated by '/'";
    at_most(names, MAX_ITEMS);
    unique(names, Value::to_string);
    names.each(|_, name| {
        let parts: Vec<&str> = name.text().split('/').collect();
        if parts.len() > 2 {
            return name.invalid(WHAT);
        }
        for part in parts {
            if let Err(why) = dns_label(part) {
                name.invalid(&why);
            }
        }
        if !known.iter().any(|k| k == name.text()) {
            name.invalid(WHAT);
        }
    });
}

fn configuration(config: &Field<'_>) {
    let opaque = config.at("opaque");
    if !opaque.exists() {
        return opaque.required("");
    }
    names::driver(&opaque.at("driver"));
    let parameters = opaque.at("parameters");
    match parameters.value() {
        Value::Null => parameters.required(""),
        Value::Object(_) if parameters.value().to_string().len() > MAX_PARAMETERS_BYTES => parameters.too_long(MAX_PARAMETERS_BYTES),
        Value::Object(_) => {}
        _ => parameters.invalid("must be a JSON object"),
    }
}
