//! Query parameters and DeleteOptions, read and checked.

use coracle_api::{
    apply::MAX_MANAGER_BYTES,
    status::{Cause, Status},
};
use serde_json::Value;

use crate::request::Context;

/// Upstream's name for a deletion without a look at the object.
const EVEN_UNREADABLE: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

/// How unknown and doubled fields are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Silently dropped.
    Ignore,
    /// Dropped with a Warning header.
    #[default]
    Warn,
    /// Refused.
    Strict,
}

/// Parameters of create, update and patch.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Everything but the write.
    pub dry_run: bool,
    /// How unknown fields are taken.
    pub field_validation: FieldValidation,
    /// Only an apply may say it.
    pub force: Option<bool>,
    /// Who manages what is written; empty: the client's own name counts.
    pub field_manager: String,
}

/// What happens to the objects that an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They stay, without their owner.
    Orphan,
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
}

/// DeleteOptions, of the body and the query.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Everything but the write.
    pub dry_run: bool,
    /// Seconds for the object to end in.
    pub grace_period: Option<i64>,
    /// The deprecated form of `Orphan`.
    pub orphan_dependents: Option<bool>,
    /// Orphan, Background or Foreground.
    pub propagation: Option<Propagation>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must have this resourceVersion.
    pub resource_version: Option<String>,
    /// An object that cannot be read goes too, and whatever should have followed from its deletion does not.
    pub even_unreadable: bool,
}

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    /// This one.
    Exact,
    /// This one or a later one.
    NotOlderThan,
}

/// Parameters of list and watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Changes instead of a list.
    pub watch: bool,
    /// `labelSelector`.
    pub labels: String,
    /// `fieldSelector`.
    pub fields: String,
    /// As it came.
    pub resource_version: String,
    /// How `resource_version` counts.
    pub version_match: Option<VersionMatch>,
    /// At most so many; 0 is no bound.
    pub limit: usize,
    /// Goes on where the list with this token ended.
    pub continuation: String,
    /// Ends the watch after so many seconds.
    pub timeout_seconds: Option<u64>,
    /// Says at times how far the watch is.
    pub bookmarks: bool,
    /// The watch begins with what is there.
    pub send_initial_events: Option<bool>,
}

fn flag(cx: &Context, name: &str) -> Result<Option<bool>, Status> {
    match cx.param(name) {
        None => Ok(None),
        // Upstream takes any text but these for true.
        Some(text) => Ok(Some(!matches!(text, "false" | "0"))),
    }
}

fn number(cx: &Context, name: &str) -> Result<Option<i64>, Status> {
    match cx.param(name) {
        None | Some("") => Ok(None),
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|error| Status::bad_request(format!("the query parameter {name} is not a number: {text:?}: {error}"))),
    }
}

fn cause(reason: &'static str, field: &str, message: impl Into<String>) -> Cause {
    Cause { reason, field: field.into(), message: message.into() }
}

fn quoted(value: &str, supported: &str) -> String {
    format!("Unsupported value: {value:?}: supported values: {supported}")
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, causes: &mut Vec<Cause>) -> bool {
    let mut any = false;
    for value in values {
        any = true;
        if value != "All" {
            causes.push(cause("FieldValueNotSupported", "dryRun", quoted(value, "\"All\"")));
        }
    }
    any
}

/// 422 that names the options type.
fn invalid_options(kind: &str, causes: Vec<Cause>) -> Result<(), Status> {
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", causes)) }
}

impl WriteOptions {
    /// Of create, update (`kind` names their options: `CreateOptions`) and patch.
    pub fn read(cx: &Context, kind: &str) -> Result<Self, Status> {
        let mut causes = Vec::new();
        let values = cx.query.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str());
        let dry_run = dry_run(values, &mut causes);
        let field_validation = match cx.param("fieldValidation").unwrap_or_default() {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                let supported = "\"\", \"Ignore\", \"Strict\", \"Warn\"";
                causes.push(cause("FieldValueNotSupported", "fieldValidation", quoted(other, supported)));
                FieldValidation::Warn
            }
        };
        let field_manager = cx.param("fieldManager").unwrap_or_default();
        if field_manager.len() > MAX_MANAGER_BYTES {
            causes.push(cause("FieldValueTooLong", "fieldManager", "Too long: may not be more than 128 bytes"));
        }
        if field_manager.chars().any(|c| c.is_control()) {
            causes.push(cause(
                "FieldValueInvalid",
                "fieldManager",
                format!("Invalid value: {field_manager:?}: should only contain printable characters"),
            ));
        }
        let force = flag(cx, "force")?;
        invalid_options(kind, causes)?;
        Ok(Self { dry_run, field_validation, force, field_manager: field_manager.to_owned() })
    }
}

impl DeleteOptions {
    /// `body` is the decoded DeleteOptions, if there was one; without it the query counts.
    pub fn read(cx: &Context, body: Option<&Value>) -> Result<Self, Status> {
        let mut out = Self::default();
        let mut causes = Vec::new();
        let policy;
        match body {
            Some(body) => {
                let options = body["dryRun"].as_array().map(Vec::as_slice).unwrap_or_default();
                out.dry_run = dry_run(options.iter().filter_map(Value::as_str), &mut causes);
                out.grace_period = body["gracePeriodSeconds"].as_i64();
                out.orphan_dependents = body["orphanDependents"].as_bool();
                policy = body["propagationPolicy"].as_str().map(str::to_owned);
                out.uid = body["preconditions"]["uid"].as_str().map(str::to_owned);
                out.resource_version = body["preconditions"]["resourceVersion"].as_str().map(str::to_owned);
                out.even_unreadable = body[EVEN_UNREADABLE].as_bool() == Some(true);
            }
            None => {
                let values = cx.query.iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str());
                out.dry_run = dry_run(values, &mut causes);
                out.grace_period = number(cx, "gracePeriodSeconds")?;
                out.orphan_dependents = flag(cx, "orphanDependents")?;
                out.even_unreadable = flag(cx, EVEN_UNREADABLE)? == Some(true);
                policy = cx.param("propagationPolicy").map(str::to_owned);
            }
        }
        out.propagation = match policy.as_deref() {
            None => None,
            Some("Orphan") => Some(Propagation::Orphan),
            Some("Background") => Some(Propagation::Background),
            Some("Foreground") => Some(Propagation::Foreground),
            Some(other) => {
                let supported = "\"Background\", \"Foreground\", \"Orphan\"";
                causes.push(cause("FieldValueNotSupported", "propagationPolicy", quoted(other, supported)));
                None
            }
        };
        if policy.is_some() && out.orphan_dependents.is_some() {
            let both = "orphanDependents and deletionPropagation cannot be both set";
            causes.push(cause(
                "FieldValueInvalid",
                "propagationPolicy",
                format!("Invalid value: {:?}: {both}", policy.unwrap_or_default()),
            ));
        }
        invalid_options("DeleteOptions", causes)?;
        Ok(out)
    }
}

impl ListOptions {
    /// Of list, watch and deletecollection.
    pub fn read(cx: &Context) -> Result<Self, Status> {
        let text = |name: &str| cx.param(name).unwrap_or_default().to_owned();
        let mut causes = Vec::new();
        let watch = flag(cx, "watch")?.unwrap_or(false) || cx.info.verb == "watch";
        let version_match = match cx.param("resourceVersionMatch").unwrap_or_default() {
            "" => None,
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            other => {
                let supported = "\"Exact\", \"NotOlderThan\", \"\"";
                causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", quoted(other, supported)));
                None
            }
        };
        let options = Self {
            watch,
            labels: text("labelSelector"),
            fields: text("fieldSelector"),
            resource_version: text("resourceVersion"),
            version_match,
            limit: number(cx, "limit")?.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
            continuation: text("continue"),
            timeout_seconds: number(cx, "timeoutSeconds")?.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0),
            bookmarks: flag(cx, "allowWatchBookmarks")?.unwrap_or(false),
            send_initial_events: flag(cx, "sendInitialEvents")?,
        };
        options.check(&mut causes);
        invalid_options("ListOptions", causes)?;
        Ok(options)
    }

    fn check(&self, causes: &mut Vec<Cause>) {
        let forbid = |field: &str, why: &str| cause("FieldValueForbidden", field, format!("Forbidden: {why}"));
        if self.watch {
            match (self.send_initial_events, self.version_match) {
                (Some(_), None) => {
                    causes.push(forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
                }
                (Some(_), Some(VersionMatch::Exact)) => {
                    causes.push(forbid("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
                    causes.push(cause("FieldValueNotSupported", "resourceVersionMatch", quoted("Exact", "\"NotOlderThan\"")));
                }
                (None, Some(_)) => {
                    causes.push(forbid(
                        "resourceVersionMatch",
                        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                    ));
                }
                _ => {}
            }
            return;
        }
        if self.send_initial_events.is_some() {
            causes.push(forbid("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        if self.version_match.is_some() {
            if self.resource_version.is_empty() {
                causes.push(forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            if !self.continuation.is_empty() {
                causes.push(forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided"));
            }
            if self.version_match == Some(VersionMatch::Exact) && self.resource_version == "0" {
                causes.push(forbid("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
        }
    }
}
