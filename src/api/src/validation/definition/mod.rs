//! CustomResourceDefinitions: names, versions, conversion, and what may never change. Schemas are judged next door.

mod conversion;
mod rules;
mod schema;

use serde_json::Value;

use super::field::{Field, doubles};
use super::rules::immutable;
use crate::custom::is_true;
use crate::custom::names::{APPROVED, is_approval, is_protected};
use crate::custom::paths;
use crate::names;

/// Most selectable fields of a version. Upstream's bound.
const MAX_SELECTABLE_FIELDS: usize = 8;
/// Longest warning about a deprecated version, in bytes. Upstream's bound.
const MAX_WARNING_BYTES: usize = 256;
/// Schemas of a definition together, in bytes of JSON: they are kept in memory in several forms. (etcd's bound of an object is half of it.)
const MAX_SCHEMA_BYTES: usize = 3 << 20;

/// What can be hoisted out of the versions when it is the same in all of them, and what upstream then calls it.
const HOISTED: [(&str, &str); 4] = [
    ("schema", "validation"),
    ("subresources", "subresources"),
    ("additionalPrinterColumns", "additionalPrinterColumns"),
    ("selectableFields", "selectableFields"),
];

/// Checks a definition; `old` is the one that it takes the place of.
pub(super) fn check(definition: &Field<'_>, old: Option<&Value>, subresource: &str) {
    // What is being deleted must be able to end, whatever it has become.
    if subresource == "status" || old.is_some_and(|old| old["metadata"]["deletionTimestamp"].is_string()) {
        return;
    }
    let (spec, metadata) = (definition.at("spec"), definition.at("metadata"));
    let (group, names_of) = (spec.at("group"), spec.at("names"));
    match old {
        None => {
            let wanted = format!("{}.{}", names_of.at("plural").text(), group.text());
            let name = metadata.at("name");
            if !name.is_empty() && name.text() != wanted {
                name.invalid("must be spec.names.plural+\".\"+spec.group");
            }
        }
        Some(old) => unchanged(definition, old),
    }
    if group.must_exist() {
        if let Err(message) = names::dns_subdomain(group.text()) {
            group.invalid(&message);
        } else if !group.text().contains('.') {
            group.invalid("should be a domain with at least one dot");
        }
    }
    spec.at("scope").required_one_of(&["Cluster", "Namespaced"]);
    self::names(&names_of);
    if spec.at("preserveUnknownFields").is_true() && !old.is_some_and(|old| old["spec"]["preserveUnknownFields"] == true) {
        spec.at("preserveUnknownFields").invalid("must be false");
    }
    versions(&spec, old);
    stored_versions(&definition.at("status").at("storedVersions"), spec.at("versions").list());
    conversion::check(&spec.at("conversion"));
    approval(&metadata, group.text(), old);
}

fn unchanged(definition: &Field<'_>, old: &Value) {
    let spec = definition.at("spec");
    immutable(&spec.at("group"), &old["spec"]["group"]);
    immutable(&spec.at("names").at("plural"), &old["spec"]["names"]["plural"]);
    if is_true(old, "Established") {
        immutable(&spec.at("scope"), &old["spec"]["scope"]);
        immutable(&spec.at("names").at("kind"), &old["spec"]["names"]["kind"]);
    }
}

fn names(names_of: &Field<'_>) {
    for name in ["plural", "singular", "kind", "listKind"] {
        let lower = name.to_ascii_lowercase().ends_with("kind");
        names_of.at(name).must_be_valid(|text| names::dns_1035_label(&if lower { text.to_lowercase() } else { text.to_owned() }));
    }
    for list in ["shortNames", "categories"] {
        names_of.at(list).each(|_, name| name.valid_by(names::dns_1035_label));
    }
    let (kind, list_kind) = (names_of.at("kind"), names_of.at("listKind"));
    if !kind.is_empty() && kind.text() == list_kind.text() {
        list_kind.invalid("kind and listKind may not be the same");
    }
}

fn versions(spec: &Field<'_>, old: Option<&Value>) {
    let versions = spec.at("versions");
    let list = versions.list();
    if let Some(first) = list.first()
        && first["name"].as_str().is_some_and(|name| !name.is_empty() && names::dns_1035_label(name).is_err())
    {
        spec.called("version").holding(&first["name"]).invalid("must be a label");
    }
    if doubles(list.iter().map(|version| &version["name"])).contains(&true) {
        versions.invalid("must contain unique version names");
    }
    if list.iter().filter(|v| v["storage"] == true).count() != 1 {
        versions.invalid("must have exactly one version marked as storage version");
    }
    let bytes: usize = list.iter().map(|v| v["schema"].to_string().len()).sum();
    if bytes > MAX_SCHEMA_BYTES {
        versions.too_long(MAX_SCHEMA_BYTES);
        return;
    }
    let hoisted =
        |field: &str| list.windows(2).all(|pair| pair[0][field] == pair[1][field]) && list.first().is_some_and(|v| !v[field].is_null());
    let before = |version: &Value| {
        let all = old.and_then(|old| old["spec"]["versions"].as_array());
        all.and_then(|all| all.iter().find(|v| v["name"] == version["name"])).unwrap_or(&Value::Null)
    };
    versions.each(|i, version| {
        version.at("name").valid_by(names::dns_1035_label);
        warning(&version);
        let source = &version.value()["schema"]["openAPIV3Schema"];
        let given = source.is_object();
        if !given {
            version.at("schema").at("openAPIV3Schema").required("schemas are required");
        }
        for (name, called) in HOISTED {
            let own = version.at(name);
            let above = spec.called(called);
            let above = above.holding(own.value());
            let place = match hoisted(name) {
                // Told once for all versions.
                true if i > 0 => continue,
                true => above,
                false => own,
            };
            match name {
                "schema" if given => schema::check(&place.at("openAPIV3Schema"), &before(version.value())["schema"]["openAPIV3Schema"]),
                "subresources" => scale(&place.at("scale")),
                "additionalPrinterColumns" => place.each(|_, column| self::column(&column)),
                "selectableFields" => selectable(&place, source, given),
                _ => {}
            }
        }
    });
}

fn warning(version: &Field<'_>) {
    let warning = version.at("deprecationWarning");
    if !warning.exists() {
        return;
    }
    if !version.at("deprecated").is_true() {
        warning.invalid("can only be set for deprecated versions");
    } else if warning.is_empty() {
        warning.invalid("must not be an empty string");
    } else if warning.text().len() > MAX_WARNING_BYTES {
        warning.invalid(&format!("must be at most {MAX_WARNING_BYTES} bytes long"));
    } else if warning.text().chars().any(char::is_control) {
        warning.invalid("must only contain printable characters");
    }
}

fn scale(scale: &Field<'_>) {
    if !scale.exists() {
        return;
    }
    for (name, required, roots) in [
        ("specReplicasPath", true, &[".spec."] as &[&str]),
        ("statusReplicasPath", true, &[".status."]),
        ("labelSelectorPath", false, &[".spec.", ".status."]),
    ] {
        let path = scale.at(name);
        if path.is_empty() {
            if required {
                path.required("");
            }
        } else if let Err(why) = paths::simple(path.text()) {
            path.invalid(why);
        } else if !roots.iter().any(|root| path.text().starts_with(root)) {
            path.invalid(&format!("should be a json path under {}", roots.join(" or ").replace(". ", " ").trim_end_matches('.')));
        }
    }
}

fn column(column: &Field<'_>) {
    column.at("name").must_exist();
    let kind = column.at("type");
    if kind.must_exist() && !["boolean", "date", "integer", "number", "string"].contains(&kind.text()) {
        kind.invalid("must be one of boolean, date, integer, number, string");
    }
    let format = column.at("format");
    const FORMATS: [&str; 8] = ["int32", "int64", "float", "double", "byte", "date", "date-time", "password"];
    if !format.is_empty() && !FORMATS.contains(&format.text()) {
        format.invalid(&format!("must be one of {}", FORMATS.join(", ")));
    }
    let path = column.value()["jsonPath"].clone();
    let called = column.called("JSONPath");
    let path = called.holding(&path);
    if path.must_exist()
        && let Err(why) = paths::simple(path.text())
    {
        path.invalid(why);
    }
}

fn selectable(fields: &Field<'_>, schema: &Value, given: bool) {
    let list = fields.list();
    let doubled = doubles(list);
    if list.is_empty() {
        return;
    }
    if !given {
        fields.invalid("may only be set when a schema is given");
        return;
    }
    if list.len() > MAX_SELECTABLE_FIELDS {
        fields.too_many(MAX_SELECTABLE_FIELDS);
    }
    fields.each(|i, field| {
        let path = field.at("jsonPath");
        if !path.must_exist() {
            return;
        }
        if doubled[i] {
            path.duplicate();
        } else if let Err(why) = paths::simple(path.text()) {
            path.invalid(why);
        } else {
            let found = paths::schema_at(schema, path.text());
            if path.text().starts_with(".metadata") {
                path.invalid("must not point to fields in metadata");
            } else if !found.is_some_and(|s| matches!(s["type"].as_str(), Some("string" | "boolean" | "integer"))) {
                path.invalid("must point to a string, boolean or integer of the schema");
            }
        }
    });
}

fn stored_versions(stored: &Field<'_>, versions: &[Value]) {
    let list = stored.list();
    if list.is_empty() {
        stored.invalid("must have at least one stored version");
        return;
    }
    let mut left: Vec<&Value> = list.iter().collect();
    for version in versions {
        let known = left.contains(&&version["name"]);
        if version["storage"] == true && !known {
            stored.invalid(&format!("must have the storage version {}", version["name"]));
        }
        left.retain(|name| **name != version["name"]);
    }
    stored.each(|_, name| {
        if left.contains(&name.value()) {
            name.invalid("must appear in spec.versions");
        }
    });
}

fn approval(metadata: &Field<'_>, group: &str, old: Option<&Value>) {
    let was = |old: &Value| old["metadata"]["annotations"][APPROVED].as_str().is_some_and(is_approval);
    if !is_protected(group) || old.is_some_and(|old| !was(old)) {
        return;
    }
    let annotations = metadata.at("annotations");
    let annotation = annotations.key(APPROVED);
    if annotation.is_empty() {
        annotation.required("protected groups must have approval annotation");
    } else if !is_approval(annotation.text()) {
        annotation.invalid("must be a URL, or start with \"unapproved\"");
    }
}

#[cfg(test)]
mod tests;
