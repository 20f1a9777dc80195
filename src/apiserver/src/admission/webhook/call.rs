//! One call of one webhook.

use coracle_api::status::Status;
use serde_json::Value;

use super::{
    configuration::Hook,
    failed,
    review::{self, Request, Verdict},
    select::{self, Invocation, Sight},
};
use crate::{admission::expressions::request::word, uuid};

/// Bytes of an answer. The largest object that can be written, as a patch in base64, fits twice.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// Why a write does not pass.
#[derive(Debug)]
pub(super) enum Fault {
    /// There was no answer that counts; what that means is the webhook's policy.
    Call(String),
    /// It is refused, whatever the policy.
    Refused(Box<Status>),
}

impl Fault {
    /// What the client is told; `None` where a failed call is consent.
    pub fn settle(self, hook: &Hook) -> Option<Status> {
        match self {
            Self::Refused(status) => Some(*status),
            Self::Call(why) => {
                let message = format!("failed calling webhook {:?}: {why}", hook.name);
                let (webhook, policy) = (hook.uid.as_str(), if hook.optional { "Ignore" } else { "Fail" });
                tracing::warn!(webhook, policy, why, "a webhook could not be asked");
                (!hook.optional).then(|| failed(&message))
            }
        }
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
        return Err(Fault::Refused(Box::new(Status::bad_request(why))));
    }
    let version = hook.version.ok_or_else(|| {
        let why = "could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        Fault::Call(why.into())
    })?;
    let server = hook.server.as_ref().map_err(|why| Fault::Call(format!("could not get REST client: {why}")))?;
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
    let answer = answer.map_err(|error| Fault::Call(format!("failed to call webhook: {error}")))?;
    let verdict = review::read(version, &uid, mutating, answer);
    let mut verdict = verdict.map_err(|why| Fault::Call(format!("received invalid webhook response: {why}")))?;
    write.warnings.extend(std::mem::take(&mut verdict.warnings));
    for (key, value) in &verdict.annotations {
        write.audit.add(&format!("{}/{key}", hook.name), value.as_str());
    }
    if !verdict.allowed {
        return Err(Fault::Refused(Box::new(review::denied(&hook.name, verdict.result.as_ref()))));
    }
    Ok(verdict)
}
