//! What the operator tells PodSecurity: what counts for namespaces without labels, and who is exempt from all of it.

use serde::Deserialize;

use super::policy::{Policy, Standard, parse_level, parse_version};

/// What it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Of a namespace that says nothing.
    pub defaults: Policy,
    /// Who and what is let pass.
    pub exemptions: Exemptions,
}

/// Who and what is let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Exemptions {
    /// Who writes.
    pub usernames: Vec<String>,
    /// Where.
    pub namespaces: Vec<String>,
    /// Of the pod.
    pub runtime_classes: Vec<String>,
}

/// `defaults` of the configuration, as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

impl Defaults {
    /// What it means; or what is wrong, by its field.
    pub fn read(&self) -> Result<Policy, Vec<String>> {
        let mut wrong = Vec::new();
        let mut standard = |name: &str, level: &str, version: &str| -> Standard {
            let mut read = Standard::default();
            match parse_level(level) {
                Some(level) => read.level = level,
                None if level.is_empty() => {}
                None => wrong.push(format!("defaults.{name}: {level:?} is not one of privileged, baseline, restricted")),
            }
            match parse_version(version) {
                Some(version) => read.version = version,
                None if version.is_empty() => {}
                None => wrong.push(format!("defaults.{name}-version: {version:?} is not latest or v1.x")),
            }
            read
        };
        let policy = Policy {
            enforce: standard("enforce", &self.enforce, &self.enforce_version),
            warn: standard("warn", &self.warn, &self.warn_version),
            audit: standard("audit", &self.audit, &self.audit_version),
        };
        if wrong.is_empty() { Ok(policy) } else { Err(wrong) }
    }
}

impl Exemptions {
    /// Why a pod is let pass, in upstream's word for it.
    pub fn reason(&self, namespace: &str, user: &str, runtime_class: Option<&str>) -> Option<&'static str> {
        let has = |names: &[String], name: &str| names.iter().any(|known| known == name);
        match () {
            () if has(&self.namespaces, namespace) => Some("namespace"),
            () if has(&self.usernames, user) => Some("user"),
            () if runtime_class.is_some_and(|class| has(&self.runtime_classes, class)) => Some("runtimeClass"),
            () => None,
        }
    }
}
