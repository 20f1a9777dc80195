//! The files of a ConfigMap, Secret, downward API or projected volume. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod, Volume};

use crate::container::{
    downward::{self, DownwardError, Known},
    env::Source,
};

/// Mode of files where nothing is said.
const DEFAULT_MODE: u32 = 0o644;

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, where that is not root.
    pub owner: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// Why a volume has no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// configmap "x" not found
    #[error("{kind} {name:?} not found")]
    Missing {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// key
    #[error("{kind} {name:?} has no key {key:?}")]
    Key {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// token
    #[error("no token for {0:?} was issued")]
    Token(String),
    /// bad path
    #[error("the path {0:?} leads out of the volume")]
    Path(String),
    /// downward API
    #[error(transparent)]
    Downward(#[from] DownwardError),
}

/// What a payload is drawn from.
pub struct Inputs<'a> {
    /// ConfigMaps and Secrets.
    pub source: &'a dyn Source,
    /// Issued tokens, by volume and path.
    pub tokens: &'a BTreeMap<(String, String), String>,
    /// For the downward API.
    pub known: &'a Known,
    /// Owner of token files: the user that all containers run as.
    pub token_owner: Option<u32>,
    /// `fsGroup` is set: tokens need not be readable by all.
    pub fs_group: bool,
}

type Data = BTreeMap<String, Vec<u8>>;

/// The files of `volume`; `None` for a volume that is no file of objects.
pub fn payload(pod: &Pod, volume: &Volume, inputs: &Inputs<'_>) -> Result<Option<Payload>, PayloadError> {
    let mut out = Payload::new();
    if let Some(v) = &volume.config_map {
        let data = inputs.source.config_map(&v.name);
        add_keys(&mut out, &keys("configmap", &v.name, data, v.optional)?, v.items.as_deref(), v.default_mode)?;
    } else if let Some(v) = &volume.secret {
        let name = v.secret_name.as_deref().unwrap_or_default();
        add_keys(&mut out, &keys("secret", name, inputs.source.secret(name), v.optional)?, v.items.as_deref(), v.default_mode)?;
    } else if let Some(v) = &volume.downward_api {
        add_fields(&mut out, pod, v.items.as_deref(), v.default_mode, inputs.known)?;
    } else if let Some(v) = &volume.projected {
        for source in v.sources.iter().flatten() {
            if let Some(s) = &source.config_map {
                let data = keys("configmap", &s.name, inputs.source.config_map(&s.name), s.optional)?;
                add_keys(&mut out, &data, s.items.as_deref(), v.default_mode)?;
            }
            if let Some(s) = &source.secret {
                let data = keys("secret", &s.name, inputs.source.secret(&s.name), s.optional)?;
                add_keys(&mut out, &data, s.items.as_deref(), v.default_mode)?;
            }
            if let Some(s) = &source.downward_api {
                add_fields(&mut out, pod, s.items.as_deref(), v.default_mode, inputs.known)?;
            }
            if let Some(s) = &source.service_account_token {
                let token = inputs.tokens.get(&(volume.name.clone(), s.path.clone()));
                let token = token.ok_or_else(|| PayloadError::Token(s.path.clone()))?;
                let private = inputs.fs_group || inputs.token_owner.is_some();
                let mode = if private { 0o600 } else { mode(None, v.default_mode) };
                add(&mut out, &s.path, File { data: token.clone().into_bytes(), mode, owner: inputs.token_owner })?;
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(out))
}

/// The data with what names it, for messages.
struct Keys<'a> {
    kind: &'static str,
    name: &'a str,
    data: Data,
    optional: bool,
}

fn keys<'a>(kind: &'static str, name: &'a str, data: Option<Data>, optional: Option<bool>) -> Result<Keys<'a>, PayloadError> {
    let optional = optional == Some(true);
    match data {
        None if !optional => Err(PayloadError::Missing { kind, name: name.to_owned() }),
        data => Ok(Keys { kind, name, data: data.unwrap_or_default(), optional }),
    }
}

fn add_keys(out: &mut Payload, keys: &Keys<'_>, items: Option<&[KeyToPath]>, default: Option<i32>) -> Result<(), PayloadError> {
    match items.filter(|i| !i.is_empty()) {
        None => {
            for (key, data) in &keys.data {
                add(out, key, File { data: data.clone(), mode: mode(None, default), owner: None })?;
            }
        }
        Some(items) => {
            for item in items {
                match keys.data.get(&item.key) {
                    Some(data) => add(out, &item.path, File { data: data.clone(), mode: mode(item.mode, default), owner: None })?,
                    None if keys.optional => {}
                    None => return Err(PayloadError::Key { kind: keys.kind, name: keys.name.to_owned(), key: item.key.clone() }),
                }
            }
        }
    }
    Ok(())
}

fn add_fields(
    out: &mut Payload,
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default: Option<i32>,
    known: &Known,
) -> Result<(), PayloadError> {
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(pod, &field.field_path, known)?,
            (None, Some(resource)) => downward::resource(pod, None, resource, known)?,
            (None, None) => String::new(),
        };
        add(out, &item.path, File { data: text.into_bytes(), mode: mode(item.mode, default), owner: None })?;
    }
    Ok(())
}

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).and_then(|m| u32::try_from(m).ok()).map_or(DEFAULT_MODE, |m| m & 0o7777)
}

/// Paths are checked here once for all writers.
fn add(out: &mut Payload, path: &str, file: File) -> Result<(), PayloadError> {
    let bad = path.is_empty() || path.starts_with('/') || path.starts_with("..") || path.split('/').any(|p| p == ".." || p.is_empty());
    if bad {
        return Err(PayloadError::Path(path.to_owned()));
    }
    out.insert(path.to_owned(), file);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Objects;
    impl Source for Objects {
        fn config_map(&self, name: &str) -> Option<Data> {
            (name == "cm").then(|| Data::from([("a".into(), b"A".to_vec()), ("b".into(), b"B".to_vec())]))
        }
        fn secret(&self, _: &str) -> Option<Data> {
            None
        }
    }

    fn of(volume: Value) -> Result<Vec<String>, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let tokens = BTreeMap::from([(("v".to_owned(), "token".to_owned()), "T".to_owned())]);
        let inputs = Inputs { source: &Objects, tokens: &tokens, known: &Known::default(), token_owner: None, fs_group: false };
        let volume: Volume = serde_json::from_value(volume).expect("a volume");
        let files = payload(&Pod::default(), &volume, &inputs).map_err(|e| e.to_string())?.unwrap_or_default();
        Ok(files.into_iter().map(|(path, f)| format!("{path}={} {:o}", String::from_utf8_lossy(&f.data), f.mode)).collect())
    }

    #[test]
    fn volumes_of_objects() {
        let cases: [(Value, Result<&[&str], &str>); 9] = [
            (json!({ "configMap": { "name": "cm" } }), Ok(&["a=A 644", "b=B 644"])),
            (
                json!({ "configMap": { "name": "cm", "defaultMode": 0o400, "items": [{ "key": "b", "path": "d/b", "mode": 0o444 }] } }),
                Ok(&["d/b=B 444"]),
            ),
            (json!({ "configMap": { "name": "cm", "items": [{ "key": "z", "path": "z" }] } }), Err("configmap \"cm\" has no key \"z\"")),
            (json!({ "configMap": { "name": "cm", "optional": true, "items": [{ "key": "z", "path": "z" }] } }), Ok(&[])),
            (json!({ "configMap": { "name": "no" } }), Err("configmap \"no\" not found")),
            (json!({ "configMap": { "name": "no", "optional": true } }), Ok(&[])),
            (json!({ "secret": { "secretName": "no" } }), Err("secret \"no\" not found")),
            (
                json!({ "configMap": { "name": "cm", "items": [{ "key": "b", "path": "../b" }] } }),
                Err("the path \"../b\" leads out of the volume"),
            ),
            (
                json!({ "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }, { "configMap": { "name": "cm" } }] } }),
                Ok(&["a=A 644", "b=B 644", "token=T 644"]),
            ),
        ];
        for (volume, want) in cases {
            let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()).map_err(str::to_owned);
            assert_eq!(of(volume.clone()), want, "{volume}");
        }
    }
}
