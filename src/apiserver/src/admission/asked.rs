//! What a request asks besides its object: the options that policies and webhooks are shown.

use serde_json::{Map, Value, json};

use super::Operation;
use crate::registry::options::{DeleteOptions, Propagation};

/// Parameters of a write; they become an object only for who wants to see it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// Of the request.
    pub query: &'a [(String, String)],
    /// Of a deletion, which may have them in its body.
    pub deletion: Option<&'a DeleteOptions>,
}

impl Asked<'_> {
    /// CreateOptions, UpdateOptions or DeleteOptions; nothing for who connects.
    pub fn options(&self, operation: Operation) -> Option<Value> {
        let kind = match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return None,
        };
        let mut out = Map::new();
        out.insert("kind".into(), kind.into());
        out.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        match self.deletion {
            Some(options) => deletion(&mut out, options),
            None => {
                let dry_run: Vec<&str> = self.query.iter().filter(|(key, _)| key == "dryRun").map(|(_, value)| value.as_str()).collect();
                if !dry_run.is_empty() {
                    out.insert("dryRun".into(), json!(dry_run));
                }
                for field in ["fieldManager", "fieldValidation"] {
                    if let Some((_, value)) = self.query.iter().find(|(key, value)| key == field && !value.is_empty()) {
                        out.insert(field.into(), value.as_str().into());
                    }
                }
            }
        }
        Some(out.into())
    }
}

fn deletion(out: &mut Map<String, Value>, options: &DeleteOptions) {
    if let Some(seconds) = options.grace_period {
        out.insert("gracePeriodSeconds".into(), seconds.into());
    }
    let mut preconditions = Map::new();
    for (field, value) in [("uid", &options.uid), ("resourceVersion", &options.resource_version)] {
        if let Some(value) = value {
            preconditions.insert(field.into(), value.as_str().into());
        }
    }
    if !preconditions.is_empty() {
        out.insert("preconditions".into(), preconditions.into());
    }
    if let Some(orphan) = options.orphan_dependents {
        out.insert("orphanDependents".into(), orphan.into());
    }
    if let Some(policy) = options.propagation {
        let word = match policy {
            Propagation::Orphan => "Orphan",
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        };
        out.insert("propagationPolicy".into(), word.into());
    }
    if options.dry_run {
        out.insert("dryRun".into(), json!(["All"]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_what_was_asked() {
        let query = [("fieldManager", "kubectl"), ("dryRun", "All"), ("pretty", "1"), ("fieldValidation", "")];
        let query = query.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let asked = Asked { query: &query, deletion: None };
        assert_eq!(
            asked.options(Operation::Create),
            Some(json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "kubectl"}))
        );
        assert_eq!(asked.options(Operation::Connect), None);
        let deletion = DeleteOptions {
            grace_period: Some(0),
            uid: Some("u".into()),
            propagation: Some(Propagation::Orphan),
            ..DeleteOptions::default()
        };
        let asked = Asked { query: &[], deletion: Some(&deletion) };
        assert_eq!(
            asked.options(Operation::Delete),
            Some(json!({"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan"}))
        );
    }
}
