//! Audit policy (`audit.k8s.io/v1`): which requests are recorded, and how much of each. The first rule that matches counts.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::authorization::Question;

/// The policy of a server that is told none: who wrote what, and who went into which pod. Leases, Events, reviews and the heartbeats of nodes
/// are written without anybody's wish and would be most of the log.
const WRITES: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  resources:
  - {group: coordination.k8s.io, resources: [leases]}
  - {group: "", resources: [events]}
  - {group: events.k8s.io}
  - {group: authentication.k8s.io}
  - {group: authorization.k8s.io}
- level: None
  userGroups: ["system:nodes"]
  resources: [{group: "", resources: [nodes/status]}]
- level: Metadata
  verbs: [create, update, patch, delete, deletecollection]
- level: Metadata
  verbs: [get]
  resources: [{group: "", resources: [pods/exec, pods/attach, pods/portforward]}]
- level: Metadata
  verbs: [post, put, patch, delete]
  nonResourceURLs: ["/coracle/*"]
"#;
/// Larger policy files are refused: no policy is a megabyte.
const MAX_BYTES: u64 = 1 << 20;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
pub enum Level {
    /// Nothing.
    #[default]
    None,
    /// Who asked for what, and what came of it.
    Metadata,
    /// The same, with the object that was sent.
    Request,
    /// The same, with the object that was answered.
    RequestResponse,
}

/// When an event is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Stage {
    /// Before anything was decided.
    RequestReceived,
    /// The head of a stream's answer is out.
    ResponseStarted,
    /// All is said.
    ResponseComplete,
    /// A handler panicked.
    Panic,
}

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not read.
    #[error("the audit policy {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a policy.
    #[error("the audit policy {path}: {what}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong.
        what: String,
    },
}

/// What is recorded of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much.
    pub level: Level,
    /// Objects lose their managedFields.
    pub omit_managed_fields: bool,
    /// A bit for each stage that has no event.
    pub(super) omitted: u8,
}

impl Verdict {
    /// Whether there is an event of the stage.
    pub fn wants(&self, stage: Stage) -> bool {
        self.omitted & bit(stage) == 0
    }
}

/// A policy, checked.
#[derive(Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

#[derive(Debug, Default)]
struct Rule {
    verdict: Verdict,
    given: Given,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    #[serde(rename = "metadata")]
    _metadata: Value,
    #[serde(default)]
    rules: Vec<Given>,
    #[serde(default)]
    omit_stages: Vec<String>,
    #[serde(default)]
    omit_managed_fields: bool,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

/// A rule as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Given {
    level: String,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<Resources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
    omit_stages: Vec<String>,
    omit_managed_fields: Option<bool>,
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Resources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// The policy of a server that is told none.
    pub fn writes() -> Self {
        Self::parse(WRITES).unwrap_or_default()
    }

    /// From a file.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let failed = |source| PolicyError::Read { path: path.to_owned(), source };
        let invalid = |what| PolicyError::Invalid { path: path.to_owned(), what };
        let size = std::fs::metadata(path).map_err(failed)?.len();
        if size > MAX_BYTES {
            return Err(invalid(format!("it has {size} bytes, the bound is {MAX_BYTES}")));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(failed)?).map_err(invalid)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        let Document { api_version, kind, _metadata: _, rules: given, omit_stages, omit_managed_fields, unknown } = document;
        if (api_version.as_str(), kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("it is {kind:?} of {api_version:?}, not a Policy of \"audit.k8s.io/v1\""));
        }
        let mut problems = Vec::new();
        // Upstream goes on without fields that it does not know.
        unknown.keys().for_each(|field| tracing::warn!(field, "the audit policy has an unknown field"));
        let all = stages(&omit_stages, "omitStages", &mut problems);
        let mut rules = Vec::with_capacity(given.len());
        for (index, rule) in given.into_iter().enumerate() {
            rule.unknown.keys().for_each(|field| tracing::warn!(field, rule = index, "the audit policy has an unknown field"));
            let verdict = rule.check(&format!("rules[{index}]"), omit_managed_fields, all, &mut problems);
            rules.push(Rule { verdict, given: rule });
        }
        if rules.is_empty() {
            problems.push("rules: Required value: a policy without a rule records nothing".into());
        }
        if problems.is_empty() { Ok(Self { rules }) } else { Err(problems.join("; ")) }
    }

    /// What is recorded of a request.
    pub fn judge(&self, asked: &Question<'_>) -> Verdict {
        self.rules.iter().find(|rule| rule.given.matches(asked)).map(|rule| rule.verdict).unwrap_or_default()
    }
}

impl Given {
    fn check(&self, at: &str, omit_managed_fields: bool, omitted: u8, problems: &mut Vec<String>) -> Verdict {
        let level = match self.level.as_str() {
            "None" => Level::None,
            "Metadata" => Level::Metadata,
            "Request" => Level::Request,
            "RequestResponse" => Level::RequestResponse,
            "" => {
                problems.push(format!("{at}.level: Required value"));
                Level::None
            }
            other => {
                let known = "\"None\", \"Metadata\", \"Request\", \"RequestResponse\"";
                problems.push(format!("{at}.level: Unsupported value: {other:?}: supported values: {known}"));
                Level::None
            }
        };
        for (index, path) in self.paths.iter().enumerate() {
            if path != "*" && !path.starts_with('/') {
                problems.push(format!("{at}.nonResourceURLs[{index}]: Invalid value: {path:?}: it does not begin with '/'"));
            }
            if path.find('*').is_some_and(|star| star + 1 < path.len()) {
                problems.push(format!("{at}.nonResourceURLs[{index}]: Invalid value: {path:?}: '*' stands at the end alone"));
            }
        }
        for resources in &self.resources {
            let Resources { group, resources, resource_names } = resources;
            if !group.is_empty() && group != "*" && coracle_api::names::dns_subdomain(group).is_err() {
                problems.push(format!("{at}.resources.group: Invalid value: {group:?}: not the name of an API group"));
            }
            if !resource_names.is_empty() && resources.is_empty() {
                problems.push(format!("{at}.resources.resourceNames: Invalid value: names of which resource?"));
            }
        }
        let of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if of_resources && !self.paths.is_empty() {
            problems.push(format!("{at}.nonResourceURLs: Invalid value: a rule is for resources or for other paths, not for both"));
        }
        let omitted = omitted | stages(&self.omit_stages, &format!("{at}.omitStages"), problems);
        Verdict { level, omitted, omit_managed_fields: self.omit_managed_fields.unwrap_or(omit_managed_fields) }
    }

    fn matches(&self, asked: &Question<'_>) -> bool {
        let has = |list: &[String], word: &str| list.iter().any(|known| known == word);
        if !(self.users.is_empty() || has(&self.users, &asked.user.name))
            || !(self.user_groups.is_empty() || asked.user.groups.iter().any(|group| has(&self.user_groups, group)))
            || !(self.verbs.is_empty() || has(&self.verbs, asked.verb))
        {
            return false;
        }
        if !(self.namespaces.is_empty() && self.resources.is_empty()) {
            return asked.is_resource
                && (self.namespaces.is_empty() || has(&self.namespaces, asked.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|resources| resources.matches(asked)));
        }
        self.paths.is_empty() || (!asked.is_resource && self.paths.iter().any(|spec| path_matches(asked.path, spec)))
    }
}

impl Resources {
    fn matches(&self, asked: &Question<'_>) -> bool {
        if self.group != "*" && self.group != asked.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let named = self.resource_names.is_empty() || self.resource_names.iter().any(|name| name == asked.name);
        let whole = |spec: &str| match asked.subresource {
            "" => spec == asked.resource,
            subresource => spec.split_once('/') == Some((asked.resource, subresource)),
        };
        let any_of = |spec: &str| !asked.subresource.is_empty() && spec.strip_prefix("*/") == Some(asked.subresource);
        let all_below = |spec: &str| spec.strip_suffix("/*") == Some(asked.resource);
        named && self.resources.iter().any(|spec| spec == "*" || whole(spec) || any_of(spec) || all_below(spec))
    }
}

fn path_matches(path: &str, spec: &str) -> bool {
    spec == path || spec.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

fn bit(stage: Stage) -> u8 {
    1 << (stage as u8)
}

fn stages(words: &[String], at: &str, problems: &mut Vec<String>) -> u8 {
    let mut out = 0;
    for (index, word) in words.iter().enumerate() {
        match [Stage::RequestReceived, Stage::ResponseStarted, Stage::ResponseComplete, Stage::Panic]
            .into_iter()
            .find(|stage| format!("{stage:?}") == *word)
        {
            Some(stage) => out |= bit(stage),
            None => problems.push(format!(
                "{at}[{index}]: Invalid value: {word:?}: allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic"
            )),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::User;

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..User::default() }
    }

    /// `verb group/resource/subresource namespace/name`, or `verb path`.
    fn judge(policy: &Policy, user: &User, asked: &str) -> Verdict {
        let words: Vec<&str> = asked.split(' ').collect();
        let mut question = Question { verb: words[0], ..Question::blank(user) };
        if words[1].starts_with('/') {
            question.path = words[1];
            return policy.judge(&question);
        }
        let parts: Vec<&str> = words[1].split('/').collect();
        question.is_resource = true;
        (question.group, question.resource) = (if parts[0] == "core" { "" } else { parts[0] }, parts[1]);
        question.subresource = parts.get(2).copied().unwrap_or_default();
        if let Some((namespace, name)) = words.get(2).and_then(|place| place.split_once('/')) {
            (question.namespace, question.name) = (namespace, name);
        }
        policy.judge(&question)
    }

    #[test]
    fn by_default_writes_are_recorded_and_heartbeats_are_not() {
        let policy = Policy::writes();
        let (alice, node) = (user("alice", &[]), user("system:node:n", &["system:nodes"]));
        for (who, asked, level) in [
            (&alice, "create core/pods", Level::Metadata),
            (&alice, "deletecollection apps/deployments", Level::Metadata),
            (&alice, "get core/pods", Level::None),
            (&alice, "get core/pods/exec a/b", Level::Metadata),
            (&alice, "watch core/secrets", Level::None),
            (&node, "update coordination.k8s.io/leases", Level::None),
            (&node, "patch core/nodes/status", Level::None),
            (&alice, "patch core/nodes/status", Level::Metadata),
            (&node, "patch core/pods/status", Level::Metadata),
            (&alice, "create authorization.k8s.io/subjectaccessreviews", Level::None),
            (&alice, "create events.k8s.io/events", Level::None),
            (&alice, "post /coracle/v1/secrets-encrypt", Level::Metadata),
            (&alice, "get /healthz", Level::None),
        ] {
            let verdict = judge(&policy, who, asked);
            assert_eq!(verdict.level, level, "{asked}");
            assert!(level == Level::None || !verdict.wants(Stage::RequestReceived) && verdict.wants(Stage::ResponseComplete));
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let policy = Policy::parse(
            r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
omitStages: [Panic]
rules:
- {level: None, users: [robot]}
- {level: Request, resources: [{group: "", resources: ["*/status", "pods/*"]}], omitStages: [ResponseStarted], omitManagedFields: false}
- {level: RequestResponse, resources: [{group: "*", resources: [secrets], resourceNames: [x]}], namespaces: [a]}
- {level: Metadata, nonResourceURLs: ["/healthz", "/logs*"]}
- {level: Metadata, namespaces: [""]}
"#,
        )
        .unwrap();
        let (alice, robot) = (user("alice", &[]), user("robot", &[]));
        for (who, asked, level) in [
            (&robot, "create core/secrets a/x", Level::None),
            (&alice, "update core/nodes/status", Level::Request),
            (&alice, "get core/pods/log", Level::Request),
            (&alice, "get core/pods a/p", Level::Request),
            (&alice, "get core/secrets a/x", Level::RequestResponse),
            (&alice, "get core/secrets a/y", Level::None),
            (&alice, "get core/secrets b/x", Level::None),
            (&alice, "get /healthz", Level::Metadata),
            (&alice, "get /healthz/x", Level::None),
            (&alice, "get /logs/x", Level::Metadata),
            (&alice, "list core/nodes", Level::Metadata),
        ] {
            assert_eq!(judge(&policy, who, asked).level, level, "{asked}");
        }
        let status = judge(&policy, &alice, "update core/nodes/status");
        assert!(!status.omit_managed_fields && !status.wants(Stage::ResponseStarted) && !status.wants(Stage::Panic));
        assert!(judge(&policy, &alice, "get core/secrets a/x").omit_managed_fields);
    }

    #[test]
    fn every_mistake_is_told() {
        let check = |rules: &str| Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}")).unwrap_err();
        let told = check(
            "- {level: Some, omitStages: [Never], nonResourceURLs: [a, /b*c], namespaces: [x]}\n- {resources: [{group: 'A B', resourceNames: [x]}]}",
        );
        for part in [
            "rules[0].level: Unsupported",
            "omitStages[0]",
            "URLs[0]",
            "URLs[1]",
            "not for both",
            "rules[1].level: Required",
            "\"A B\"",
            "which resource",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(Policy::parse("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []").unwrap_err().contains("rules: Required"));
        assert!(Policy::parse("kind: Policy\nrules: []").unwrap_err().contains("audit.k8s.io/v1"));
        assert!(Policy::parse("a: [").is_err());
    }
}
