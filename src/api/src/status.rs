//! `Status`: how every request that fails is answered (meta/v1 Status).

use serde_json::{Value, json};

/// One reason why, at one field (`details.causes`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, ...
    pub reason: &'static str,
    /// Path of the field: `spec.containers[0].name`.
    pub field: String,
    /// What is wrong there.
    pub message: String,
}

impl Cause {
    fn to_value(&self) -> Value {
        let parts = [("reason", self.reason), ("message", &self.message), ("field", &self.field)];
        parts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| (name.to_owned(), Value::from(text))).collect()
    }
}

/// A failed request's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, ...
    pub reason: &'static str,
    /// For people; clients match on some.
    pub message: String,
    /// Group, plural or kind, name, uid: of the object in question.
    pub details: Option<Details>,
    /// `metadata.continue`: how an expired list can go on, inconsistently.
    pub continuation: String,
    /// The body as somebody else made it: a webhook's, with reasons and details that are not ours.
    pub given: Option<Box<Value>>,
}

/// Which object a [`Status`] is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// API group.
    pub group: String,
    /// Plural resource or kind, as upstream does for the reason at hand.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// Uid of the object.
    pub uid: String,
    /// Why, field by field.
    pub causes: Vec<Cause>,
    /// When to try again, in seconds.
    pub retry_after_seconds: u32,
}

impl Status {
    /// A status without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None, continuation: String::new(), given: None }
    }

    /// With the object that it is about.
    #[must_use]
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.group = group.into();
        details.kind = kind.into();
        details.name = name.into();
        self
    }

    /// With the body as somebody else made it.
    #[must_use]
    pub fn given(self, body: Value) -> Self {
        Self { given: Some(Box::new(body)), ..self }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 403.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(group, resource);
        let message = if name.is_empty() { format!("{what} is forbidden: {why}") } else { format!("{what} {name:?} is forbidden: {why}") };
        Self::new(403, "Forbidden", message).about(group, resource, name)
    }

    /// 404: no object of this name.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} {name:?} not found", qualified(group, resource))).about(group, resource, name)
    }

    /// 409: the name is taken.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} {name:?} already exists", qualified(group, resource))).about(group, resource, name)
    }

    /// 409: somebody else wrote first.
    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, resource));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// 422: the object is not valid; `kind` is its kind, not its plural.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let list: Vec<String> = causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
        let why = if list.len() == 1 { list[0].clone() } else { format!("[{}]", list.join(", ")) };
        let mut status =
            Self::new(422, "Invalid", format!("{} {name:?} is invalid: {why}", qualified(group, kind))).about(group, kind, name);
        status.details.get_or_insert_default().causes = causes;
        status
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    /// The body.
    pub fn to_value(&self) -> Value {
        if let Some(given) = &self.given {
            return (**given).clone();
        }
        let mut out =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message, "code": self.code});
        if !self.continuation.is_empty() {
            out["metadata"]["continue"] = self.continuation.as_str().into();
        }
        if !self.reason.is_empty() {
            out["reason"] = self.reason.into();
        }
        if let Some(d) = &self.details {
            let mut details = serde_json::Map::new();
            for (key, value) in [("name", &d.name), ("group", &d.group), ("kind", &d.kind), ("uid", &d.uid)] {
                if !value.is_empty() {
                    details.insert(key.into(), value.as_str().into());
                }
            }
            if !d.causes.is_empty() {
                details.insert("causes".into(), d.causes.iter().map(Cause::to_value).collect());
            }
            if d.retry_after_seconds > 0 {
                details.insert("retryAfterSeconds".into(), d.retry_after_seconds.into());
            }
            out["details"] = details.into();
        }
        out
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
