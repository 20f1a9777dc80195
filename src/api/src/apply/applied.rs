//! Server-side apply: a configuration merged, conflicts told, fields given up.

use std::fmt;

use serde_json::Value;

use super::{
    Act, Versions,
    check::check,
    collect::collect,
    element::Path,
    fields::FieldSet,
    last_applied,
    managers::{Entry, Id, Managers},
    merge::merge,
    remove::{remove, with_structs},
    track,
    update::{Changes, Step, Taken, in_line, managed},
};
use crate::{schema::Schema, structural};

/// Manager of what was there before anybody applied, of an object that nobody managed.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A field that another manager has set to another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Whose, in the words that clients know: `"web" using apps/v1 at 2026-01-01T00:00:00Z`.
    pub manager: String,
    /// Which field.
    pub path: Path,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyError {
    /// The configuration does not fit the kind; each problem with its path.
    Config(Vec<String>),
    /// Other managers have other values, and force was not asked for.
    Conflicts(Vec<Conflict>),
}

impl std::error::Error for ApplyError {}

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => match &problems[..] {
                [one] => f.write_str(one),
                several => write!(f, "errors:\n  {}", several.join("\n  ")),
            },
            Self::Conflicts(conflicts) => match &conflicts[..] {
                [one] => write!(f, "Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path),
                several => {
                    write!(f, "Apply failed with {} conflicts: ", several.len())?;
                    let mut last = None;
                    for conflict in several {
                        if last != Some(&conflict.manager) {
                            let gap = if last.is_some() { "\n" } else { "" };
                            write!(f, "{gap}conflicts with {}:", conflict.manager)?;
                            last = Some(&conflict.manager);
                        }
                        write!(f, "\n- {}", conflict.path)?;
                    }
                    Ok(())
                }
            },
        }
    }
}

/// What an apply came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object, still to be made canonical and given its defaults.
    pub object: Value,
    /// Its managers.
    pub managers: Managers,
}

/// Applies `config` to `live`, both in the version of the write and without `managedFields`; `config` is as the client sent it. For a new object
/// `live` is one that says nothing.
pub fn apply(
    schema: &Schema,
    live: &Value,
    config: &Value,
    mut managers: Managers,
    act: &Act<'_>,
    force: bool,
    versions: &dyn Versions,
) -> Result<Applied, ApplyError> {
    let problems = check(schema, config);
    if !problems.is_empty() {
        return Err(ApplyError::Config(problems));
    }
    if managers.is_empty() {
        let before = Act { manager: BEFORE_FIRST_APPLY, ..*act };
        let nothing = structural::zero(schema);
        track::claim(Step { schema, old: &nothing, new: live }, &mut managers, &before, versions);
    }
    in_line(&mut managers, versions);
    let applied = merged(schema, live, config, &managers, act, versions);
    let (object, managers) = match settle(applied, live, schema, act, force, versions) {
        Err(taken) if act.manager == last_applied::KUBECTL => {
            // What kubectl's client side applied before is kubectl's still.
            let own = last_applied::owned(schema, live, act.api_version).unwrap_or_default();
            let others: Vec<Taken> = taken.into_iter().filter_map(|taken| without(taken, &own)).collect();
            if !others.is_empty() {
                return Err(ApplyError::Conflicts(conflicts(&others)));
            }
            let again = merged(schema, live, config, &managers, act, versions);
            settle(again, live, schema, act, true, versions).map_err(|taken| ApplyError::Conflicts(conflicts(&taken)))?
        }
        other => other.map_err(|taken| ApplyError::Conflicts(conflicts(&taken)))?,
    };
    let mut object = object.unwrap_or_else(|| live.clone());
    if act.manager == last_applied::KUBECTL {
        last_applied::renew(&mut object, config);
    }
    Ok(Applied { object, managers })
}

/// The configuration merged, what its manager gave up taken out, and the managers with its new fields.
fn merged(schema: &Schema, live: &Value, config: &Value, managers: &Managers, act: &Act<'_>, versions: &dyn Versions) -> (Value, Managers) {
    let mut managers = managers.clone();
    let id = Id::new(act, true);
    let last = managers.take(&id);
    let time = last.as_ref().and_then(|entry| entry.time.clone());
    managers.put(Entry::new(id, act.api_version, time, act.reach.of(collect(schema, config))));
    let merged = merge(schema, live, config);
    let object = match &last {
        Some(last) => prune(merged, &managers, last, act, versions),
        None => merged,
    };
    (object, managers)
}

/// Takes the fields that changed from their managers, unless that is a conflict. No object: nothing changed.
fn settle(
    (object, mut managers): (Value, Managers),
    live: &Value,
    schema: &Schema,
    act: &Act<'_>,
    force: bool,
    versions: &dyn Versions,
) -> Result<(Option<Value>, Managers), Vec<Taken>> {
    let id = Id::new(act, true);
    let taken = Changes::new(Step { schema, old: live, new: &object }, act, versions).take(&mut managers, Some(&id));
    if !force && !taken.is_empty() {
        return Err(taken);
    }
    let changed = object != *live;
    if let Some(mut entry) = managers.take(&id) {
        if changed {
            entry.time = Some(act.now.to_owned());
        }
        let own = managed(entry.fields());
        if !own.is_empty() {
            entry.set_fields(own);
            managers.put(entry);
        }
    }
    Ok((changed.then_some(object), managers))
}

/// Takes out what the manager applied last time and no longer does, unless somebody else owns it.
fn prune(merged: Value, managers: &Managers, last: &Entry, act: &Act<'_>, versions: &dyn Versions) -> Value {
    let Some((schema, converted)) = versions.schema(&last.version).zip(versions.convert(&merged, act.api_version, &last.version)) else {
        return merged;
    };
    let given = with_structs(&schema, last.fields());
    let mut pruned = remove(&schema, converted.clone(), &given);
    let mut whole = converted.clone();
    let mut at = last.version.clone();
    for (version, owned) in owned_by_version(managers, &last.version) {
        let Some(schema) = versions.schema(&version) else { continue };
        let (Some(w), Some(p)) = (versions.convert(&whole, &at, &version), versions.convert(&pruned, &at, &version)) else { continue };
        (whole, at) = (w, version);
        let gone = with_structs(&schema, &collect(&schema, &whole))
            .difference(&with_structs(&schema, &collect(&schema, &p)).union(&with_structs(&schema, &owned)));
        pruned = remove(&schema, whole.clone(), &gone);
    }
    let Some(pruned) = versions.convert(&pruned, &at, &last.version) else { return merged };
    // Of what went, only what the manager itself had applied stays gone.
    let gone = with_structs(&schema, &collect(&schema, &converted))
        .difference(&with_structs(&schema, &collect(&schema, &pruned)))
        .intersection(&given);
    let pruned = remove(&schema, converted, &gone);
    versions.convert(&pruned, &last.version, act.api_version).unwrap_or(merged)
}

/// What all managers own, version by version; `first` comes first, as what a conversion needs must be back before it.
fn owned_by_version(managers: &Managers, first: &str) -> Vec<(String, FieldSet)> {
    let mut out: Vec<(String, FieldSet)> = Vec::new();
    for entry in managers.entries() {
        match out.iter_mut().find(|(version, _)| *version == entry.version) {
            Some((_, owned)) => *owned = owned.union(entry.fields()),
            None => out.push((entry.version.clone(), entry.fields().clone())),
        }
    }
    out.sort_by_key(|(version, _)| version != first);
    out
}

fn without(taken: Taken, allowed: &FieldSet) -> Option<Taken> {
    let fields = taken.fields.difference(allowed);
    (!fields.is_empty()).then_some(Taken { fields, ..taken })
}

fn conflicts(taken: &[Taken]) -> Vec<Conflict> {
    let mut all: Vec<&Taken> = taken.iter().collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    let of = |taken: &Taken| {
        let manager = shown(taken);
        taken.fields.paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path }).collect::<Vec<_>>()
    };
    all.into_iter().flat_map(of).collect()
}

/// A manager in the words that clients know.
fn shown(taken: &Taken) -> String {
    let mut out = format!("{:?}", taken.id.name);
    if !taken.id.subresource.is_empty() {
        out = format!("{out} with subresource {:?}", taken.id.subresource);
    }
    if !taken.id.applies {
        out = format!("{out} using {}", taken.id.update_version);
    }
    out
}
