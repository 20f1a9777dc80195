//! When a certificate is asked for anew, and what a request's status says. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// The share of a life from which on it is renewed, and how much later chance may put it: upstream's figures.
const FROM: f64 = 0.7;
const SPREAD: f64 = 0.2;
/// After a first failure, and the longest: upstream's figures.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(32);

/// When to ask, with `chance` from 0 to 1.
pub fn due(begins: Timestamp, ends: Timestamp, chance: f64) -> Timestamp {
    let life = ends.duration_since(begins).as_secs_f64() * (FROM + SPREAD * chance.clamp(0.0, 1.0));
    let after = SignedDuration::try_from_secs_f64(life).unwrap_or(SignedDuration::MAX);
    begins.saturating_add(after).unwrap_or(ends)
}

/// Until the next try after so many failures on end.
pub fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing yet.
    Open,
    /// The chain in PEM.
    Issued(Vec<u8>),
    /// Never.
    Refused(String),
}

/// A certificate counts only with the approval.
pub fn verdict(request: &CertificateSigningRequest) -> Verdict {
    let Some(status) = &request.status else { return Verdict::Open };
    let find = |kind: &str| status.conditions.iter().flatten().find(|c| c.type_ == kind);
    if let Some(no) = find("Denied").or_else(|| find("Failed")) {
        let words = [Some(no.type_.as_str()), no.reason.as_deref(), no.message.as_deref()];
        return Verdict::Refused(words.into_iter().flatten().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(", "));
    }
    match &status.certificate {
        Some(chain) if !chain.0.is_empty() && find("Approved").is_some() => Verdict::Issued(chain.0.clone()),
        _ => Verdict::Open,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_most_of_its_life_is_over() {
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).expect("a time");
        for (life, chance, want) in [(1000, 0.0, 700), (1000, 0.5, 800), (1000, 1.0, 900), (1000, 7.0, 900), (0, 0.5, 0)] {
            assert_eq!(due(at(0), at(life), chance), at(want), "{life} {chance}");
        }
    }

    #[test]
    fn failures_are_followed_by_longer_pauses() {
        let seconds: Vec<u64> = [1, 2, 3, 4, 5, 6, 40, u32::MAX].map(|n| pause(n).as_secs()).into();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 32, 32, 32]);
    }

    #[test]
    fn only_what_is_approved_and_signed_counts() {
        let check = |status: Value, want: Verdict| {
            let request: CertificateSigningRequest = serde_json::from_value(json!({
                "spec": {"request": "", "signerName": "s"}, "status": status,
            }))
            .expect("a request");
            assert_eq!(verdict(&request), want);
        };
        let yes = json!({"type": "Approved", "status": "True"});
        let no = json!({"type": "Denied", "status": "True", "reason": "Never", "message": "we do not know you"});
        check(json!({}), Verdict::Open);
        check(json!({"conditions": [yes]}), Verdict::Open);
        check(json!({"certificate": "eA=="}), Verdict::Open);
        check(json!({"conditions": [yes], "certificate": ""}), Verdict::Open);
        check(json!({"conditions": [yes], "certificate": "eA=="}), Verdict::Issued(b"x".to_vec()));
        check(json!({"conditions": [no]}), Verdict::Refused("Denied, Never, we do not know you".into()));
        let failed = json!({"type": "Failed", "status": "True"});
        check(json!({"conditions": [yes, failed], "certificate": "eA=="}), Verdict::Refused("Failed".into()));
    }
}
