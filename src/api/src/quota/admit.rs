//! Whether a write fits into a quota. Which part of a write a quota is charged with does not depend on what is used; whether it fits does.

use jiff::Timestamp;
use serde_json::Value;

use super::{Kind, Measure, Scope, joined};
use crate::amounts::{Map, add, read};

/// Why a quota refuses a write; the texts are upstream's, as clients match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A container says nothing about what is limited.
    #[error("failed quota: {quota}: {lack}")]
    Unsaid {
        /// Its name.
        quota: String,
        /// `must specify ...`
        lack: String,
    },
    /// Nobody has counted yet.
    #[error("status unknown for quota: {quota}, resources: {resources}")]
    Uncounted {
        /// Its name.
        quota: String,
        /// What is limited.
        resources: String,
    },
    /// Something is asked for less than nothing of.
    #[error("quota usage is negative for resource(s): {0}")]
    Negative(String),
    /// There is not enough left.
    #[error("exceeded quota: {quota}, requested: {requested}, used: {used}, limited: {limited}")]
    Exceeded {
        /// Its name.
        quota: String,
        /// What is too much of it.
        requested: String,
        /// What is used of that.
        used: String,
        /// The bound.
        limited: String,
    },
}

/// A write as quotas see it.
#[derive(Debug)]
pub struct Ask<'a> {
    pub(super) kind: &'a Kind,
    object: &'a Value,
    pub(super) after: Measure,
    before: Option<Measure>,
}

/// What a quota allows and what is used of it.
#[derive(Debug)]
pub struct Limits {
    /// Of the quota.
    pub name: String,
    pub(super) scopes: Vec<Scope>,
    hard: Map,
    /// As the status says.
    pub used: Map,
}

/// What a write adds to what is used of a quota; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge(pub Map);

impl Limits {
    /// Of a ResourceQuota: its status counts, as the spec does only once the controller has seen it.
    pub fn of(quota: &Value) -> Self {
        let status = &quota["status"];
        Self {
            name: quota["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            scopes: Scope::all(&quota["spec"]),
            hard: read(&status["hard"]),
            used: read(&status["used"]),
        }
    }

    /// The names that it limits.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.hard.keys().map(String::as_str)
    }

    /// Whether an object is in its scopes.
    pub fn covers(&self, measure: &Measure) -> bool {
        measure.is_in(&self.scopes)
    }
}

impl<'a> Ask<'a> {
    /// Of a new object, or of an old one that changes.
    pub fn of(kind: &'a Kind, object: &'a Value, old: Option<&Value>, now: Timestamp) -> Self {
        Self { kind, object, after: kind.measure(object, now), before: old.map(|old| kind.measure(old, now)) }
    }

    /// What the write adds, if the quota is about it.
    pub fn charge(&self, limits: &Limits) -> Result<Option<Charge>, Refusal> {
        let names: Vec<&str> = limits.names().filter(|name| self.kind.governs(name)).collect();
        if names.is_empty() || !limits.covers(&self.after) {
            return Ok(None);
        }
        if let Some(lack) = self.kind.lacks(self.object, &names) {
            return Err(Refusal::Unsaid { quota: limits.name.clone(), lack });
        }
        if names.iter().any(|name| !limits.used.contains_key(*name)) {
            return Err(Refusal::Uncounted { quota: limits.name.clone(), resources: joined(names) });
        }
        let negative = self.after.usage.iter().filter(|(_, amount)| amount.signum() < 0).map(|(name, _)| name.as_str());
        let negative = joined(negative);
        if !negative.is_empty() {
            return Err(Refusal::Negative(negative));
        }
        let mut delta = self.after.usage.clone();
        if let Some(before) = self.before.as_ref().filter(|before| limits.covers(before)) {
            for (name, amount) in &mut delta {
                *amount = before.usage.get(name).map_or(*amount, |before| amount.minus(*before));
            }
        }
        // What becomes less is the controller's to see, once it is so.
        delta.retain(|name, amount| amount.signum() > 0 && limits.hard.contains_key(name));
        Ok((!delta.is_empty()).then_some(Charge(delta)))
    }
}

impl Charge {
    /// What is used with it, given what is used without; refused when that is more than the quota allows. `enforce` is false for what has
    /// happened already.
    pub fn add_to(&self, limits: &Limits, used: &Map, enforce: bool) -> Result<Map, Refusal> {
        let mut sum = used.clone();
        add(&mut sum, &self.0);
        let over: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|name| sum.get(*name) > limits.hard.get(*name)).filter(|_| enforce).collect();
        if over.is_empty() {
            return Ok(sum);
        }
        let told = |map: &Map| {
            let parts = over.iter().filter_map(|name| map.get(*name).map(|amount| format!("{name}={amount}")));
            parts.collect::<Vec<_>>().join(",")
        };
        Err(Refusal::Exceeded { quota: limits.name.clone(), requested: told(&self.0), used: told(used), limited: told(&limits.hard) })
    }
}

/// All that is used of the names of a quota that this kind governs, counted from nothing.
pub fn total<'a>(kind: &Kind, limits: &[&str], scopes: &[Scope], objects: impl IntoIterator<Item = &'a Measure>) -> Map {
    let mut sum: Map = limits
        .iter()
        .filter(|name| kind.governs(name))
        .map(|name| ((*name).to_owned(), crate::quantity::Quantity::from_units(0)))
        .collect();
    for measure in objects.into_iter().filter(|measure| measure.is_in(scopes)) {
        for (name, amount) in &measure.usage {
            if let Some(total) = sum.get_mut(name) {
                *total = total.plus(*amount);
            }
        }
    }
    sum
}
