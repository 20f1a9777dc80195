//! What claims take of a quota: those for volumes, by size and storage class, and those for devices, by device class.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Measure, Traits, one};
use crate::{amounts::Map, quantity::Quantity};

const CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICES: &str = ".deviceclass.resource.k8s.io/devices";
const NAMES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
/// Devices that one claim can be given: what a request for all of them counts as.
const MAX_DEVICES: i64 = 32;
/// The older way to name a storage class; it wins.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn governs(name: &str) -> bool {
    NAMES.contains(&name) || name.split_once(CLASS).is_some_and(|(_, what)| NAMES.contains(&what))
}

pub fn governs_devices(name: &str) -> bool {
    name.ends_with(DEVICES)
}

pub fn measure(claim: &Value) -> Measure {
    let annotation = claim["metadata"]["annotations"][CLASS_ANNOTATION].as_str();
    let class = annotation.or(claim["spec"]["storageClassName"].as_str()).filter(|class| !class.is_empty());
    let mut usage = Map::new();
    let mut count = |name: &str, amount: Quantity| {
        usage.insert(name.to_owned(), amount);
        if let Some(class) = class {
            usage.insert(format!("{class}{CLASS}{name}"), amount);
        }
    };
    count(NAMES[0], one());
    if let Some(size) = size(claim) {
        count(NAMES[1], size);
    }
    Measure { usage, traits: Traits::VolumeClaim { attributes_classes: attributes_classes(claim).into_iter().collect() } }
}

/// What is asked for, or what it was given of an expansion that is under way; whole bytes.
fn size(claim: &Value) -> Option<Quantity> {
    let read = |text: &Value| text.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let asked = read(&claim["spec"]["resources"]["requests"]["storage"])?;
    let given = read(&claim["status"]["allocatedResources"]["storage"]);
    let size = given.filter(|given| *given > asked).unwrap_or(asked);
    let whole = Quantity::from_units(size.units());
    Some(if whole == size { size } else { whole })
}

fn attributes_classes(claim: &Value) -> BTreeSet<String> {
    let status = &claim["status"];
    let names = [
        &claim["spec"]["volumeAttributesClassName"],
        &status["currentVolumeAttributesClassName"],
        &status["modifyVolumeStatus"]["targetVolumeAttributesClassName"],
    ];
    names.into_iter().filter_map(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether the two states of a claim weigh differently.
pub fn differ(old: &Value, new: &Value) -> bool {
    old["status"]["allocatedResources"]["storage"] != new["status"]["allocatedResources"]["storage"]
        || attributes_classes(old) != attributes_classes(new)
}

/// Devices by class; of alternatives, the most of each class.
pub fn devices(claim: &Value) -> Map {
    let mut usage = Map::new();
    let number = |request: &Value| match request["allocationMode"].as_str() {
        Some("All") => MAX_DEVICES,
        _ => request["count"].as_i64().unwrap_or(1),
    };
    let mut add = |class: &str, count: i64| {
        let sum = usage.entry(format!("{class}{DEVICES}")).or_insert(Quantity::from_units(0));
        *sum = sum.plus(Quantity::from_units(count));
    };
    for request in claim["spec"]["devices"]["requests"].as_array().into_iter().flatten() {
        let class = |request: &Value| request["deviceClassName"].as_str().unwrap_or_default().to_owned();
        let either: Vec<(String, i64)> =
            request["firstAvailable"].as_array().into_iter().flatten().map(|sub| (class(sub), number(sub))).collect();
        for name in either.iter().map(|(name, _)| name).collect::<BTreeSet<_>>() {
            let most = either.iter().filter(|(other, _)| other == name).map(|(_, count)| *count).max();
            add(name, most.unwrap_or(0));
        }
        if request["exactly"].is_object() {
            add(&class(&request["exactly"]), number(&request["exactly"]));
        }
    }
    usage
}
