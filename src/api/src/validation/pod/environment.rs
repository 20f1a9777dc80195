//! The environment of containers, and fields of the pod that are shown in it or in files.

use super::super::field::Field;
use super::super::rules::{data_key, descending_path, qualified_name};
use super::containers::Surroundings;
use crate::names;

/// Fields of a pod that its environment may show.
const SHOWN_IN_ENVIRONMENT: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that its files may show.
const SHOWN_IN_FILES: [&str; 5] = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Printable ASCII but `=`.
fn environment_name(text: &str) -> Result<(), String> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'=') {
        Ok(())
    } else {
        Err("a valid environment variable name must consist only of printable ASCII characters other than '='".into())
    }
}

pub(super) fn environment(container: &Field<'_>, around: &Surroundings<'_>) {
    container.at("env").each(|_, variable| {
        variable.at("name").must_be_valid(environment_name);
        let from = variable.at("valueFrom");
        if !from.exists() {
            return;
        }
        let (field, resource, file) = (from.at("fieldRef"), from.at("resourceFieldRef"), from.at("fileKeyRef"));
        let (config, secret) = (from.at("configMapKeyRef"), from.at("secretKeyRef"));
        if field.exists() {
            field_reference(&field, &SHOWN_IN_ENVIRONMENT);
        }
        if resource.exists() {
            resource_reference(&resource, false);
        }
        for key in [config, secret] {
            if key.exists() {
                key.at("name").valid_by(names::dns_subdomain);
                key.at("key").must_be_valid(data_key);
            }
        }
        if file.exists() {
            file.at("key").must_be_valid(environment_name);
            file.at("path").must_exist();
            descending_path(&file.at("path"));
            let volume = file.at("volumeName");
            volume.must_exist();
            if around.volume(volume.text()).is_none() {
                volume.not_found();
            }
        }
        let sources = [field, resource, config, secret, file].iter().filter(|s| s.exists()).count();
        if !variable.at("value").is_empty() && sources > 0 {
            from.invalid("may not be specified when `value` is not empty");
        } else if sources > 1 {
            from.invalid("may not have more than one field specified at a time");
        } else if sources == 0 {
            from.invalid("must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`");
        }
    });
    let sources = container.at("envFrom");
    sources.each(|_, source| {
        source.at("prefix").may_be_valid(environment_name);
        let both = [source.at("configMapRef"), source.at("secretRef")];
        for reference in both.iter().filter(|r| r.exists()) {
            reference.at("name").must_be_valid(names::dns_subdomain);
        }
        match both.iter().filter(|r| r.exists()).count() {
            0 => sources.holding(source.value()).invalid("must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => sources.holding(source.value()).invalid("may not have more than one field specified at a time"),
        }
    });
}

/// A field of the pod that its environment or files show.
fn field_reference(reference: &Field<'_>, shown: &[&str]) {
    let path = reference.at("fieldPath");
    if !reference.at("apiVersion").must_exist() || !path.must_exist() {
        return;
    }
    let subscript = path.text().split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)));
    if let Some((map, key)) = subscript {
        match map {
            "metadata.annotations" => path.all_invalid(qualified_name(&key.to_lowercase())),
            "metadata.labels" => path.all_invalid(qualified_name(key)),
            _ => path.invalid("does not support subscript"),
        }
        return;
    }
    let known = SHOWN_IN_ENVIRONMENT.contains(&path.text())
        || SHOWN_IN_FILES.contains(&path.text())
        || matches!(path.text(), "spec.restartPolicy" | "spec.schedulerName" | "status.phase");
    if !known {
        path.invalid("error converting fieldPath: field label not supported");
    } else if !shown.contains(&path.text()) {
        path.not_supported(shown);
    }
}

/// A resource of the container that its environment or files show.
fn resource_reference(reference: &Field<'_>, in_file: bool) {
    const RESOURCES: [&str; 6] =
        ["limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"];
    let (container, resource, divisor) = (reference.at("containerName"), reference.at("resource"), reference.at("divisor"));
    if in_file && container.is_empty() {
        container.required("");
    } else if resource.must_exist() {
        let huge = resource.text().starts_with("limits.hugepages-") || resource.text().starts_with("requests.hugepages-");
        if !huge && !RESOURCES.contains(&resource.text()) {
            resource.not_supported(&RESOURCES);
        }
        let units: &[&str] = if !huge && !RESOURCES.contains(&resource.text()) {
            // Of what is no resource there is no unit.
            return;
        } else if resource.text().ends_with(".cpu") {
            &["0", "1m", "1"]
        } else {
            &["0", "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"]
        };
        if divisor.exists() && !units.contains(&divisor.text()) {
            divisor.invalid("only divisor's values that are a single unit are supported");
        }
    }
}

/// Items of a downward API volume.
pub(super) fn shown_file(item: &Field<'_>) {
    let path = item.at("path");
    if path.must_exist() {
        descending_path(&path);
    }
    let (field, resource) = (item.at("fieldRef"), item.at("resourceFieldRef"));
    if field.exists() {
        field_reference(&field, &SHOWN_IN_FILES);
        if resource.exists() {
            item.invalid("fieldRef and resourceFieldRef can not be specified simultaneously");
        }
    } else if resource.exists() {
        resource_reference(&resource, true);
    } else {
        item.required("one of fieldRef and resourceFieldRef is required");
    }
    item.at("mode").within(0, 0o777);
}
