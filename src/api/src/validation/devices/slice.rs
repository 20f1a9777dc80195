//! ResourceSlices: devices of a driver on a node, with attributes, capacities, counters and taints.

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::{immutable, node_selector, qualified_name};
use super::{EFFECTS, MAX_TAINTS, at_most, names, unique};
use crate::names::{dns_label, dns_subdomain, label_value};

/// Devices of one slice.
const MAX_DEVICES: usize = 128;
/// Devices of one slice whose devices have taints or consume counters.
const MAX_ELABORATE_DEVICES: usize = 64;
/// Attributes and capacities of one device together.
const MAX_ATTRIBUTES: usize = 32;
/// Sets of counters of a slice, counters of a set, sets that a device consumes of, conditions to bind.
const MAX_COUNTER_SETS: usize = 8;
const MAX_COUNTERS: usize = 32;
const MAX_CONSUMED_SETS: usize = 2;
const MAX_BINDING_CONDITIONS: usize = 4;
/// Longest text of an attribute, in bytes.
const MAX_VALUE: usize = 64;
/// Fields that say on which nodes the devices are.
const PLACES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];

pub(super) fn check(spec: &Field<'_>, old: Option<&Value>) {
    names::driver(&spec.at("driver"));
    let pool = spec.at("pool");
    names::pool(&pool.at("name"));
    pool.at("generation").not_negative();
    pool.at("resourceSliceCount").positive();
    if let Some(old) = old {
        immutable(&pool.at("name"), &old["spec"]["pool"]["name"]);
        immutable(&spec.at("driver"), &old["spec"]["driver"]);
        immutable(&spec.at("nodeName"), &old["spec"]["nodeName"]);
    }
    place(spec, &PLACES);
    let (devices, counters) = (spec.at("devices"), spec.at("sharedCounters"));
    if devices.exists() && counters.exists() {
        spec.invalid("only one of `sharedCounters` or `devices` is allowed");
    }
    let elaborate = |device: &Value| !device["taints"].is_null() || !device["consumesCounters"].is_null();
    at_most(&devices, if devices.list().iter().any(elaborate) { MAX_ELABORATE_DEVICES } else { MAX_DEVICES });
    unique(&devices, |device| device["name"].to_string());
    let per_device = spec.at("perDeviceNodeSelection").is_true();
    devices.each(|_, device| self::device(&device, per_device));
    at_most(&counters, MAX_COUNTER_SETS);
    unique(&counters, |set| set["name"].to_string());
    counters.each(|_, set| {
        set.at("name").must_be_valid(dns_label);
        self::counters(&set.at("counters"));
    });
}

/// Exactly one of the fields says where.
fn place(holder: &Field<'_>, places: &[&str]) {
    let mut said = 0;
    for name in places {
        let field = holder.at(name);
        match *name {
            _ if !field.exists() => {}
            "nodeName" if field.is_empty() => field.invalid("must be either unset or set to a non-empty string"),
            "nodeName" => {
                said += 1;
                field.valid_by(dns_subdomain);
            }
            "nodeSelector" => {
                said += 1;
                node_selector(&field);
                if field.at("nodeSelectorTerms").list().len() > 1 {
                    field.at("nodeSelectorTerms").invalid("must have exactly one node selector term");
                }
            }
            _ if field.is_true() => said += 1,
            _ => field.invalid("must be either unset or set to true"),
        }
    }
    let what = format!("exactly one of `{}` is required", places.join("`, `"));
    match said {
        0 => holder.required(&what),
        1 => {}
        _ => holder.invalid(&what),
    }
}

fn device(device: &Field<'_>, placed: bool) {
    device.at("name").valid_by(dns_label);
    let (attributes, capacity) = (device.at("attributes"), device.at("capacity"));
    let size = |map: &Field<'_>| map.value().as_object().map_or(0, serde_json::Map::len);
    if size(&attributes) + size(&capacity) > MAX_ATTRIBUTES {
        device.invalid(&format!("the total number of attributes and capacities must not exceed {MAX_ATTRIBUTES}"));
    }
    attributes.each_key(|name, attribute| {
        names::qualified(&attribute, name);
        self::attribute(&attribute);
    });
    capacity.each_key(|name, amount| names::qualified(&amount, name));
    at_most(&device.at("taints"), MAX_TAINTS);
    device.at("taints").each(|_, taint| {
        let (key, effect) = (taint.at("key"), taint.at("effect"));
        key.all_invalid(qualified_name(key.text()));
        taint.at("value").may_be_valid(label_value);
        effect.required_one_of(&EFFECTS);
    });
    let consumed = device.at("consumesCounters");
    at_most(&consumed, MAX_CONSUMED_SETS);
    unique(&consumed, |set| set["counterSet"].to_string());
    consumed.each(|_, set| {
        set.at("counterSet").must_be_valid(dns_label);
        counters(&set.at("counters"));
    });
    if placed {
        place(device, &PLACES[..3]);
    } else {
        for name in &PLACES[..3] {
            if device.at(name).exists() {
                device.at(name).invalid("may only be set when `perDeviceNodeSelection` is true in the ResourceSlice's spec");
            }
        }
    }
    binding_conditions(device);
}

/// Conditions that must, and that must not, come true before a pod is bound.
fn binding_conditions(device: &Field<'_>) {
    let (wanted, failures) = (device.at("bindingConditions"), device.at("bindingFailureConditions"));
    for list in [wanted, failures] {
        at_most(&list, MAX_BINDING_CONDITIONS);
        unique(&list, Value::to_string);
        list.each(|_, condition| condition.all_invalid(qualified_name(condition.text())));
    }
    failures.each(|_, failure| {
        if wanted.list().contains(failure.value()) {
            failure.invalid("must not be one of bindingConditions");
        }
    });
    if wanted.is_empty() && !failures.is_empty() {
        wanted.invalid("are required to use bindingFailureConditions");
    }
    if failures.is_empty() && !wanted.is_empty() {
        failures.invalid("are required to use bindingConditions");
    }
}

fn counters(counters: &Field<'_>) {
    if counters.must_exist() && counters.value().as_object().is_some_and(|map| map.len() > MAX_COUNTERS) {
        counters.too_many(MAX_COUNTERS);
    }
    counters.each_key(|name, counter| {
        if let Err(why) = dns_label(name) {
            counter.invalid(&why);
        }
    });
}

fn attribute(attribute: &Field<'_>) {
    let given = attribute.value().as_object().map_or(0, |map| map.values().filter(|value| !value.is_null()).count());
    text(&attribute.at("string"));
    version(&attribute.at("version"));
    for (list, is_version) in [("bools", false), ("ints", false), ("strings", false), ("versions", true)] {
        let list = attribute.at(list);
        if list.exists() && list.is_empty() {
            list.invalid("must not be empty if specified");
        }
        list.each(|_, value| if is_version { version(&value) } else { text(&value) });
    }
    if given != 1 {
        attribute.invalid("exactly one value must be specified");
    }
}

fn text(value: &Field<'_>) {
    if value.text().len() > MAX_VALUE {
        value.too_long(MAX_VALUE);
    }
}

fn version(value: &Field<'_>) {
    if value.exists() && !is_semantic_version(value.text()) {
        value.invalid("must be a string compatible with semver.org spec 2.0.0");
    }
    text(value);
}

/// Version of semver.org 2.0.0: three numbers, then parts of a pre-release after `-` and of a build after `+`.
fn is_semantic_version(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, release) = text.split_once('-').map_or((text, None), |(core, release)| (core, Some(release)));
    let numeric = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let number = |part: &str| !part.is_empty() && numeric(part) && (part == "0" || !part.starts_with('0'));
    let word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    core.split('.').count() == 3
        && core.split('.').all(number)
        && release.is_none_or(|parts| parts.split('.').all(|part| word(part) && (!numeric(part) || number(part))))
        && build.is_none_or(|parts| parts.split('.').all(word))
}

#[cfg(test)]
mod tests {
    use super::is_semantic_version;

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "0.0.0", "1.2.3-alpha.1", "1.2.3+b.001", "1.0.0-0a-b+c"] {
            assert!(is_semantic_version(good), "{good}");
        }
        for bad in ["", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3+", "-x", "1.2.3.4", "1.2.x"] {
            assert!(!is_semantic_version(bad), "{bad}");
        }
    }
}
