//! `spec.conversion`. Its fields are told under the names that upstream has for them inside.

use super::{Field, doubles};
use crate::names;

/// Ports are numbers of 16 bits.
const MAX_PORT: i64 = 65_535;

/// Checks the conversion of a definition.
pub(super) fn check(conversion: &Field<'_>) {
    if !conversion.exists() {
        return;
    }
    let strategy = conversion.at("strategy");
    strategy.required_one_of(&["None", "Webhook"]);
    let webhook = &conversion.value()["webhook"];
    let (config, versions) = (conversion.called("webhookClientConfig"), conversion.called("conversionReviewVersions"));
    let (config, versions) = (config.holding(&webhook["clientConfig"]), versions.holding(&webhook["conversionReviewVersions"]));
    if strategy.text() != "Webhook" {
        for field in [&config, &versions] {
            if !field.is_empty() {
                field.forbidden("should not be set when strategy is not set to Webhook");
            }
        }
        return;
    }
    if config.exists() {
        client(&config)
    } else {
        config.required("required when strategy is set to Webhook")
    }
    review_versions(&versions);
}

fn client(client: &Field<'_>) {
    let (url, service) = (client.at("url"), client.at("service"));
    if url.exists() == service.exists() {
        client.required("exactly one of url or service is required");
    }
    if url.exists() {
        match url.text().strip_prefix("https://") {
            None => url.invalid("'https' is the only allowed URL scheme"),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => url.invalid("host must be specified"),
            Some(rest) if rest.contains(['?', '#', '@']) => url.invalid("user information, query and fragment are not permitted"),
            Some(_) => {}
        }
    }
    if service.exists() {
        // Upstream tells each of them at the place of the other.
        for (missing, told) in [("name", "namespace"), ("namespace", "name")] {
            if service.at(missing).is_empty() {
                service.at(told).required(&format!("service {missing} is required"));
            }
        }
        service.at("port").within(1, MAX_PORT);
        path(&service.at("path"));
    }
}

fn path(path: &Field<'_>) {
    let text = path.text();
    if matches!(text, "" | "/") {
        return;
    }
    if !text.starts_with('/') {
        path.invalid("must start with a '/'");
    }
    let rest = text.get(1..).unwrap_or_default();
    for (i, step) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if step.is_empty() {
            path.invalid(&format!("segment[{i}] may not be empty"));
        } else if let Err(message) = names::dns_subdomain(step) {
            path.invalid(&format!("segment[{i}]: {message}"));
        }
    }
}

fn review_versions(versions: &Field<'_>) {
    if versions.is_empty() {
        versions.required("");
        return;
    }
    let list = versions.list();
    let doubled = doubles(list);
    versions.each(|i, version| {
        if let Err(message) = names::dns_1035_label(version.text()) {
            version.invalid(&message);
        } else if doubled[i] {
            version.invalid("duplicate version");
        }
    });
    if !list.iter().any(|v| matches!(v.as_str(), Some("v1" | "v1beta1"))) {
        versions.invalid("must include at least one of v1, v1beta1");
    }
}
