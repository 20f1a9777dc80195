//! What opens a registry, and where that came from: image pull Secrets (`.dockerconfigjson`, `.dockercfg`) and credential providers. Pure.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_runtime::Credentials;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pattern;

/// Credentials, and whose they are.
#[derive(Clone, Debug)]
pub struct Key {
    /// What is shown to the registry.
    pub credentials: Credentials,
    /// Who may use them.
    pub source: Source,
}

/// Who may use credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// All pods of the node.
    Node,
    /// Pods that name this Secret.
    Secret(Owner),
    /// Pods of this ServiceAccount.
    ServiceAccount(Owner),
}

/// An object of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// First in the order that records have.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Key {
    /// Tells credentials apart without telling them.
    pub fn hash(&self) -> String {
        let Credentials { username, password, token } = &self.credentials;
        let text = serde_json::json!({"username": username, "password": password, "registrytoken": token}).to_string();
        Sha256::digest(text).iter().fold(String::with_capacity(64), |mut out, byte| {
            // Writing to a String does not fail.
            let _ = fmt::Write::write_fmt(&mut out, format_args!("{byte:02x}"));
            out
        })
    }
}

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
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// What a Secret's data gives for an image (a full name without tag); what cannot be read gives nothing.
pub fn of_secret(data: &BTreeMap<String, Vec<u8>>, image: &str) -> Vec<Credentials> {
    let new = data.get(".dockerconfigjson").and_then(|d| serde_json::from_slice::<Config>(d).ok()).map(|c| c.auths);
    let old = || data.get(".dockercfg").and_then(|d| serde_json::from_slice(d).ok());
    let entries: BTreeMap<String, Entry> = new.or_else(old).unwrap_or_default();
    let patterns = entries.into_iter().filter_map(|(key, entry)| Some((pattern::of_key(&key), read(entry)?)));
    fitting(patterns.collect(), image)
}

/// What is keyed by patterns that cover an image, the most particular first.
pub fn fitting<T>(mut list: Vec<(String, T)>, image: &str) -> Vec<T> {
    list.retain(|(key, _)| pattern::covers(key, image));
    list.sort_by(|(one, _), (other, _)| other.cmp(one));
    list.into_iter().map(|(_, value)| value).collect()
}

fn read(entry: Entry) -> Option<Credentials> {
    let given = |text: Option<String>| text.filter(|t| !t.is_empty());
    let token = given(entry.registrytoken);
    if let Some(password) = given(entry.identitytoken) {
        // Nobody's password: it is exchanged for tokens.
        return Some(Credentials { username: String::new(), password, token });
    }
    if let (Some(username), Some(password)) = (given(entry.username), entry.password) {
        return Some(Credentials { username, password, token });
    }
    let auth = given(entry.auth).and_then(|auth| STANDARD.decode(auth.trim()).ok()).and_then(|auth| String::from_utf8(auth).ok());
    match (auth.as_deref().and_then(|auth| auth.split_once(':')), token) {
        (Some((username, password)), token) => {
            Some(Credentials { username: username.to_owned(), password: password.trim_end_matches('\0').to_owned(), token })
        }
        (None, Some(token)) => Some(Credentials { username: String::new(), password: String::new(), token: Some(token) }),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret() {
        let text = r#"{"auths":{"r.example":{"auth":"dTpwOnE="},"r.example/team":{"username":"t","password":"x"},"other":{"auth":"!"}}}"#;
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), text.as_bytes().to_vec())]);
        let names = |image: &str| of_secret(&data, image).into_iter().map(|c| (c.username, c.password)).collect::<Vec<_>>();
        let pair = |name: &str, password: &str| (name.to_owned(), password.to_owned());
        assert_eq!(names("r.example/a"), [pair("u", "p:q")]);
        assert_eq!(names("r.example/team/a"), [pair("t", "x"), pair("u", "p:q")], "the most particular comes first");
        assert!(names("x.example/a").is_empty() && names("other/a").is_empty());
        let old =
            BTreeMap::from([(".dockercfg".to_owned(), br#"{"https://index.docker.io/v1/":{"username":"u","password":"p"}}"#.to_vec())]);
        assert_eq!(of_secret(&old, "docker.io/library/busybox").len(), 1);
        let broken = BTreeMap::from([(".dockerconfigjson".to_owned(), b"{".to_vec())]);
        assert!(of_secret(&broken, "r.example/a").is_empty());
    }

    #[test]
    fn a_hash_tells_credentials_apart() {
        let key = |password: &str, token: Option<&str>| {
            let credentials = Credentials { username: "u".into(), password: password.into(), token: token.map(Into::into) };
            Key { credentials, source: Source::Node }.hash()
        };
        assert_eq!(key("a", None), key("a", None));
        assert!(key("a", None) != key("b", None) && key("a", None) != key("a", Some("")) && key("a", None).len() == 64);
    }
}
