//! The file `--admission-control-config-file`: AdmissionConfiguration of `apiserver.config.k8s.io`, with what it says of the plugins that take it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use coracle_api::quota::{Limited, Scope};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    event_rate_limit,
    pod_security::{self, Defaults},
};

/// Longer files are refused.
const MAX_BYTES: u64 = 1 << 20;
const KIND: &str = "AdmissionConfiguration";
const GROUP: &str = "apiserver.config.k8s.io/";
const VERSIONS: [&str; 2] = ["v1", "v1alpha1"];
const QUOTA_VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const EVENTS_GROUP: &str = "eventratelimit.admission.k8s.io/";
const SECURITY_GROUP: &str = "pod-security.admission.config.k8s.io/";
const SCOPES: [&str; 7] =
    ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity", "VolumeAttributesClass"];

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not there, or not for us.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Too long.
    #[error("{0} is larger than {MAX_BYTES} bytes")]
    TooLarge(PathBuf),
    /// Something in it.
    #[error("{path}: {}", wrong.join("; "))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each with its field.
        wrong: Vec<String>,
    },
}

/// What plugins are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Of ResourceQuota: what may be taken only where a quota says how much.
    pub limited: Vec<Limited>,
    /// Of PodSecurity.
    pub pod_security: pod_security::Settings,
    /// Of EventRateLimit, which is there only where it is told something.
    pub events: Vec<event_rate_limit::Limit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Document {
    api_version: String,
    kind: String,
    plugins: Vec<Plugin>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Plugin {
    name: String,
    /// Of a file with the configuration, beside this one if it is not absolute.
    path: String,
    configuration: Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Quota {
    api_version: String,
    kind: String,
    limited_resources: Vec<LimitedResource>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct LimitedResource {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    match_scopes: Vec<MatchScope>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct MatchScope {
    scope_name: String,
    operator: String,
    values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct PodSecurity {
    api_version: String,
    kind: String,
    defaults: Defaults,
    exemptions: pod_security::Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Events {
    api_version: String,
    kind: String,
    limits: Vec<event_rate_limit::Written>,
}

impl Configuration {
    /// Of a file, and of those that it names.
    pub fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let invalid = |wrong| ConfigurationError::Invalid { path: path.to_owned(), wrong };
        let document: Document = parsed(&text(path)?).map_err(|why| invalid(vec![why]))?;
        let mut wrong = Vec::new();
        known(&document.api_version, &document.kind, (GROUP, &VERSIONS, KIND), &mut wrong);
        let mut configuration = Self::default();
        for (at, plugin) in document.plugins.iter().enumerate() {
            let own = match (plugin.path.as_str(), &plugin.configuration) {
                ("", value) => value.clone(),
                (_, value) if !value.is_null() => {
                    wrong.push(format!("plugins[{at}]: path and configuration exclude each other"));
                    continue;
                }
                (beside, _) => {
                    let path = path.parent().unwrap_or(Path::new("")).join(beside);
                    parsed(&text(&path)?).map_err(|why| ConfigurationError::Invalid { path, wrong: vec![why] })?
                }
            };
            let mut own_wrong = Vec::new();
            match plugin.name.as_str() {
                _ if document.plugins[..at].iter().any(|other| other.name == plugin.name) => own_wrong.push("it comes twice".to_owned()),
                "EventRateLimit" if own.is_null() => own_wrong.push("it has no limits without a configuration".to_owned()),
                "EventRateLimit" => configuration.events = events(own, &mut own_wrong),
                _ if own.is_null() => {}
                "ResourceQuota" => configuration.limited = quota(own, &mut own_wrong),
                "PodSecurity" => configuration.pod_security = security(own, &mut own_wrong),
                _ => own_wrong.push("no plugin of this name takes a configuration".to_owned()),
            }
            wrong.extend(own_wrong.into_iter().map(|why| format!("plugins[{at}] ({}): {why}", plugin.name)));
        }
        if wrong.is_empty() { Ok(configuration) } else { Err(invalid(wrong)) }
    }
}

fn text(path: &Path) -> Result<String, ConfigurationError> {
    let read = |source| ConfigurationError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.len() > MAX_BYTES {
        return Err(ConfigurationError::TooLarge(path.to_owned()));
    }
    fs::read_to_string(path).map_err(read)
}

fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

/// The part of the document that a plugin reads.
fn part<T: DeserializeOwned + Default>(value: Value, wrong: &mut Vec<String>) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| {
        wrong.push(error.to_string());
        T::default()
    })
}

/// Whether a document is of the kind that is wanted.
fn known(api_version: &str, kind: &str, (group, versions, wanted): (&str, &[&str], &str), wrong: &mut Vec<String>) {
    let version = api_version.strip_prefix(group).filter(|version| versions.contains(version));
    if version.is_none() || kind != wanted {
        wrong.push(format!("it holds {kind:?} of {api_version:?}, not {wanted} of {group}{}", versions[0]));
    }
}

fn quota(value: Value, wrong: &mut Vec<String>) -> Vec<Limited> {
    let before = wrong.len();
    let Quota { api_version, kind, limited_resources } = part(value, wrong);
    if wrong.len() > before {
        return Vec::new();
    }
    match kind.as_str() {
        // The older group has another kind.
        "Configuration" => known(&api_version, &kind, ("resourcequota.admission.k8s.io/", &QUOTA_VERSIONS, "Configuration"), wrong),
        _ => known(&api_version, &kind, (GROUP, &VERSIONS[..1], "ResourceQuotaConfiguration"), wrong),
    }
    let rule = |(at, rule): (usize, LimitedResource)| {
        let at = format!("limitedResources[{at}]");
        if rule.resource.is_empty() {
            wrong.push(format!("{at}.resource: Required value"));
        }
        for scope in &rule.match_scopes {
            let takes_values = matches!(scope.operator.as_str(), "In" | "NotIn");
            if !SCOPES.contains(&scope.scope_name.as_str()) {
                wrong.push(format!("{at}.matchScopes: {:?} is no scope", scope.scope_name));
            } else if !takes_values && !matches!(scope.operator.as_str(), "Exists" | "DoesNotExist") {
                wrong.push(format!("{at}.matchScopes: {:?} is no operator", scope.operator));
            } else if takes_values == scope.values.is_empty() {
                wrong.push(format!("{at}.matchScopes: In and NotIn need values, and others take none"));
            }
        }
        let expressions = rule
            .match_scopes
            .iter()
            .map(|scope| json!({"scopeName": scope.scope_name, "operator": scope.operator, "values": scope.values}));
        let scopes = Scope::all(&json!({"scopeSelector": {"matchExpressions": expressions.collect::<Vec<_>>()}}));
        Limited { group: rule.api_group, resource: rule.resource, contains: rule.match_contains, scopes }
    };
    limited_resources.into_iter().enumerate().map(rule).collect()
}

fn security(value: Value, wrong: &mut Vec<String>) -> pod_security::Settings {
    let before = wrong.len();
    let PodSecurity { api_version, kind, defaults, exemptions } = part(value, wrong);
    if wrong.len() > before {
        return pod_security::Settings::default();
    }
    known(&api_version, &kind, (SECURITY_GROUP, &QUOTA_VERSIONS, "PodSecurityConfiguration"), wrong);
    for (field, names) in
        [("usernames", &exemptions.usernames), ("namespaces", &exemptions.namespaces), ("runtimeClasses", &exemptions.runtime_classes)]
    {
        for (at, name) in names.iter().enumerate() {
            if name.is_empty() || names[..at].contains(name) {
                wrong.push(format!("exemptions.{field}[{at}]: {name:?} is empty, or there already"));
            }
        }
    }
    let defaults = defaults.read().unwrap_or_else(|why| {
        wrong.extend(why);
        Default::default()
    });
    pod_security::Settings { defaults, exemptions }
}

fn events(value: Value, wrong: &mut Vec<String>) -> Vec<event_rate_limit::Limit> {
    let before = wrong.len();
    let Events { api_version, kind, limits } = part(value, wrong);
    if wrong.len() > before {
        return Vec::new();
    }
    known(&api_version, &kind, (EVENTS_GROUP, &["v1alpha1"], "Configuration"), wrong);
    event_rate_limit::read(&limits).unwrap_or_else(|why| {
        wrong.extend(why);
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Configuration, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("admission.yaml");
        fs::write(&path, text).expect("written");
        fs::write(directory.path().join("quota.yaml"), "apiVersion: apiserver.config.k8s.io/v1\nkind: ResourceQuotaConfiguration\nlimitedResources: [{resource: secrets, matchContains: [secrets]}]\n")
            .expect("written");
        Configuration::read(&path).map_err(|error| error.to_string())
    }

    fn plugins(plugins: &str) -> String {
        format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n{plugins}")
    }

    #[test]
    fn plugins_are_told_what_stands_in_the_file_or_beside_it() {
        let quota = "- name: ResourceQuota\n  configuration:\n    apiVersion: apiserver.config.k8s.io/v1\n    kind: ResourceQuotaConfiguration\n    \
            limitedResources:\n    - resource: pods\n      matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]\n";
        let read = check(&plugins(quota)).expect("good");
        assert_eq!(
            (read.limited[0].resource.as_str(), read.limited[0].scopes[0].to_string().as_str()),
            ("pods", "{PriorityClass In [high]}")
        );
        let beside = check(&plugins("- name: ResourceQuota\n  path: quota.yaml\n")).expect("good");
        assert_eq!(beside.limited[0].contains, ["secrets"]);
        let security = "- name: PodSecurity\n  configuration:\n    apiVersion: pod-security.admission.config.k8s.io/v1\n    kind: PodSecurityConfiguration\n    \
            defaults: {enforce: baseline, enforce-version: v1.29}\n    exemptions: {namespaces: [kube-system]}\n";
        let read = check(&plugins(security)).expect("good").pod_security;
        assert_eq!(
            (read.defaults.enforce.to_string().as_str(), &read.exemptions.namespaces[..]),
            ("baseline:v1.29", &["kube-system".to_owned()][..])
        );
        let events = "- name: EventRateLimit\n  configuration:\n    apiVersion: eventratelimit.admission.k8s.io/v1alpha1\n    kind: Configuration\n    \
            limits: [{type: Server, qps: 50, burst: 100}, {type: User, qps: 5, burst: 10, cacheSize: 7}, {type: Namespace, qps: 1, burst: 1}]\n";
        let read = check(&plugins(events)).expect("good").events;
        let told: Vec<_> = read.iter().map(|limit| (limit.kind.to_string(), limit.qps, limit.burst, limit.cache_size)).collect();
        assert_eq!(told, [("Server".into(), 50, 100, 1), ("User".into(), 5, 10, 7), ("Namespace".into(), 1, 1, 4096)]);
        assert_eq!(check(&plugins("- name: PodSecurity\n")).expect("good"), Configuration::default());
    }

    #[test]
    fn whatever_is_wrong_is_named() {
        let quota = |rest: &str| {
            plugins(&format!(
                "- name: ResourceQuota\n  configuration: {{apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration, {rest}}}\n"
            ))
        };
        let security = |rest: &str| {
            plugins(&format!(
                "- name: PodSecurity\n  configuration: {{apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, {rest}}}\n"
            ))
        };
        let events = |rest: &str| plugins(&format!("- name: EventRateLimit\n  configuration: {{kind: Configuration, {rest}}}\n"));
        for (text, what) in [
            ("kind: Pod\n".to_owned(), "it holds \"Pod\" of \"\""),
            ("plugin: []\n".to_owned(), "plugin"),
            (plugins("- name: Nobody\n  configuration: {a: b}\n"), "plugins[0] (Nobody): no plugin of this name"),
            (plugins("- name: ResourceQuota\n  configuration: {kind: Pod}\n"), "not ResourceQuotaConfiguration"),
            (plugins("- name: ResourceQuota\n- name: ResourceQuota\n"), "it comes twice"),
            (plugins("- name: ResourceQuota\n  path: nowhere.yaml\n"), "nowhere.yaml"),
            (plugins("- name: ResourceQuota\n  path: quota.yaml\n  configuration: {a: b}\n"), "exclude each other"),
            (plugins("- name: EventRateLimit\n"), "plugins[0] (EventRateLimit): it has no limits"),
            (events("apiVersion: eventratelimit.admission.k8s.io/v1"), "not Configuration of eventratelimit.admission.k8s.io/v1alpha1"),
            (events("apiVersion: eventratelimit.admission.k8s.io/v1alpha1"), "limits: there must be one"),
            (events("limits: [{type: User, qps: many}]"), "plugins[0] (EventRateLimit): "),
            (quota("limitedResources: [{matchContains: [a]}]"), "limitedResources[0].resource: Required value"),
            (quota("limitedResources: [{resource: pods, matchScopes: [{scopeName: Nope, operator: Exists}]}]"), "\"Nope\" is no scope"),
            (quota("limitedResources: [{resource: pods, matchScopes: [{scopeName: PriorityClass, operator: In}]}]"), "need values"),
            (quota("limited: []"), "limited"),
            (security("defaults: {enforce: strict}"), "defaults.enforce"),
            (security("defaults: {warn-version: v2}"), "defaults.warn-version"),
            (security("exemptions: {usernames: [a, a]}"), "exemptions.usernames[1]"),
        ] {
            let why = check(&text).expect_err(&text);
            assert!(why.contains(what), "{text}: {why}");
        }
    }
}
