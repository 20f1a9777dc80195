//! When a request has been there long enough. The times are upstream's.

use coracle_pki::request::chain_ends_s;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::{conditions, is_issued};

/// Nobody has looked at it, or nobody has signed it, for this long.
const PENDING: SignedDuration = SignedDuration::from_hours(24);
/// It is over for this long: whoever waits for it has seen so.
const DONE: SignedDuration = SignedDuration::from_hours(1);

/// When it is to go.
pub(super) fn due(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let conditions = conditions(request);
    let after = |since: Timestamp, time: SignedDuration| since.saturating_add(time).ok();
    let mut all: Vec<Option<Timestamp>> = Vec::new();
    if conditions.is_empty() {
        all.push(request.metadata.creation_timestamp.as_ref().and_then(|born| after(born.0, PENDING)));
    }
    for condition in conditions {
        let since = condition.last_update_time.as_ref().map(|time| time.0);
        let time = match condition.type_.as_str() {
            "Denied" | "Failed" => DONE,
            "Approved" if is_issued(request) => DONE,
            "Approved" => PENDING,
            _ => continue,
        };
        all.push(since.and_then(|since| after(since, time)));
    }
    if conditions.iter().any(|condition| condition.type_ == "Approved") {
        let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
        all.push(certificate.and_then(|pem| chain_ends_s(&pem.0)).and_then(|second| Timestamp::from_second(second).ok()));
    }
    all.into_iter().flatten().min()
}
