//! Rules that many kinds share: names, labels, selectors, ports, quantities, node selectors.

use std::net::IpAddr;

use super::field::Field;
use crate::names;
use crate::quantity::Quantity;

/// What is wrong with a qualified name, each thing by itself.
pub(super) fn qualified_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, rest)) if rest.contains('/') => return vec!["a qualified name must have at most one '/'".into()],
        Some((prefix, name)) => {
            if prefix.is_empty() {
                out.push("prefix part must be non-empty".into());
            } else if let Err(message) = names::dns_subdomain(prefix) {
                out.push(format!("prefix part {message}"));
            }
            name
        }
    };
    if name.is_empty() {
        out.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        out.push("name part must be no more than 63 bytes".into());
    }
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    if !(name.bytes().all(inner) && ends(name.as_bytes().first()) && ends(name.as_bytes().last())) {
        out.push(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
                .into(),
        );
    }
    out
}

/// What is wrong with a port's name.
pub(super) fn port_name(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    if text.len() > 15 {
        out.push("must be no more than 15 bytes".into());
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        out.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        out.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        out.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        out.push("must not begin or end with a hyphen".into());
    }
    out
}

pub(super) fn port_number(field: &Field<'_>) {
    if !(1..=65_535).contains(&field.number()) {
        field.invalid("must be between 1 and 65535, inclusive");
    }
}

/// A number or a name.
pub(super) fn port(field: &Field<'_>) {
    if field.value().is_string() { field.all_invalid(port_name(field.text())) } else { port_number(field) }
}

pub(super) fn labels(field: &Field<'_>) {
    for (key, value) in field.value().as_object().into_iter().flatten() {
        field.holding(&key.as_str().into()).all_invalid(qualified_name(key));
        let value = field.holding(value);
        value.valid_by(names::label_value);
    }
}

pub(super) fn label_selector(field: &Field<'_>) {
    labels(&field.at("matchLabels"));
    field.at("matchExpressions").each(|_, requirement| {
        let values = requirement.at("values");
        match requirement.at("operator").text() {
            "In" | "NotIn" => drop(values.must_exist()),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            }
            "Exists" | "DoesNotExist" => {}
            _ => requirement.at("operator").invalid("not a valid selector operator"),
        }
        let key = requirement.at("key");
        key.all_invalid(qualified_name(key.text()));
        values.each(|_, value| value.valid_by(names::label_value));
    });
}

/// Whether a label selector selects these labels; a broken one selects nothing.
pub(super) fn selects(selector: &serde_json::Value, labels: &serde_json::Value) -> bool {
    crate::selector::LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches_value(labels))
}

pub(super) fn node_selector(field: &Field<'_>) {
    let terms = field.at("nodeSelectorTerms");
    if terms.is_empty() {
        terms.required("must have at least one node selector term");
    }
    terms.each(|_, term| node_selector_term(&term));
}

pub(super) fn node_selector_term(term: &Field<'_>) {
    term.at("matchExpressions").each(|_, requirement| {
        let values = requirement.at("values");
        match requirement.at("operator").text() {
            "In" | "NotIn" => drop(values.must_exist()),
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
            }
            "Exists" | "DoesNotExist" => {}
            "Gt" | "Lt" if values.list().len() != 1 => values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"),
            "Gt" | "Lt" => {}
            _ => requirement.at("operator").invalid("not a valid selector operator"),
        }
        let key = requirement.at("key");
        key.all_invalid(qualified_name(key.text()));
        values.each(|_, value| value.valid_by(names::label_value));
    });
    term.at("matchFields").each(|_, requirement| {
        let (values, key) = (requirement.at("values"), requirement.at("key"));
        match requirement.at("operator").text() {
            "In" | "NotIn" if values.list().len() != 1 => {
                values.required("must be only one value when `operator` is 'In' or 'NotIn' for node field selector")
            }
            "In" | "NotIn" => {}
            _ => requirement.at("operator").invalid("not a valid selector operator"),
        }
        if key.text() == "metadata.name" {
            values.each(|_, value| value.valid_by(names::dns_subdomain));
        } else {
            key.invalid("not a valid field selector key");
        }
    });
}

/// `strict`: an address as one would write it today.
pub(super) fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

pub(super) fn ip(field: &Field<'_>) {
    if !is_ip(field.text()) {
        field.invalid("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    !bits.is_empty() && bits.len() <= 3 && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|n| n <= longest)
}

pub(super) fn cidr(field: &Field<'_>) {
    if !is_cidr(field.text()) {
        field.invalid("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}

pub(super) fn quantity(field: &Field<'_>) -> Quantity {
    field.text().parse().unwrap_or(Quantity::from_units(0))
}

/// Not below zero; resources that are counted are whole.
pub(super) fn resource_value(name: &str, field: &Field<'_>) {
    let quantity = quantity(field);
    if quantity.signum() < 0 {
        field.invalid("must be greater than or equal to 0");
    }
    let counted = matches!(name, "pods" | "services" | "persistentvolumeclaims") || is_extended(name);
    if counted && quantity.millis() % 1000 != 0 {
        field.invalid("must be an integer");
    }
}

/// A resource that somebody else than Kubernetes defines.
pub(super) fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// A share of pods: a number or `25%`.
pub(super) fn number_or_percent(field: &Field<'_>) {
    if field.value().is_string() {
        let digits = field.text().strip_suffix('%').unwrap_or("x");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            field.invalid("a valid percent string must be a numeric string followed by an ending '%'");
        }
    } else {
        field.not_negative();
    }
}

/// Below or equal to 100 %.
pub(super) fn at_most_all(field: &Field<'_>) {
    if percent(field).is_some_and(|p| p > 100) {
        field.invalid("must not be greater than 100%");
    }
}

pub(super) fn percent(field: &Field<'_>) -> Option<i64> {
    field.text().strip_suffix('%')?.parse().ok()
}

/// A path below where it starts: relative, without steps upwards.
pub(super) fn descending_path(field: &Field<'_>) {
    if field.text().starts_with('/') {
        field.invalid("must be a relative path");
    }
    no_steps_up(field);
}

pub(super) fn no_steps_up(field: &Field<'_>) {
    if field.text().split('/').any(|part| part == "..") {
        field.invalid("must not contain '..'");
    }
}

/// A key of a ConfigMap or Secret.
pub(super) fn data_key(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 bytes".into());
    }
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    match text {
        "." | ".." => Err(format!("must not be {text:?}")),
        _ if text.starts_with("..") => Err("must not start with '..'".into()),
        _ if valid => Ok(()),
        _ => Err("a valid config key must consist of alphanumeric characters, '-', '_' or '.'".into()),
    }
}

/// What must not change.
pub(super) fn immutable(new: &Field<'_>, old: &serde_json::Value) {
    if new.value() != old {
        new.invalid("field is immutable");
    }
}

/// A DNS name that may begin with `*.`.
pub(super) fn wildcard_subdomain(text: &str) -> Result<(), String> {
    match text.strip_prefix("*.") {
        Some(rest) => names::dns_subdomain(rest),
        None => names::dns_subdomain(text),
    }
}
