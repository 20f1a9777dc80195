//! What the labels of a namespace ask for: a level and a version for each of enforce, warn and audit.

use std::fmt;

use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// From the least to the most strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is allowed.
    Privileged,
    /// Known ways out of a container are closed.
    Baseline,
    /// Good practice is required.
    Restricted,
}

/// Of the standards, `v1.29`; `None` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(Option<u32>);

impl Version {
    /// Whether a rule that came with `v1.minor` is part of it.
    pub fn at_least(self, minor: u32) -> bool {
        self.0.is_none_or(|own| own >= minor)
    }
}

/// A level as it was at a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// How strict.
    pub level: Level,
    /// Rules of which release.
    pub version: Version,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version.0 {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

impl Default for Standard {
    fn default() -> Self {
        Self { level: Level::Privileged, version: Version(None) }
    }
}

impl Standard {
    /// Whether pods that were fine under `before` may not be any more.
    pub fn tightens(self, before: Self) -> bool {
        self != before && self.level != Level::Privileged && !(self.version == before.version && self.level <= before.level)
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Standard,
    /// Whoever writes what violates it is told.
    pub warn: Standard,
    /// What violates it is logged.
    pub audit: Standard,
}

/// A label that says nothing sensible: its field, its value, why.
pub type LabelError = (String, String, &'static str);

impl Policy {
    /// Of the labels of a namespace, and what counts without them. A level that nobody knows is the strictest one for enforce, none for the
    /// others.
    pub fn read(labels: &Value, defaults: Self) -> (Self, Vec<LabelError>) {
        let mut errors = Vec::new();
        let mut label = |name: &str| -> (Option<Option<Level>>, Option<Version>) {
            let mut take = |key: String, why: &'static str, valid: bool| {
                if !valid {
                    let value = labels[&key].as_str().unwrap_or_default().to_owned();
                    errors.push((format!("metadata.labels[{key}]"), value, why));
                }
            };
            let key = format!("{PREFIX}{name}");
            let level = labels.get(&key).map(|value| parse_level(value.as_str().unwrap_or_default()));
            take(key, "must be one of privileged, baseline, restricted", level != Some(None));
            let key = format!("{PREFIX}{name}-version");
            let version = labels.get(&key).map(|value| parse_version(value.as_str().unwrap_or_default()));
            take(key, "must be \"latest\" or \"v1.x\"", version != Some(None));
            (level, version.map(|version| version.unwrap_or(Version(None))))
        };
        let mut policy = defaults;
        let (enforce, enforce_version) = label("enforce");
        let (audit, audit_version) = label("audit");
        let (warn, warn_version) = label("warn");
        if let Some(level) = enforce {
            policy.enforce.level = level.unwrap_or(Level::Restricted);
        }
        for (standard, level) in [(&mut policy.audit, audit), (&mut policy.warn, warn)] {
            standard.level = level.map_or(standard.level, |level| level.unwrap_or(Level::Privileged));
        }
        for (standard, version) in
            [(&mut policy.enforce, enforce_version), (&mut policy.audit, audit_version), (&mut policy.warn, warn_version)]
        {
            standard.version = version.unwrap_or(standard.version);
        }
        // Whoever is held to a level is told about it as well.
        if warn.is_none() && enforce.flatten().is_some_and(|level| level > policy.warn.level) {
            policy.warn.level = policy.enforce.level;
            if warn_version.is_none() {
                policy.warn.version = policy.enforce.version;
            }
        }
        (policy, errors)
    }

    /// Whether it asks for nothing.
    pub fn is_open(&self) -> bool {
        [self.enforce, self.warn, self.audit].iter().all(|standard| standard.level == Level::Privileged)
    }
}

pub(super) fn parse_level(text: &str) -> Option<Level> {
    match text {
        "privileged" => Some(Level::Privileged),
        "baseline" => Some(Level::Baseline),
        "restricted" => Some(Level::Restricted),
        _ => None,
    }
}

pub(super) fn parse_version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(Version(None));
    }
    let minor = text.strip_prefix("v1.")?;
    let canonical = minor == "0" || !minor.starts_with('0');
    let digits = !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit());
    (canonical && digits).then(|| minor.parse().ok().map(|minor| Version(Some(minor)))).flatten()
}
