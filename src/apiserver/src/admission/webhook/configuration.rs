//! The webhooks of all configurations, made ready for use once per change.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use coracle_api::selector::LabelSelector;
use serde_json::Value;

use super::{review, rules::Rule};
use crate::{
    admission::expressions::conditions::MatchConditions,
    metrics::admission::Admission,
    objects::{Counter, Objects},
    webhook::{Server, Servers},
};

/// Group of the configurations.
pub(super) const GROUP: &str = "admissionregistration.k8s.io";
/// Seconds for an answer when the webhook says nothing; canonical form says it.
const DEFAULT_TIMEOUT_S: u64 = 10;
/// Seconds for an answer at most. Validation sees to it.
const MAX_TIMEOUT_S: u64 = 30;

/// One webhook, ready to be called.
#[derive(Debug)]
pub(super) struct Hook {
    /// Of all webhooks.
    pub uid: String,
    /// Its own.
    pub name: String,
    /// What it is asked about.
    pub rules: Vec<Rule>,
    /// Only in the versions that the rules name.
    pub exact: bool,
    /// The error is why it cannot be read.
    pub namespaces: Result<LabelSelector, String>,
    /// The error is why it cannot be read.
    pub labels: Result<LabelSelector, String>,
    /// What must hold of the write besides.
    pub conditions: MatchConditions,
    /// A call changes nothing elsewhere when it is a dry run.
    pub dry_runs: bool,
    /// Wants to see what later ones change.
    pub again: bool,
    /// Whether a call that fails counts as consent.
    pub optional: bool,
    /// For its answer.
    pub patience: Duration,
    /// How it is asked; `None` when it knows no version that we know.
    pub version: Option<review::Version>,
    /// Where it is; the error is why nowhere.
    pub server: Result<Arc<Server>, String>,
}

impl Hook {
    fn read(configuration: &str, index: usize, hook: &Value, servers: &Servers) -> Self {
        let name = hook["name"].as_str().unwrap_or_default();
        let selector = |field: &str| match &hook[field] {
            Value::Null => Ok(LabelSelector::default()),
            value => LabelSelector::from_value(value).map_err(|error| error.to_string()),
        };
        Self {
            uid: format!("{configuration}/{name}/{index}"),
            name: name.to_owned(),
            rules: hook["rules"].as_array().into_iter().flatten().map(Rule::read).collect(),
            exact: hook["matchPolicy"] == "Exact",
            namespaces: selector("namespaceSelector"),
            labels: selector("objectSelector"),
            conditions: MatchConditions::of_webhook(&hook["matchConditions"]),
            dry_runs: matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")),
            again: hook["reinvocationPolicy"] == "IfNeeded",
            optional: hook["failurePolicy"] == "Ignore",
            patience: Duration::from_secs(hook["timeoutSeconds"].as_u64().unwrap_or(DEFAULT_TIMEOUT_S).clamp(1, MAX_TIMEOUT_S)),
            version: review::Version::first(&hook["admissionReviewVersions"]),
            server: servers.of(&hook["clientConfig"]).map_err(|error| error.to_string()),
        }
    }
}

/// The webhooks of one kind of configuration.
#[derive(Debug)]
pub(super) struct Configured {
    plural: &'static str,
    /// Metrics' word for what they are asked.
    step: &'static str,
    objects: Arc<dyn Objects>,
    /// Of the configurations; asked on every write.
    changes: Option<Counter>,
    servers: Servers,
    made: ArcSwap<Made>,
}

#[derive(Debug, Default)]
struct Made {
    /// Of the configurations; 0 is before the first.
    version: u64,
    hooks: Arc<[Hook]>,
}

impl Configured {
    /// Of the resource with this plural.
    pub fn new(plural: &'static str, step: &'static str, objects: Arc<dyn Objects>) -> Self {
        let (changes, servers) = (objects.counter(GROUP, plural), Servers::new(Arc::clone(&objects)));
        Self { plural, step, objects, changes, servers, made: ArcSwap::default() }
    }

    /// All as they are now, by the names of their configurations and in the order within each; `None` when there is none.
    /// What was counted of those that are gone is forgotten.
    pub fn now(&self, metrics: &Admission) -> Option<Arc<[Hook]>> {
        let version = self.changes.as_ref().map_or_else(|| self.objects.version(GROUP, self.plural), |changes| (changes.0)());
        let made = self.made.load();
        if made.version == version {
            return (!made.hooks.is_empty()).then(|| Arc::clone(&made.hooks));
        }
        // Who lists later than it asked for the version sees more than that: then this is done once more.
        let hooks = hooks(&self.objects.list(GROUP, self.plural, ""), &self.servers);
        let before = self.made.swap(Arc::new(Made { version, hooks: Arc::clone(&hooks) }));
        let is_in = |hooks: &[Hook], name: &str| hooks.iter().any(|hook| hook.name == name);
        if before.hooks.iter().any(|hook| !is_in(&hooks, &hook.name)) {
            metrics.forget_webhooks(self.step, &|name| !is_in(&hooks, name));
        }
        (!hooks.is_empty()).then_some(hooks)
    }
}

fn hooks(configurations: &[Value], servers: &Servers) -> Arc<[Hook]> {
    let name = |configuration: &Value| configuration["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut sorted: Vec<(String, &Value)> = configurations.iter().map(|configuration| (name(configuration), configuration)).collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    let of = |(name, configuration): (String, &Value)| -> Vec<Hook> {
        let list = configuration["webhooks"].as_array().into_iter().flatten().enumerate();
        list.map(|(index, hook)| Hook::read(&name, index, hook, servers)).collect()
    };
    sorted.into_iter().flat_map(of).collect()
}
