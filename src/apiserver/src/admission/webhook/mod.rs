//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: servers of other people that change or refuse writes.
//!
//! What is asked is in `review`, who is asked in `rules` and `select`, and what a failed call means in `call`. Mutating webhooks are asked one
//! after the other, and those who wish a second time when a later one changed the object; validating ones all at once.

mod call;
mod configuration;
mod mutate;
mod review;
mod rules;
mod select;
mod validate;

use coracle_api::status::{Cause, Status};

use super::{Attributes, Operation};
pub use mutate::MutatingAdmissionWebhook;
pub use validate::ValidatingAdmissionWebhook;

/// What decides about other writes is not itself decided about by webhooks: who locks himself out could not mend it.
const EXEMPT: [&str; 6] = [
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
];

fn is_exempt(write: &Attributes<'_>) -> bool {
    write.info.group == configuration::GROUP && EXEMPT.contains(&write.info.resource.as_str())
}

/// 500, in upstream's form.
fn failed(why: &str) -> Status {
    let mut status = Status::internal(format!("Internal error occurred: {why}"));
    status.details.get_or_insert_default().causes.push(Cause { reason: "", field: String::new(), message: why.to_owned() });
    status
}
