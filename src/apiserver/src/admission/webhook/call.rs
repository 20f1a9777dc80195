//! One call of one webhook.

use std::time::Duration;

use coracle_api::status::Status;
use serde_json::Value;

use super::{
    configuration::Hook,
    failed,
    review::{self, Request, Verdict},
    select::{self, Invocation, Sight},
};
use crate::{
    admission::expressions::request::word,
    metrics::admission::{Answered, Named},
    uuid,
    webhook::CallError,
};

/// Bytes of an answer. The largest object that can be written, as a patch in base64, fits twice.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// The kind of what has a say here, as metrics have it.
const KIND: &str = "webhook";

/// Why a write does not pass.
#[derive(Debug)]
pub(super) enum Fault {
    /// There was no answer that counts; what that means is the webhook's policy.
    Call {
        /// For people.
        why: String,
        /// What metrics count it as.
        code: u16,
    },
    /// The webhook refuses.
    Denied(Box<Status>),
    /// It is refused here, whatever the policy: the webhook cannot be asked so, or nothing can be made of what it says.
    Own(Box<Status>),
}

impl Fault {
    /// What the client is told; `None` where a failed call is consent.
    pub fn settle(self, hook: &Hook) -> Option<Status> {
        match self {
            Self::Denied(status) | Self::Own(status) => Some(*status),
            Self::Call { why, .. } => {
                let message = format!("failed calling webhook {:?}: {why}", hook.name);
                let (webhook, policy) = (hook.uid.as_str(), if hook.optional { "Ignore" } else { "Fail" });
                tracing::warn!(webhook, policy, why, "a webhook could not be asked");
                (!hook.optional).then(|| failed(&message))
            }
        }
    }
}

/// A webhook as metrics name it; `step` is the word for the plugin that asks.
pub(super) fn named<'n>(hook: &'n Hook, step: &'static str, sight: &Sight<'_>) -> Named<'n> {
    Named { name: &hook.name, kind: KIND, step, operation: sight.write.operation }
}

/// Counts a question and what became of it.
pub(super) fn count<T>(hook: &Hook, step: &'static str, sight: &Sight<'_>, answer: &Result<T, Fault>, took: Duration) {
    let (metrics, named) = (sight.write.metrics, named(hook, step, sight));
    let (code, refused) = match answer {
        Ok(_) => (200, None),
        Err(Fault::Call { code, .. }) if hook.optional => {
            metrics.failed_open(named);
            (*code, None)
        }
        Err(Fault::Call { code, .. }) => (*code, Some(("calling_webhook_error", *code))),
        Err(Fault::Denied(status)) => (status.code, Some(("no_error", status.code))),
        Err(Fault::Own(_)) => (0, Some(("apiserver_internal_error", 0))),
    };
    metrics.webhook(named, Answered { took, code, refused });
}

/// What no answer is counted as: the code of a refusal, or that nobody is there.
fn code_of(error: &CallError) -> u16 {
    match error {
        CallError::Refused { code, .. } => code.as_u16(),
        _ => 503,
    }
}

/// Asks; both objects are in the version of the invocation. A verdict that is returned allows the write.
pub(super) async fn call(
    hook: &Hook,
    invocation: &Invocation,
    sight: &Sight<'_>,
    mutating: bool,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Verdict, Fault> {
    let write = sight.write;
    if write.dry_run && !hook.dry_runs {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(Fault::Own(Box::new(Status::bad_request(why))));
    }
    let version = hook.version.ok_or_else(|| {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        Fault::Call { why: why.into(), code: 400 }
    })?;
    let server = hook.server.as_ref().map_err(|why| Fault::Call { why: format!("could not get REST client: {why}"), code: 500 })?;
    let (uid, subresource) = (uuid::random(), write.info.subresource.as_str());
    let options = write.asked.options(write.operation);
    let request = Request {
        uid: &uid,
        kind: &select::kind(&invocation.resource, subresource),
        resource: &select::resource(&invocation.resource),
        sub_resource: subresource,
        request_kind: &select::kind(write.resource, subresource),
        request_resource: &select::resource(write.resource),
        request_sub_resource: subresource,
        name: &write.info.name,
        namespace: sight.namespace,
        operation: word(write.operation),
        user_info: write.user,
        object,
        old_object: old,
        dry_run: write.dry_run,
        options: options.as_ref(),
    };
    let answer = server.post(review::write(version, &request), hook.patience, MAX_ANSWER_BYTES).await;
    let answer = answer.map_err(|error| Fault::Call { why: format!("failed to call webhook: {error}"), code: code_of(&error) })?;
    let verdict = review::read(version, &uid, mutating, answer);
    let mut verdict = verdict.map_err(|why| Fault::Call { why: format!("received invalid webhook response: {why}"), code: 503 })?;
    write.warnings.extend(std::mem::take(&mut verdict.warnings));
    for (key, value) in &verdict.annotations {
        write.audit.add(&format!("{}/{key}", hook.name), value.as_str());
    }
    if !verdict.allowed {
        return Err(Fault::Denied(Box::new(review::denied(&hook.name, verdict.result.as_ref()))));
    }
    Ok(verdict)
}
