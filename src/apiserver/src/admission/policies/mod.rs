//! Admission policies in CEL: kept compiled, matched, given their parameters. What they then do is in [`validating`] and [`mutating`].

pub mod mutating;
mod params;
pub mod validating;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use coracle_api::{
    catalogue::Resource,
    cel::{
        Program,
        environment::{Compiler, Environment},
        scope::{AskError, Variable},
    },
    status::Status,
};
use serde_json::Value;

use super::{
    Attributes,
    expressions::{conditions::MatchConditions, matching::Matching},
};
use crate::{
    metrics::admission::{Admission, Named},
    objects::{Counter, Objects},
};

/// The group of policies and bindings.
const GROUP: &str = "admissionregistration.k8s.io";
/// No policy is asked about these: a wrong one could not be mended any more, or nobody could be let in.
const EXEMPT: [(&str, &str); 10] = [
    (GROUP, "validatingadmissionpolicies"),
    (GROUP, "validatingadmissionpolicybindings"),
    (GROUP, "mutatingadmissionpolicies"),
    (GROUP, "mutatingadmissionpolicybindings"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// What is special to one of the two kinds of policies.
pub trait Kind: fmt::Debug + Send + Sync + 'static {
    /// Plural of the policies.
    const POLICIES: &'static str;
    /// Plural of the bindings.
    const BINDINGS: &'static str;
    /// They change objects.
    const MUTATING: bool;
    /// Reads what a policy does.
    fn read(spec: &Value, compiler: &Compiler<'_>, environment: Environment) -> Self;
}

/// A policy, compiled.
#[derive(Debug)]
pub struct Policy<K> {
    name: String,
    /// Uid and generation: another one is another policy.
    identity: (String, i64),
    /// What goes wrong refuses the write.
    fails: bool,
    matching: Matching,
    /// Group, version and kind of its parameters.
    param_kind: Option<[String; 3]>,
    conditions: MatchConditions,
    variables: Vec<Variable>,
    does: K,
}

/// A binding of a policy.
#[derive(Debug)]
pub struct Binding {
    name: String,
    /// Narrows what the policy is about.
    matching: Option<Matching>,
    spec: Value,
}

/// A policy with its bindings.
type Bound<K> = (Arc<Policy<K>>, Vec<Binding>);

/// Policies and bindings as they stand.
#[derive(Debug)]
struct Known<K> {
    versions: [u64; 2],
    bound: Vec<Bound<K>>,
}

/// All policies of one kind, compiled once after each change.
#[derive(Debug)]
pub struct Book<K> {
    objects: Arc<dyn Objects>,
    counters: [Option<Counter>; 2],
    known: ArcSwap<Known<K>>,
    /// Held while somebody compiles.
    compiling: Mutex<()>,
}

impl<K: Kind> Book<K> {
    fn new(objects: Arc<dyn Objects>) -> Self {
        let counters = [K::POLICIES, K::BINDINGS].map(|plural| objects.counter(GROUP, plural));
        let known = ArcSwap::from_pointee(Known { versions: [u64::MAX; 2], bound: Vec::new() });
        Self { objects, counters, known, compiling: Mutex::new(()) }
    }

    fn versions(&self) -> [u64; 2] {
        let version = |at: usize, plural: &str| match &self.counters[at] {
            Some(counter) => counter.0(),
            None => self.objects.version(GROUP, plural),
        };
        [version(0, K::POLICIES), version(1, K::BINDINGS)]
    }

    /// The policies that are bound; `None` when there is none, which is all that most servers ever hear.
    /// What was counted of those that are gone is forgotten.
    fn now(&self, metrics: &Admission) -> Option<Arc<Known<K>>> {
        let known = self.known.load();
        if known.versions == self.versions() {
            return (!known.bound.is_empty()).then(|| Arc::clone(&known));
        }
        drop(known);
        let _compiling = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        // What changes while it is read here shows in the next look.
        let versions = self.versions();
        let before = self.known.load();
        if before.versions != versions {
            let bound = bind(&before.bound, &self.objects.list(GROUP, K::POLICIES, ""), &self.objects.list(GROUP, K::BINDINGS, ""));
            forget(metrics, &before.bound, &bound);
            self.known.store(Arc::new(Known { versions, bound }));
        }
        let known = self.known.load_full();
        (!known.bound.is_empty()).then_some(known)
    }
}

/// Forgets what was counted of policies and bindings that are there no more.
fn forget<K: Kind>(metrics: &Admission, before: &[Bound<K>], now: &[Bound<K>]) {
    let names = |all: &[Bound<K>]| -> HashSet<(String, String)> {
        all.iter().flat_map(|(policy, own)| own.iter().map(|binding| (policy.name.clone(), binding.name.clone()))).collect()
    };
    let (before, now) = (names(before), names(now));
    let gone: HashSet<&(String, String)> = before.difference(&now).collect();
    if gone.is_empty() {
        return;
    }
    let unbound = |policy: &str, binding: &str| gone.iter().any(|(p, b)| (p.as_str(), b.as_str()) == (policy, binding));
    let of_policy = |names: &str| now.iter().any(|(policy, _)| policy == names);
    metrics.forget_policies(K::MUTATING, &unbound, &|name| !of_policy(name) && gone.iter().any(|(policy, _)| policy == name));
}

/// Puts policies and bindings together, by name; what is compiled already stays.
fn bind<K: Kind>(before: &[Bound<K>], policies: &[Value], bindings: &[Value]) -> Vec<Bound<K>> {
    let mut out: Vec<Bound<K>> = Vec::with_capacity(policies.len());
    for policy in policies {
        let of = |text: &str| policy["metadata"][text].as_str().unwrap_or_default().to_owned();
        let (name, identity) = (of("name"), (of("uid"), policy["metadata"]["generation"].as_i64().unwrap_or(0)));
        let spec_of = |binding: &&Value| binding["spec"]["policyName"].as_str() == Some(&name);
        let mut own: Vec<Binding> = bindings.iter().filter(spec_of).map(Binding::read).collect();
        if own.is_empty() {
            // Who binds it finds it compiled then.
            continue;
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let same = before.iter().map(|(known, _)| known).find(|known| known.name == name && known.identity == identity);
        let compiled = same.map_or_else(|| Arc::new(Policy::read(name.clone(), identity, &policy["spec"])), Arc::clone);
        out.push((compiled, own));
    }
    out.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    out
}

impl Binding {
    fn read(binding: &Value) -> Self {
        let spec = &binding["spec"];
        let matching = spec.get("matchResources").filter(|m| m.is_object()).map(Matching::read);
        Self { name: binding["metadata"]["name"].as_str().unwrap_or_default().to_owned(), matching, spec: spec.clone() }
    }
}

impl<K: Kind> Policy<K> {
    fn read(name: String, identity: (String, i64), spec: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let param_kind = spec.get("paramKind").filter(|kind| kind.is_object()).map(|kind| {
            let api_version = text(&kind["apiVersion"]);
            let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
            [group.to_owned(), version.to_owned(), text(&kind["kind"])]
        });
        let environment = Environment { params: param_kind.is_some(), authorizer: true, patches: false };
        let mut compiler = Compiler::default();
        let mut variables = Vec::new();
        for variable in spec["variables"].as_array().into_iter().flatten() {
            let (name, source) = (text(&variable["name"]), text(&variable["expression"]));
            let program = compiler.variable(&name, &source, environment).map_err(|error| error.to_string());
            variables.push(Variable { name: name.into(), program });
        }
        Self {
            name,
            identity,
            fails: spec["failurePolicy"] != "Ignore",
            matching: Matching::read(&spec["matchConstraints"]),
            conditions: MatchConditions::read(&spec["matchConditions"], &compiler, environment),
            does: K::read(spec, &compiler, environment),
            param_kind,
            variables,
        }
    }
}

/// What went wrong with an expression, in the words that metrics have; a write that does not satisfy it counts as upstream counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// It cannot be read.
    Compile,
    /// It has cost too much.
    Budget,
    /// Anything else.
    Invalid,
}

impl Wrong {
    fn word(self) -> &'static str {
        match self {
            Self::Compile => "compile_error",
            Self::Budget => "out_of_budget",
            Self::Invalid => "invalid_error",
        }
    }

    /// Of an expression whose program is this one.
    fn of(program: &Result<Program, String>, error: &AskError) -> Self {
        match (program, error) {
            (Err(_), _) => Self::Compile,
            (Ok(_), AskError::Exhausted) => Self::Budget,
            (Ok(_), AskError::Failed { .. }) => Self::Invalid,
        }
    }
}

impl<K> Policy<K> {
    /// The policy as metrics name it when they tell of its conditions.
    fn named(&self, write: &Attributes<'_>) -> Named<'_> {
        Named { name: &self.name, kind: "policy", step: "validate", operation: write.operation }
    }
}

/// Whether policies have a say in a write at all.
fn is_exempt(write: &Attributes<'_>) -> bool {
    EXEMPT.iter().any(|(group, resource)| write.is(group, resource))
}

/// The namespace of the object that is written; `None` for what has none.
fn namespace_of(write: &Attributes<'_>, objects: &dyn Objects) -> Result<Option<Value>, Status> {
    let name = &write.info.namespace;
    if name.is_empty() || write.is("", "namespaces") {
        return Ok(None);
    }
    objects.get("", "namespaces", "", name).map(Some).ok_or_else(|| Status::not_found("", "namespaces", name))
}

/// An object in the version that was matched; `None` when that is the one that it has.
async fn converted(write: &Attributes<'_>, matched: &Arc<Resource>, object: Option<&Value>) -> Result<Option<Value>, Status> {
    match object.filter(|object| is_whole(write, matched) && object["apiVersion"] != matched.api_version()) {
        Some(object) => write.kinds.convert(matched, object.clone()).await.map(Some),
        None => Ok(None),
    }
}

/// Whether the object is one of the resource itself, which has versions, and no Scale, Binding or Eviction.
fn is_whole(write: &Attributes<'_>, resource: &Resource) -> bool {
    resource.subresource(&write.info.subresource).is_none_or(|part| part.kind == resource.kind)
}

/// What a policy is asked about a write: as which resource, and by which bindings with which parameters.
struct Asked<'p> {
    matched: Arc<Resource>,
    by: Vec<(&'p Binding, Option<Value>)>,
}

/// What is wrong with a policy or its binding, rather than with the write.
struct Misfit<'p> {
    binding: Option<&'p Binding>,
    why: String,
}

/// Which bindings have a policy asked. What is wrong goes to `misfits`, and failurePolicy says what that means.
fn gather<'p, K>(
    write: &Attributes<'_>,
    object: Option<&Value>,
    (policy, bindings): &'p Bound<K>,
    objects: &dyn Objects,
    misfits: &mut Vec<Misfit<'p>>,
) -> Option<Asked<'p>> {
    let matched = match policy.matching.of(write, object, objects, false) {
        Ok(found) => found?,
        Err(why) => {
            misfits.push(Misfit { binding: None, why: format!("failed to configure policy: {why}") });
            return None;
        }
    };
    let mut by = Vec::new();
    for binding in bindings {
        let means = binding.matching.as_ref().map_or(Ok(true), |m| m.of(write, object, objects, true).map(|found| found.is_some()));
        let collect = || {
            let catalogue = write.kinds.catalogue();
            params::collect(objects, &catalogue, policy.param_kind.as_ref(), &binding.spec["paramRef"], &write.info.namespace)
        };
        match means.and_then(|means| if means { collect() } else { Ok(Vec::new()) }) {
            Ok(params) => by.extend(params.into_iter().map(|params| (binding, params))),
            Err(why) => misfits.push(Misfit { binding: Some(binding), why: format!("failed to configure binding: {why}") }),
        }
    }
    (!by.is_empty()).then_some(Asked { matched, by })
}
