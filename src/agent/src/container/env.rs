//! A container's environment: literals, references, whole ConfigMaps and Secrets, `$(NAME)` in values, commands and arguments.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use super::{
    downward::{self, DownwardError, Known},
    env_file::{FileError, Files},
};

/// Where ConfigMaps and Secrets come from. Values are bytes.
pub trait Source {
    /// The data of a ConfigMap of the pod's namespace.
    fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
    /// The data of a Secret of the pod's namespace.
    fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>>;
}

/// Why a container has no environment (`CreateContainerConfigError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// configmap "x" not found
    #[error("{kind} {name:?} not found")]
    Missing {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// couldn't find key k in ConfigMap ns/name
    #[error("couldn't find key {key} in {kind} {name}")]
    Key {
        /// configmap or secret.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// couldn't find key k in the file f of volume v
    #[error("couldn't find key {key} in the file {path} of volume {volume}")]
    FileKey {
        /// The volume.
        volume: String,
        /// In it.
        path: String,
        /// The key.
        key: String,
    },
    /// couldn't take key k from a file of volume v: {why}
    #[error("couldn't take key {key} from a file of volume {volume}: {why}")]
    File {
        /// The volume.
        volume: String,
        /// The key.
        key: String,
        /// What is wrong with the file.
        why: FileError,
    },
    /// the reference of variable {0} points to nothing
    #[error("the reference of variable {0} points to nothing")]
    Reference(String),
    /// fieldRef or resourceFieldRef
    #[error(transparent)]
    Downward(#[from] DownwardError),
}

/// All variables, later ones over earlier ones: services, then `envFrom`, then `env`. `files` has what their `fileKeyRef` name.
pub fn environment(
    pod: &Pod,
    container: &Container,
    services: &[(String, String)],
    source: &dyn Source,
    files: &Files,
    known: &Known,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut out = Variables { list: services.to_vec() };
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let (kind, name, optional, data) = if let Some(r) = &from.config_map_ref {
            ("configmap", &r.name, r.optional, source.config_map(&r.name))
        } else if let Some(r) = &from.secret_ref {
            ("secret", &r.name, r.optional, source.secret(&r.name))
        } else {
            continue;
        };
        let Some(data) = data else {
            if optional == Some(true) {
                continue;
            }
            return Err(EnvError::Missing { kind, name: name.clone() });
        };
        for (key, value) in data {
            out.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => Some(expand(text, &|name| out.get(name)).0),
            (_, Some(from)) => referred(pod, container, &variable.name, from, (source, files), known)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            out.set(variable.name.clone(), value);
        }
    }
    Ok(out.list)
}

fn referred(
    pod: &Pod,
    container: &Container,
    variable: &str,
    from: &EnvVarSource,
    (source, files): (&dyn Source, &Files),
    known: &Known,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &from.field_ref {
        return Ok(Some(downward::field(pod, &field.field_path, known)?));
    }
    if let Some(resource) = &from.resource_field_ref {
        return Ok(Some(downward::resource(pod, Some(container), resource, known)?));
    }
    if let Some(r) = &from.file_key_ref {
        let (volume, key, path) = (r.volume_name.clone(), r.key.clone(), r.path.clone());
        return match files.get(&(volume.clone(), path.clone())) {
            Some(Err(why)) => Err(EnvError::File { volume, key, why: why.clone() }),
            Some(Ok(Some(found))) if found.contains_key(&key) => Ok(found.get(&key).cloned()),
            _ if r.optional == Some(true) => Ok(None),
            _ => Err(EnvError::FileKey { volume, path, key }),
        };
    }
    let (kind, name, key, optional, data) = if let Some(r) = &from.config_map_key_ref {
        ("configmap", &r.name, &r.key, r.optional, source.config_map(&r.name))
    } else if let Some(r) = &from.secret_key_ref {
        ("secret", &r.name, &r.key, r.optional, source.secret(&r.name))
    } else {
        return Err(EnvError::Reference(variable.to_owned()));
    };
    match data.as_ref().map(|d| d.get(key)) {
        Some(Some(value)) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        _ if optional == Some(true) => Ok(None),
        None => Err(EnvError::Missing { kind, name: name.clone() }),
        Some(None) => Err(EnvError::Key { kind, name: name.clone(), key: key.clone() }),
    }
}

/// Variables in the order of their first setting.
#[derive(Debug, Default)]
struct Variables {
    list: Vec<(String, String)>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<String> {
        self.list.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    fn set(&mut self, name: String, value: String) {
        match self.list.iter_mut().find(|(n, _)| *n == name) {
            Some(old) => old.1 = value,
            None => self.list.push((name, value)),
        }
    }
}

/// Replaces `$(NAME)` by its value; an unknown name stays as it is, `$$` is `$`. The second value is the first unknown name.
pub fn expand(text: &str, get: &dyn Fn(&str) -> Option<String>) -> (String, Option<String>) {
    let mut out = String::with_capacity(text.len());
    let mut unknown = None;
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match get(name) {
                Some(value) => out.push_str(&value),
                None => {
                    unknown.get_or_insert_with(|| name.to_owned());
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    (out, unknown)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Objects;
    impl Source for Objects {
        fn config_map(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            (name == "cm").then(|| BTreeMap::from([("A".into(), b"a".to_vec()), ("OK".into(), b"map".to_vec())]))
        }
        fn secret(&self, name: &str) -> Option<BTreeMap<String, Vec<u8>>> {
            (name == "s").then(|| BTreeMap::from([("K".into(), b"key".to_vec())]))
        }
    }

    fn files() -> Files {
        let good = Ok(Some(BTreeMap::from([("K".to_owned(), "filed".to_owned())])));
        let bad = Err(FileError::Syntax { path: "bad".into(), line: 2 });
        [("good", good), ("bad", bad), ("none", Ok(None))].map(|(path, found)| (("v".to_owned(), path.to_owned()), found)).into()
    }

    fn of(container: Value) -> Result<String, String> {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        let pod = Pod::default();
        let services = [("SVC".to_owned(), "1".to_owned())];
        let list = environment(&pod, &container, &services, &Objects, &files(), &Known::default()).map_err(|e| e.to_string())?;
        Ok(list.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn later_wins_and_values_refer_to_earlier_ones() {
        let got = of(json!({ "envFrom": [{ "configMapRef": { "name": "cm" } }, { "prefix": "P_", "secretRef": { "name": "s" } }],
            "env": [{ "name": "OK", "value": "own" }, { "name": "B", "value": "$(OK)-$(A)-$(NONE)-$$(A)-$" }] }));
        assert_eq!(got.as_deref(), Ok("SVC=1 A=a OK=own P_K=key B=own-a-$(NONE)-$(A)-$"));
    }

    #[test]
    fn a_file_of_a_volume_has_variables() {
        let of = |path: &str, key: &str, optional: bool| {
            let from = json!({ "fileKeyRef": { "volumeName": "v", "path": path, "key": key, "optional": optional } });
            of(json!({ "env": [{ "name": "A", "valueFrom": from }, { "name": "B", "value": "$(A)" }] }))
        };
        assert_eq!(of("good", "K", false).as_deref(), Ok("SVC=1 A=filed B=filed"));
        assert_eq!(of("good", "X", false).unwrap_err(), "couldn't find key X in the file good of volume v");
        assert_eq!(of("none", "K", false).unwrap_err(), "couldn't find key K in the file none of volume v");
        assert_eq!(of("good", "X", true).as_deref(), Ok("SVC=1 B=$(A)"));
        assert_eq!(of("none", "K", true).as_deref(), Ok("SVC=1 B=$(A)"));
        assert_eq!(of("bad", "K", true).unwrap_err(), "couldn't take key K from a file of volume v: line 2 of bad is not VAR='value'");
    }

    #[test]
    fn what_is_missing_is_an_error_unless_optional() {
        let key = |name: &str, key: &str, optional: bool| json!({ "env": [{ "name": "V", "valueFrom": { "configMapKeyRef": { "name": name, "key": key, "optional": optional } } }] });
        assert_eq!(of(key("nope", "k", false)).unwrap_err(), "configmap \"nope\" not found");
        assert_eq!(of(key("cm", "k", false)).unwrap_err(), "couldn't find key k in configmap cm");
        assert_eq!(of(key("nope", "k", true)).as_deref(), Ok("SVC=1"));
        assert_eq!(of(json!({ "envFrom": [{ "secretRef": { "name": "x" } }] })).unwrap_err(), "secret \"x\" not found");
        assert_eq!(of(json!({ "envFrom": [{ "secretRef": { "name": "x", "optional": true } }] })).as_deref(), Ok("SVC=1"));
    }
}
