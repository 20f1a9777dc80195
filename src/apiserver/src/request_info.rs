//! Reads off a method and a path what is asked, by upstream's rules (RequestInfo).

use http::Method;
use percent_encoding::percent_decode_str;

use crate::request::RequestInfo;

/// Subresources of a namespace; everything else below one is a resource in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Why a path under `/api` or `/apis` cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to determine kind and namespace from url, {path}")]
pub struct PathError {
    /// The path as it came.
    pub path: String,
}

/// What is asked. `query` is decoded.
pub fn parse(method: &Method, path: &str, query: &[(String, String)]) -> Result<RequestInfo, PathError> {
    let mut info = RequestInfo { path: decode(path), verb: method.as_str().to_ascii_lowercase(), ..RequestInfo::default() };
    // As upstream: decoded first, so an escaped slash parts as any other.
    let all: Vec<String> = info.path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let mut parts = &all[..];
    match parts {
        [prefix, version, _, ..] if prefix == "api" => {
            info.version.clone_from(version);
            parts = &parts[2..];
        }
        [prefix, group, version, _, ..] if prefix == "apis" => {
            info.group.clone_from(group);
            info.version.clone_from(version);
            parts = &parts[3..];
        }
        _ => return Ok(info),
    }
    info.is_resource = true;
    let proxied = parts[0] == "proxy";
    if proxied || parts[0] == "watch" {
        if parts.len() < 2 {
            return Err(PathError { path: path.to_owned() });
        }
        info.verb.clone_from(&parts[0]);
        parts = &parts[1..];
    } else {
        info.verb = verb(method).to_owned();
    }
    if parts[0] == "namespaces" && parts.len() > 1 {
        info.namespace.clone_from(&parts[1]);
        if parts.len() > 2 && !NAMESPACE_SUBRESOURCES.contains(&parts[2].as_str()) {
            parts = &parts[2..];
        }
    }
    info.resource.clone_from(&parts[0]);
    if let Some(name) = parts.get(1) {
        info.name.clone_from(name);
    }
    let below = if proxied {
        2
    } else {
        if let Some(subresource) = parts.get(2) {
            info.subresource.clone_from(subresource);
        }
        3
    };
    info.rest = rest(path, all.len() - parts.len() + below);
    if info.name.is_empty() {
        match info.verb.as_str() {
            "get" => info.verb = if wants_watch(query) { "watch" } else { "list" }.into(),
            "delete" => info.verb = "deletecollection".into(),
            _ => {}
        }
    }
    Ok(info)
}

/// The name that a collection request is confined to by its field selector: authorization treats it as that object's.
pub fn selected_name(query: &[(String, String)]) -> Option<&str> {
    let selector = query.iter().find(|(key, _)| key == "fieldSelector")?.1.as_str();
    let name = selector.split(',').find_map(|term| {
        let (field, value) = term.split_once('=')?;
        (field == "metadata.name").then(|| value.strip_prefix('=').unwrap_or(value))
    })?;
    (!name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])).then_some(name)
}

/// Whether a request lives on until one side ends it: no timeout, not counted as in flight.
pub fn long_running(info: &RequestInfo) -> bool {
    info.is_resource
        && (matches!(info.verb.as_str(), "watch" | "proxy")
            || matches!(info.subresource.as_str(), "proxy" | "attach" | "exec" | "portforward")
            || (info.subresource == "log" && info.resource == "pods"))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

fn wants_watch(query: &[(String, String)]) -> bool {
    // As upstream's decoder reads a boolean: present and not one of these.
    query.iter().find(|(key, _)| key == "watch").is_some_and(|(_, value)| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// What follows the first `count` parts of the path, as it came, without its leading slash.
fn rest(path: &str, count: usize) -> String {
    let mut left = path;
    for _ in 0..count {
        left = left.trim_start_matches('/');
        match left.find('/') {
            Some(end) => left = &left[end..],
            None => return String::new(),
        }
    }
    left.strip_prefix('/').unwrap_or(left).to_owned()
}

#[cfg(test)]
mod tests;
