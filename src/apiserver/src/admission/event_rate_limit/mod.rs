//! EventRateLimit: nobody floods the server with events, where the operator says how many are a flood.
//!
//! As upstream's, it is about events of the core group; what is written through `events.k8s.io` passes.

mod buckets;
mod settings;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use coracle_api::status::Status;
use ring::digest::{Context, SHA256};
use serde_json::Value;
use tokio::time::Instant;

use super::{Attributes, Operation, Plugin, Say};
use buckets::{Buckets, Key};

pub use settings::{Limit, Type, Written, read};

/// The plugin.
#[derive(Debug)]
pub struct EventRateLimit {
    limits: Vec<(Type, Buckets)>,
}

impl EventRateLimit {
    /// With these limits, all of them at once.
    pub fn new(limits: &[Limit]) -> Self {
        Self { limits: limits.iter().map(|limit| (limit.kind, Buckets::new(*limit))).collect() }
    }

    /// Counts an event, or says which limits are reached. Each limit counts it, whatever the others say.
    fn count(&self, namespace: &str, user: &str, event: &Value, now: Instant) -> Result<(), Status> {
        let mut reached = Vec::new();
        for (kind, buckets) in &self.limits {
            let names = names(*kind, namespace, user, event);
            if !buckets.take(key(&names), now) {
                let of = if names.is_empty() { String::new() } else { format!(" for {:?}", names.join("")) };
                reached.push(format!("the limit of type {kind} is reached{of}"));
            }
        }
        // As upstream's, without a time to come back.
        if reached.is_empty() {
            Ok(())
        } else {
            Err(Status::new(429, "TooManyRequests", format!("too many events: {}", reached.join(", "))))
        }
    }
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let brings_one = matches!(write.operation, Operation::Create | Operation::Update) && write.is("", "events");
        match object {
            Some(event) if brings_one && !write.dry_run => self.count(&write.info.namespace, &write.user.name, event, Instant::now()),
            _ => Ok(()),
        }
    }
}

/// What is counted together is what has these names in common.
fn names<'a>(kind: Type, namespace: &'a str, user: &'a str, event: &'a Value) -> Vec<&'a str> {
    let text = |part: &str, field: &str| event[part][field].as_str().unwrap_or_default();
    match kind {
        Type::Server => Vec::new(),
        Type::Namespace => vec![namespace],
        Type::User => vec![user],
        Type::SourceAndObject => {
            let source = ["component", "host"].map(|field| text("source", field));
            let object = ["kind", "namespace", "name", "uid", "apiVersion"].map(|field| text("involvedObject", field));
            [&source[..], &object[..]].concat()
        }
    }
}

fn key(names: &[&str]) -> Key {
    let mut context = Context::new(&SHA256);
    for name in names {
        // With its length: "a" and "bc" are not "ab" and "c".
        context.update(&name.len().to_le_bytes());
        context.update(name.as_bytes());
    }
    let mut key = Key::default();
    key.copy_from_slice(context.finish().as_ref());
    key
}
