//! Names in the world of devices: drivers, attributes, pools.

use super::super::field::Field;
use crate::names::dns_subdomain;

/// Longest name of a driver, which is also the domain of its attributes.
const MAX_DRIVER: usize = 63;
/// Longest part of an attribute's name after the domain.
const MAX_IDENTIFIER: usize = 32;
/// Longest name of a pool.
const MAX_POOL: usize = 253;

/// A driver: a subdomain, which may have upper case.
pub(super) fn driver(name: &Field<'_>) {
    if name.must_exist() {
        domain(name, name.text());
    }
}

fn domain(field: &Field<'_>, text: &str) {
    if text.len() > MAX_DRIVER {
        field.too_long(MAX_DRIVER);
    }
    if let Err(why) = dns_subdomain(&text.to_ascii_lowercase()) {
        field.invalid(&why);
    }
}

/// A name of C, as CEL takes them.
fn identifier(field: &Field<'_>, text: &str) {
    if text.len() > MAX_IDENTIFIER {
        field.too_long(MAX_IDENTIFIER);
    }
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        field.invalid("a valid C identifier must start with a letter or '_', followed by letters, digits or '_'");
    }
}

/// `name` or `domain/name`.
pub(super) fn qualified(field: &Field<'_>, text: &str) {
    match text.split_once('/') {
        None => identifier(field, text),
        Some(("", _)) => field.invalid("the domain must not be empty"),
        Some((_, "")) => field.invalid("the name must not be empty"),
        Some((before, name)) => {
            domain(field, before);
            identifier(field, name);
        }
    }
}

/// `domain/name`.
pub(super) fn fully_qualified(field: &Field<'_>) {
    qualified(field, field.text());
    if !field.text().contains('/') {
        field.invalid("a fully qualified name must be a domain and a name separated by a slash");
    }
}

/// Subdomains joined by `/`.
pub(super) fn pool(name: &Field<'_>) {
    if !name.must_exist() {
        return;
    }
    if name.text().len() > MAX_POOL {
        name.too_long(MAX_POOL);
    }
    for part in name.text().split('/') {
        if let Err(why) = dns_subdomain(part) {
            name.invalid(&why);
        }
    }
}
