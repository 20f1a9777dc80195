//! Credentials for a registry out of image pull Secrets (`.dockerconfigjson`, `.dockercfg`).

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_runtime::Credentials;
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
    registrytoken: Option<String>,
}

/// What a Secret's data gives for an image; what cannot be read gives nothing.
pub fn credentials(data: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<Credentials> {
    let new = data.get(".dockerconfigjson").and_then(|d| serde_json::from_slice::<Config>(d).ok()).map(|c| c.auths);
    let old = || data.get(".dockercfg").and_then(|d| serde_json::from_slice(d).ok());
    let entries: BTreeMap<String, Entry> = new.or_else(old).unwrap_or_default();
    // The longest key comes first: it is the most particular.
    let mut fits: Vec<_> = entries.into_iter().filter(|(key, _)| covers(key, image)).collect();
    fits.sort_by_key(|(key, _)| std::cmp::Reverse(key.len()));
    fits.into_iter().filter_map(|(_, entry)| read(entry)).collect()
}

fn read(entry: Entry) -> Option<Credentials> {
    if let (Some(username), Some(password)) = (entry.username, entry.password) {
        return Some(Credentials { username, password, token: entry.registrytoken });
    }
    let auth = STANDARD.decode(entry.auth?.trim()).ok()?;
    let (username, password) = std::str::from_utf8(&auth).ok()?.split_once(':')?;
    Some(Credentials { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned(), token: None })
}

/// Whether a key (`host[:port][/path]`, maybe a URL, `*.host`) covers an image.
fn covers(key: &str, image: &str) -> bool {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let path = path.trim_start_matches("v1").trim_start_matches("v2").trim_matches('/');
    let (registry, rest) = match image.split_once('/') {
        Some((first, rest)) if first.contains('.') || first.contains(':') || first == "localhost" => (first, rest),
        _ => ("docker.io", image),
    };
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    let same = match host.strip_prefix("*.") {
        Some(domain) => registry.split_once('.').is_some_and(|(_, d)| d == domain),
        None => registry == host,
    };
    same && rest.starts_with(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_registries() {
        for (key, image, want) in [
            ("https://index.docker.io/v1/", "busybox", true),
            ("r.example", "r.example/a:1", true),
            ("r.example", "q.example/a:1", false),
            ("*.example", "r.example/a", true),
            ("r.example:5000/team", "r.example:5000/team/a", true),
            ("r.example:5000/team", "r.example:5000/other/a", false),
        ] {
            assert_eq!(covers(key, image), want, "{key} {image}");
        }
    }

    #[test]
    fn a_secret() {
        let text = r#"{"auths":{"r.example":{"auth":"dTpwOnE="},"other":{"auth":"!"}}}"#;
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), text.as_bytes().to_vec())]);
        let found = credentials(&data, "r.example/a");
        assert_eq!(found.iter().map(|c| (c.username.as_str(), c.password.as_str())).collect::<Vec<_>>(), [("u", "p:q")]);
        assert!(credentials(&data, "x.example/a").is_empty());
    }
}
