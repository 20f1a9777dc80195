//! What the operator tells EventRateLimit: how many events, counted by what.

use std::fmt;

use serde::Deserialize;

/// Buckets of a limit that says no number.
const DEFAULT_CACHE_SIZE: u32 = 4096;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// All events.
    Server,
    /// Those of a namespace.
    Namespace,
    /// Those of who writes them.
    User,
    /// Those that one component on one host has to say of one object.
    SourceAndObject,
}

const TYPES: [(&str, Type); 4] =
    [("Server", Type::Server), ("Namespace", Type::Namespace), ("User", Type::User), ("SourceAndObject", Type::SourceAndObject)];

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One limit; none of its numbers is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What it counts.
    pub kind: Type,
    /// Events per second, in the long run.
    pub qps: u32,
    /// Events at once, after silence.
    pub burst: u32,
    /// Namespaces, users, or sources and objects that are remembered; who was silent longest is forgotten first.
    pub cache_size: usize,
}

/// A limit as it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Written {
    r#type: String,
    qps: i32,
    burst: i32,
    cache_size: i32,
}

/// What limits mean; or what is wrong, by its field.
pub fn read(limits: &[Written]) -> Result<Vec<Limit>, Vec<String>> {
    let mut wrong = Vec::new();
    if limits.is_empty() {
        wrong.push("limits: there must be one".to_owned());
    }
    let read = limits.iter().enumerate().filter_map(|(at, written)| one(&format!("limits[{at}]"), written, &mut wrong)).collect();
    if wrong.is_empty() { Ok(read) } else { Err(wrong) }
}

fn one(at: &str, written: &Written, wrong: &mut Vec<String>) -> Option<Limit> {
    let kind = TYPES.iter().find(|(name, _)| *name == written.r#type).map(|(_, kind)| *kind);
    if kind.is_none() {
        wrong.push(format!("{at}.type: {:?} is not one of Server, Namespace, User, SourceAndObject", written.r#type));
    }
    let mut positive = |field: &str, number: i32| {
        let read = u32::try_from(number).ok().filter(|number| *number > 0);
        if read.is_none() {
            wrong.push(format!("{at}.{field}: {number} is not positive"));
        }
        read
    };
    let (burst, qps) = (positive("burst", written.burst), positive("qps", written.qps));
    let cache_size = match written.cache_size {
        // One bucket is all it has, and upstream does not look at its number either.
        _ if kind == Some(Type::Server) => Some(1),
        0 => Some(DEFAULT_CACHE_SIZE),
        number => {
            let read = u32::try_from(number).ok();
            if read.is_none() {
                wrong.push(format!("{at}.cacheSize: {number} is negative"));
            }
            read
        }
    };
    Some(Limit { kind: kind?, qps: qps?, burst: burst?, cache_size: usize::try_from(cache_size?).ok()? })
}
