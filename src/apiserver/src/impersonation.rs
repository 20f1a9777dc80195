//! Impersonation: who may act as others says so in headers, and is from then on treated as them.

use std::collections::BTreeMap;

use coracle_api::status::Status;
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use crate::{
    authentication::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, service_account::USER_PREFIX},
    authorization::{Authorizers, Decision, Question},
    request::User,
};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// Group of the resources that extra fields and uids count as.
const AUTHENTICATION_GROUP: &str = "authentication.k8s.io";

/// One thing that a user must be allowed to impersonate: group, resource, subresource, namespace, name.
type Demand = (&'static str, &'static str, String, String, String);

/// The user that the headers ask for, with what must be allowed for it; `None` when they ask for nobody.
fn wanted(headers: &HeaderMap) -> Result<Option<(User, Vec<Demand>)>, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let groups: Vec<String> = headers.get_all(GROUP).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    let extra = extra(headers);
    let (name, uid) = (text(USER), text(UID));
    if name.is_empty() {
        let others = !groups.is_empty() || !extra.is_empty() || !uid.is_empty();
        let why = format!("requested {groups:?} groups without impersonating a user");
        return if others { Err(Status::bad_request(why)) } else { Ok(None) };
    }
    let mut demands: Vec<Demand> = Vec::new();
    let account = name.strip_prefix(USER_PREFIX).and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => demands.push(("", "serviceaccounts", String::new(), namespace.into(), account.into())),
        None => demands.push(("", "users", String::new(), String::new(), name.clone())),
    }
    demands.extend(groups.iter().map(|group| ("", "groups", String::new(), String::new(), group.clone())));
    for (key, values) in &extra {
        demands.extend(values.iter().map(|value| (AUTHENTICATION_GROUP, "userextras", key.clone(), String::new(), value.clone())));
    }
    if !uid.is_empty() {
        demands.push((AUTHENTICATION_GROUP, "uids", String::new(), String::new(), uid.clone()));
    }
    let groups = complete(&name, account.map(|(namespace, _)| namespace), groups);
    Ok(Some((User { name, uid, groups, extra }, demands)))
}

/// The groups that such a user would have had on its own.
fn complete(name: &str, account_namespace: Option<&str>, mut groups: Vec<String>) -> Vec<String> {
    if groups.is_empty()
        && let Some(namespace) = account_namespace
    {
        groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    let everybody = if name == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
    if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(everybody.into());
    }
    groups
}

fn extra(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(EXTRA_PREFIX), value.to_str()) {
            out.entry(percent_decode_str(key).decode_utf8_lossy().into_owned()).or_default().push(value.to_owned());
        }
    }
    out
}

/// The user to go on with, and whether that is another one. The headers are taken off, so that nobody behind us obeys them again.
pub fn impersonate(user: User, headers: &mut HeaderMap, authorizers: &Authorizers) -> Result<(User, bool), Status> {
    let Some((other, demands)) = wanted(headers)? else { return Ok((user, false)) };
    for (group, resource, subresource, namespace, name) in &demands {
        let question = Question {
            user: &user,
            verb: "impersonate",
            is_resource: true,
            group,
            version: if group.is_empty() { "" } else { "v1" },
            resource,
            subresource,
            namespace,
            name,
            path: "",
            field_selector: "",
        };
        match authorizers.decide(&question) {
            Decision::Allow(_) => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => {
                return Err(Status::forbidden(group, &question.combined_resource(), name, &question.refusal(&reason)));
            }
        }
    }
    let names: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok((other, true))
}
