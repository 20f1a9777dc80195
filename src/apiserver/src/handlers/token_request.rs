//! `serviceaccounts/NAME/token`: a token for an account, bound to what the request names.

use axum::response::Response;
use bytes::Bytes;
use coracle_api::status::{Cause, Status};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::posted;
use crate::{
    answer,
    authentication::service_account::{Bound, Named, SHORTEST_S},
    authorization::node::node_name,
    registry::body::Expected,
    request::Context,
    server::Shared,
    uuid,
};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";
/// Life of a token whose request names none, in seconds; upstream's default.
const DEFAULT_S: i64 = 3600;
/// Longest life that can be asked for, in seconds; upstream's bound.
const LONGEST_S: i64 = 1 << 32;

/// The answer.
pub(crate) fn answer(shared: &Shared, cx: &Context, body: &Bytes) -> Response {
    request(shared, cx, body).unwrap_or_else(|status| answer::status(&status))
}

fn request(shared: &Shared, cx: &Context, body: &Bytes) -> Result<Response, Status> {
    let (namespace, name) = (cx.info.namespace.as_str(), cx.info.name.as_str());
    let catalogue = shared.catalogue();
    let schema = catalogue.schema(GROUP, "v1", KIND).ok_or_else(|| Status::internal("the catalogue lacks TokenRequest"))?;
    let mut posted = posted::read(cx, Expected { group: GROUP, version: "v1", kind: KIND, schema }, body)?;
    let request = &mut posted.object;
    let not_found = |resource: &str, name: &str| Status::not_found("", resource, name);
    let account = shared.registry.get("", "serviceaccounts", namespace, name).ok_or_else(|| not_found("serviceaccounts", name))?;
    let spec = &request["spec"];
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(DEFAULT_S);
    let causes = validate(seconds);
    if !causes.is_empty() {
        return Err(Status::invalid(GROUP, KIND, "", causes));
    }
    let bound = bound(shared, cx, &spec["boundObjectRef"])?;
    confine_node(cx, bound.as_ref())?;
    let given: Vec<String> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let audiences = if given.is_empty() { vec![shared.tokens.issuer().to_owned()] } else { given };
    let now = Timestamp::now();
    let issued = shared
        .tokens
        .issue((namespace, name, account.uid()), bound.as_ref(), &audiences, seconds, now)
        .map_err(|error| Status::internal(error.to_string()))?;
    let seconds_only = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    request["metadata"]["name"] = name.into();
    request["metadata"]["namespace"] = namespace.into();
    request["metadata"]["uid"] = uuid::random().into();
    request["metadata"]["creationTimestamp"] = seconds_only(now).into();
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": issued.token, "expirationTimestamp": seconds_only(issued.expires)});
    Ok(posted.created(schema))
}

fn validate(seconds: i64) -> Vec<Cause> {
    let why = if seconds < SHORTEST_S {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LONGEST_S {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Vec::new();
    };
    let message = format!("Invalid value: {seconds}: {why}");
    vec![Cause { reason: "FieldValueInvalid", field: "spec.expirationSeconds".into(), message }]
}

/// A node gets tokens for the pods that it runs, bound to them.
fn confine_node(cx: &Context, bound: Option<&Bound>) -> Result<(), Status> {
    let Some(node) = node_name(&cx.user) else { return Ok(()) };
    let forbidden = |why: String| Status::forbidden("", "serviceaccounts", &cx.info.name, &why);
    match bound {
        Some(Bound::Pod(_, Some((runs_on, _)))) if runs_on == node => Ok(()),
        Some(Bound::Pod(..)) => Err(forbidden("node requested token bound to a pod scheduled on a different node".into())),
        Some(_) => Err(forbidden("node may only request tokens bound to pods".into())),
        None => Err(forbidden("node requested token not bound to a pod".into())),
    }
}

/// What the token is bound to: it must exist and be the one that is meant, and a pod must run as the account.
fn bound(shared: &Shared, cx: &Context, reference: &Value) -> Result<Option<Bound>, Status> {
    if !reference.is_object() {
        return Ok(None);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (namespace, name) = (cx.info.namespace.as_str(), text("name"));
    let (resource, namespace) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}"))),
    };
    let object = shared.registry.get("", resource, namespace, name).ok_or_else(|| Status::not_found("", resource, name))?;
    let (uid, wanted) = (object.uid().to_owned(), text("uid"));
    if !wanted.is_empty() && wanted != uid.as_str() {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict("", resource, name, &why));
    }
    let named = Named { name: name.to_owned(), uid };
    Ok(Some(match resource {
        "secrets" => Bound::Secret(named),
        "nodes" => Bound::Node(named),
        _ => {
            let pod = object.value();
            let runs_as = pod.pointer("/spec/serviceAccountName").and_then(Value::as_str).unwrap_or_default();
            if runs_as != cx.info.name {
                let message =
                    format!("cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.", cx.info.name);
                return Err(Status::bad_request(message));
            }
            let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty()).map(|node| {
                let uid = shared.registry.get("", "nodes", "", node).map(|node| node.uid().to_owned());
                (node.to_owned(), uid)
            });
            Bound::Pod(named, node)
        }
    }))
}
