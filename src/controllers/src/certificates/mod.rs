//! Certificate signing requests: those of nodes are approved, those for the built-in signers signed, old ones removed.
//!
//! Serving certificates of nodes (`kubernetes.io/kubelet-serving`) are approved by nobody here, as upstream: only an operator knows which
//! addresses are a node's. Save those of the node beside: its name and addresses are in the configuration of this very process.

mod approve;
mod clean;
mod sign;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coracle_client::{Informers, Key, Lister};
use coracle_pki::authority::Authority;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::{
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::{
    config::{Config, OwnNode},
    plan::{Delete, Patch, Plan, Target, document},
    runner::{Controller, Past, Wakeups},
    waiting::Waiting,
    writer::{Refused, refused},
};
use approve::Permission;
use sign::Verdict;

/// A node that may not have a certificate may get the permission later: it is asked again after as long as the request is old, between these.
const SOONEST_AGAIN: SignedDuration = SignedDuration::from_secs(1);
const LATEST_AGAIN: SignedDuration = SignedDuration::from_secs(1000);

/// Serves certificate signing requests.
pub struct CertificateRequests {
    client: Client,
    requests: Lister<CertificateSigningRequest>,
    /// `None` where the cluster's authorities are not at hand: then others sign.
    authority: Option<Arc<Authority>>,
    own_node: Option<OwnNode>,
    longest: Duration,
}

impl CertificateRequests {
    /// Subscribes to requests.
    pub fn new(client: Client, informers: &Informers, wakeups: &Wakeups, config: &Config) -> Self {
        let requests = informers.of::<CertificateSigningRequest>();
        wakeups.watch(&requests, |_, new| new.map(Key::of).into_iter().collect());
        Self {
            client,
            requests: requests.lister(),
            authority: config.authority.clone(),
            own_node: config.own_node.clone(),
            longest: config.signing_duration,
        }
    }

    /// Whether whoever sent the request may have it approved.
    async fn may(&self, request: &CertificateSigningRequest, permission: Permission) -> Result<bool, Refused> {
        let spec = &request.spec;
        let attributes = ResourceAttributes {
            group: Some("certificates.k8s.io".into()),
            version: Some("*".into()),
            resource: Some("certificatesigningrequests".into()),
            subresource: Some(permission.subresource().into()),
            verb: Some("create".into()),
            ..ResourceAttributes::default()
        };
        let question = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &question).await.map_err(|error| refused(&error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approval(&self, request: &CertificateSigningRequest, now: Timestamp) -> Result<Plan, Refused> {
        if self.own_node.as_ref().is_some_and(|node| approve::is_own_serving(request, node)) {
            let message = "Approved: it is the node of this process, under the name and addresses that it was started with.";
            return Ok(with_condition(request, "approval", ("Approved", "AutoApproved", message), now));
        }
        let asked = approve::recognised(request);
        for permission in &asked {
            if self.may(request, *permission).await? {
                return Ok(with_condition(request, "approval", ("Approved", "AutoApproved", permission.message()), now));
            }
        }
        let mut plan = Plan::default();
        if !asked.is_empty() {
            let until = again(request, now);
            plan.waiting.push(Waiting::Time { until });
            plan.requeue_at = Some(until);
        }
        Ok(plan)
    }

    fn signature(&self, request: &CertificateSigningRequest, now: Timestamp) -> Result<Plan, Refused> {
        let Some(authority) = &self.authority else { return Ok(Plan::default()) };
        match sign::verdict(request, self.longest) {
            Verdict::Others => Ok(Plan::default()),
            Verdict::Failed(why) => Ok(with_condition(request, "status", ("Failed", "SignerValidationFailure", &why), now)),
            Verdict::Sign { by, asked, life } => {
                let usages: Vec<&str> = request.spec.usages.iter().flatten().map(String::as_str).collect();
                let signed = authority.sign_request(by, &asked, &usages, life, now).map_err(|error| Refused {
                    code: 0,
                    reason: "Unsigned".into(),
                    message: error.to_string(),
                    namespace_ends: false,
                })?;
                let certificate = document(&k8s_openapi::ByteString(signed.into_bytes()));
                let body = json!({"status": {"certificate": certificate}});
                let patch = Patch { subresource: Some("status"), ..Patch::merge(Target::of(request), body) };
                Ok(Plan { patches: vec![patch], ..Plan::default() })
            }
        }
    }
}

#[async_trait]
impl Controller for CertificateRequests {
    fn name(&self) -> &'static str {
        "certificate-controller"
    }

    async fn plan(&self, key: &Key, now: Timestamp, _past: &Past) -> Result<Plan, Refused> {
        let Some(request) = self.requests.get(key).filter(|request| request.metadata.deletion_timestamp.is_none()) else {
            return Ok(Plan::default());
        };
        let due = clean::due(&request);
        if due.is_some_and(|at| at <= now) {
            return Ok(Plan { deletes: vec![Delete::one(Target::of(&*request))], ..Plan::default() });
        }
        let mut plan = match step(&request) {
            Step::Judge => self.approval(&request, now).await?,
            Step::Sign => self.signature(&request, now)?,
            Step::Nothing => Plan::default(),
        };
        plan.look_again(due);
        Ok(plan)
    }

    fn keys(&self) -> Vec<Key> {
        self.requests.list().iter().map(|request| Key::of(&**request)).collect()
    }
}

/// What a request needs next.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Judge,
    Sign,
    Nothing,
}

fn step(request: &CertificateSigningRequest) -> Step {
    if is_issued(request) || has(request, "Denied") || has(request, "Failed") {
        Step::Nothing
    } else if has(request, "Approved") {
        Step::Sign
    } else {
        Step::Judge
    }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request).iter().any(|condition| condition.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|certificate| !certificate.0.is_empty())
}

/// When to ask again for a request that nobody approved.
fn again(request: &CertificateSigningRequest, now: Timestamp) -> Timestamp {
    let age = request.metadata.creation_timestamp.as_ref().map_or(SignedDuration::ZERO, |born| now.duration_since(born.0));
    now.saturating_add(age.clamp(SOONEST_AGAIN, LATEST_AGAIN)).unwrap_or(Timestamp::MAX)
}

/// Adds a condition by a subresource.
fn with_condition(
    request: &CertificateSigningRequest,
    subresource: &'static str,
    (kind, reason, message): (&str, &str, &str),
    now: Timestamp,
) -> Plan {
    let mut all = conditions(request).to_vec();
    all.push(CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    let body = json!({"status": {"conditions": document(&all)}});
    Plan { patches: vec![Patch { subresource: Some(subresource), ..Patch::merge(Target::of(request), body) }], ..Plan::default() }
}

#[cfg(test)]
mod tests;
