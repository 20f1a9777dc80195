//! Reviews: questions in the form of objects. Whose token is this, who am I, may they do that, what may I do?

mod access;

use axum::response::Response;
use bytes::Bytes;
use coracle_api::{catalogue::Resource, status::Status};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::posted;
use crate::{
    answer,
    authorization::Decision,
    registry::{body::Expected, manage},
    request::Context,
    server::Shared,
};

/// The answer to a posted review.
pub(crate) async fn answer(shared: &Shared, cx: &Context, resource: &Resource, body: &Bytes) -> Response {
    review(shared, cx, resource, body).await.unwrap_or_else(|status| answer::status(&status))
}

async fn review(shared: &Shared, cx: &Context, resource: &Resource, body: &Bytes) -> Result<Response, Status> {
    let Resource { group, version, kind, schema, .. } = resource;
    let kind = kind.as_str();
    let mut posted = posted::read(cx, Expected { group, version, kind, schema }, body)?;
    let review = &mut posted.object;
    let status = match kind {
        "TokenReview" => token(shared, &review["spec"]).await?,
        "SelfSubjectReview" => {
            manage::set(review, Value::Null);
            json!({"userInfo": cx.user})
        }
        "SelfSubjectRulesReview" => {
            let status = rules(shared, cx, &review["spec"])?;
            // The answer is another object than the question.
            review["spec"] = json!({});
            manage::set(review, Value::Null);
            status
        }
        _ => {
            if kind == "LocalSubjectAccessReview" && !cx.info.namespace.is_empty() {
                review["metadata"]["namespace"] = cx.info.namespace.as_str().into();
            }
            let causes = access::validate(kind, &review["spec"], &cx.info.namespace);
            if !causes.is_empty() {
                // Upstream names no kind here.
                let mut status = Status::invalid("authorization.k8s.io", kind, "", causes);
                status.details.get_or_insert_default().kind.clear();
                return Err(status);
            }
            let asked = access::Asked::of(&review["spec"], (kind == "SelfSubjectAccessReview").then_some(&cx.user));
            access_status(shared.authorizers.decide(&asked.question()))
        }
    };
    if kind == "SelfSubjectReview"
        && let Some(metadata) = review["metadata"].as_object_mut()
    {
        metadata.insert("creationTimestamp".into(), Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    }
    review["status"] = status;
    Ok(posted.created(schema))
}

fn access_status(decision: Decision) -> Value {
    let (allowed, denied, reason) = match decision {
        Decision::Allow(reason) => (true, false, reason),
        Decision::Deny(reason) => (false, true, reason),
        Decision::NoOpinion(reason) => (false, false, reason),
    };
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = true.into();
    }
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    status
}

async fn token(shared: &Shared, spec: &Value) -> Result<Value, Status> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let wanted = access::strings(&spec["audiences"]);
    // An error's text is for the log: who asks learns that the token does not hold.
    Ok(match shared.authenticator.token(token, &wanted, Timestamp::now()).await {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user, "audiences": audiences}),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    })
}

/// What the user may do in a namespace: advice for user interfaces.
fn rules(shared: &Shared, cx: &Context, spec: &Value) -> Result<Value, Status> {
    let namespace = spec["namespace"].as_str().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (rules, missing) = shared.authorizers.rbac.snapshot().rules(&cx.user, namespace);
    let (paths, resources): (Vec<_>, Vec<_>) = rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": !missing.is_empty()});
    if !missing.is_empty() {
        status["evaluationError"] = missing.join(", ").into();
    }
    Ok(status)
}
