//! What FlowSchemas and PriorityLevelConfigurations say: which request belongs to which flow of which level. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use coracle_api::catalogue::bootstrap;
use serde::Deserialize;
use serde_json::Value;

use super::{queues::Shape, share::Claim};
use crate::{
    authentication::service_account::USER_PREFIX,
    request::{RequestInfo, User},
};

/// What there is in any case, whether or not it is stored.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];

/// A level as it is configured.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelSpec {
    /// Of the object.
    pub name: String,
    /// Of the object.
    pub uid: String,
    /// Nobody waits.
    pub exempt: bool,
    /// Seats.
    pub claim: Claim,
    /// Who finds none.
    pub shape: Shape,
}

/// A FlowSchema.
#[derive(Clone, Debug)]
pub struct SchemaSpec {
    /// Of the object.
    pub name: String,
    /// Of the object.
    pub uid: String,
    /// Name of its level.
    pub level: String,
    precedence: i64,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

/// Everything that is configured; schemas in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Those whose level there is.
    pub schemas: Vec<SchemaSpec>,
    /// By name.
    pub levels: Vec<LevelSpec>,
    /// Name of each stored schema, its level, and whether that is there.
    pub references: Vec<(String, String, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    None,
    User,
    Namespace,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
}

/// Reads the stored objects; what is mandatory and not there is added.
pub fn digest(schemas: &[Value], levels: &[Value]) -> Spec {
    let has = |list: &[Value], name: &str| list.iter().any(|object| object["metadata"]["name"] == name);
    let missing = |list: &[Value], all: Vec<Value>| {
        let mandatory = all.into_iter().filter(|object| MANDATORY.iter().any(|name| object["metadata"]["name"] == *name));
        mandatory.filter(|object| !has(list, object["metadata"]["name"].as_str().unwrap_or_default())).collect::<Vec<_>>()
    };
    let more = missing(levels, bootstrap::priority_levels());
    let mut out = Spec { levels: levels.iter().chain(&more).filter_map(level).collect(), ..Spec::default() };
    out.levels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let there = |name: &str| out.levels.iter().any(|level| level.name == name);
    let stored: Vec<SchemaSpec> = schemas.iter().map(schema).collect();
    out.references = stored.iter().map(|schema| (schema.name.clone(), schema.level.clone(), there(&schema.level))).collect();
    let imagined = missing(schemas, bootstrap::flow_schemas());
    let mut all: Vec<SchemaSpec> = stored.into_iter().chain(imagined.iter().map(schema)).filter(|schema| there(&schema.level)).collect();
    all.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
    out.schemas = all;
    out
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// `None`: its type is none that we know.
fn level(object: &Value) -> Option<LevelSpec> {
    let spec = &object["spec"];
    let exempt = match spec["type"].as_str()? {
        "Exempt" => true,
        "Limited" => false,
        _ => return None,
    };
    let half = if exempt { &spec["exempt"] } else { &spec["limited"] };
    let number = |field: &str, default: u64| half[field].as_u64().unwrap_or(default).min(u64::from(u32::MAX)) as u32;
    let claim = Claim {
        shares: number("nominalConcurrencyShares", if exempt { 0 } else { 30 }),
        lendable_percent: number("lendablePercent", 0).min(100),
        borrowing_percent: half["borrowingLimitPercent"].as_u64().map(|percent| percent.min(u64::from(u32::MAX)) as u32),
    };
    let response = &half["limitResponse"];
    let queuing = &response["queuing"];
    let of = |field: &str, default: u64| queuing[field].as_u64().unwrap_or(default).max(1);
    let shape = match response["type"].as_str() {
        Some("Queue") => Shape {
            queues: of("queues", 64).min(10_000_000) as u32,
            hand: of("handSize", 8).min(10) as u32,
            length: usize::try_from(of("queueLengthLimit", 50)).unwrap_or(usize::MAX),
        },
        _ => Shape::default(),
    };
    Some(LevelSpec { name: text(&object["metadata"]["name"]), uid: text(&object["metadata"]["uid"]), exempt, claim, shape })
}

fn schema(object: &Value) -> SchemaSpec {
    let spec = &object["spec"];
    let distinguisher = match spec["distinguisherMethod"]["type"].as_str() {
        Some("ByUser") => Distinguisher::User,
        Some("ByNamespace") => Distinguisher::Namespace,
        _ => Distinguisher::None,
    };
    let rules = spec["rules"].as_array().into_iter().flatten().filter_map(|rule| Rule::deserialize(rule).ok()).collect();
    SchemaSpec {
        name: text(&object["metadata"]["name"]),
        uid: text(&object["metadata"]["uid"]),
        level: text(&spec["priorityLevelConfiguration"]["name"]),
        precedence: spec["matchingPrecedence"].as_i64().unwrap_or(1000),
        distinguisher,
        rules,
    }
}

impl SchemaSpec {
    /// Whether a request is one of this schema's.
    pub fn matches(&self, user: &User, info: &RequestInfo) -> bool {
        self.rules.iter().any(|rule| {
            let what = || match info.is_resource {
                true => rule.resource_rules.iter().any(|rule| rule.matches(info)),
                false => rule.non_resource_rules.iter().any(|rule| rule.matches(info)),
            };
            rule.subjects.iter().any(|subject| subject.matches(user)) && what()
        })
    }

    /// The number of a request's flow.
    pub fn flow(&self, user: &User, info: &RequestInfo) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        match self.distinguisher {
            Distinguisher::None => {}
            Distinguisher::User => user.name.hash(&mut hasher),
            Distinguisher::Namespace => info.namespace.hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// Whether a list has a word, or is the word for all.
fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|known| known == word) || matches!(list, [all] if all == "*")
}

impl Subject {
    fn matches(&self, user: &User) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == "*" || self.user.name == user.name,
            "Group" => self.group.name == "*" || user.groups.contains(&self.group.name),
            "ServiceAccount" => {
                let account = user.name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
                let Named { name, namespace } = &self.service_account;
                account.is_some_and(|(of, account)| of == namespace && (name == "*" || name == account))
            }
            _ => false,
        }
    }
}

impl ResourceRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let resource = match info.subresource.as_str() {
            "" => has(&self.resources, &info.resource),
            below => has(&self.resources, &format!("{}/{below}", info.resource)),
        };
        let scope = if info.namespace.is_empty() { self.cluster_scope } else { has(&self.namespaces, &info.namespace) };
        resource && scope && has(&self.verbs, &info.verb) && has(&self.api_groups, &info.group)
    }
}

impl PathRule {
    fn matches(&self, info: &RequestInfo) -> bool {
        let one = |path: &String| {
            let prefix = path.strip_suffix('*').unwrap_or(path);
            let below = info.path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix));
            path == "*" || *path == info.path || below.is_some_and(|below| below.starts_with('/'))
        };
        has(&self.verbs, &info.verb) && self.paths.iter().any(one)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..User::default() }
    }

    fn find<'a>(spec: &'a Spec, user: &User, path: &str) -> &'a SchemaSpec {
        let info = crate::request_info::parse(&http::Method::GET, path, &[]).unwrap();
        spec.schemas.iter().find(|schema| schema.matches(user, &info)).unwrap()
    }

    #[test]
    fn requests_find_their_schema() {
        let spec = digest(&bootstrap::flow_schemas(), &bootstrap::priority_levels());
        let everybody = "system:authenticated";
        for (user, path, schema) in [
            (user("admin", &["system:masters", everybody]), "/api/v1/pods", "exempt"),
            (user("system:anonymous", &["system:unauthenticated"]), "/healthz", "probes"),
            (user("system:node:n", &["system:nodes", everybody]), "/api/v1/nodes/n/status", "system-node-high"),
            (user("system:node:n", &["system:nodes", everybody]), "/api/v1/pods", "system-nodes"),
            (user("system:kube-scheduler", &[everybody]), "/api/v1/pods", "kube-scheduler"),
            (
                user("system:kube-scheduler", &[everybody]),
                "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/x",
                "system-leader-election",
            ),
            (
                user("system:serviceaccount:kube-system:x", &["system:serviceaccounts", everybody]),
                "/api/v1/pods",
                "kube-system-service-accounts",
            ),
            (user("system:serviceaccount:a:x", &["system:serviceaccounts", everybody]), "/apis", "service-accounts"),
            (user("alice", &[everybody]), "/version", "global-default"),
        ] {
            assert_eq!(find(&spec, &user, path).name, schema, "{} {path}", user.name);
        }
        assert!(spec.references.iter().all(|(_, _, there)| *there));
    }

    #[test]
    fn what_is_mandatory_is_there_without_being_stored() {
        let orphan = json!({"metadata": {"name": "orphan"}, "spec": {"matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "none"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "*"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
        let spec = digest(&[orphan], &[]);
        let names: Vec<&str> = spec.levels.iter().map(|level| level.name.as_str()).collect();
        assert_eq!((names, spec.references.as_slice()), (vec!["catch-all", "exempt"], &[("orphan".into(), "none".into(), false)][..]));
        assert_eq!(find(&spec, &user("alice", &["system:authenticated"]), "/version").name, "catch-all");
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let schema = |method: &str| schema(&json!({"metadata": {"name": "s"}, "spec": {"distinguisherMethod": {"type": method}}}));
        let (alice, bob) = (user("alice", &[]), user("bob", &[]));
        let of = |path: &str| crate::request_info::parse(&http::Method::GET, path, &[]).unwrap();
        let (a, b) = (of("/api/v1/namespaces/a/pods"), of("/api/v1/namespaces/b/pods"));
        for (method, by_user, by_namespace) in [("", false, false), ("ByUser", true, false), ("ByNamespace", false, true)] {
            let schema = schema(method);
            assert_eq!(schema.flow(&alice, &a) != schema.flow(&bob, &a), by_user, "{method}");
            assert_eq!(schema.flow(&alice, &a) != schema.flow(&alice, &b), by_namespace, "{method}");
        }
    }
}
