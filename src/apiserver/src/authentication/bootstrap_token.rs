//! Bootstrap tokens: Secrets of `kube-system` by which new nodes say that somebody let them in.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde_json::Value;

use super::sha256;
use crate::{objects::Objects, request::User};

/// Type of their Secrets.
const TYPE: &str = "bootstrap.kubernetes.io/token";
const NAMESPACE: &str = "kube-system";
const NAME_PREFIX: &str = "bootstrap-token-";
/// What the user name of one starts with.
const USER_PREFIX: &str = "system:bootstrap:";
/// Group of them all.
pub const GROUP: &str = "system:bootstrappers";
/// Characters before and behind the dot.
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;
/// Characters of the last part of a group's name.
const GROUP_CHARS: usize = 256;

/// Why a token that looks like one of ours is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapTokenError {
    /// No Secret, or one that is being deleted.
    #[error("no bootstrap token has the id {0:?}")]
    Unknown(String),
    /// A Secret, but of something else.
    #[error("the Secret of bootstrap token {0:?} is not of the type {TYPE}")]
    Type(String),
    /// Not the one that was given out.
    #[error("the secret of bootstrap token {0:?} is another")]
    Secret(String),
    /// Its time is over, or nobody can read until when it holds.
    #[error("bootstrap token {0:?} has expired")]
    Expired(String),
    /// For signing only.
    #[error("bootstrap token {0:?} is not for authentication")]
    Usage(String),
    /// A group outside of those that bootstrap tokens may have.
    #[error("bootstrap token {id:?} names the group {group:?}, which does not begin with {GROUP}:")]
    Group {
        /// Of the token.
        id: String,
        /// The group.
        group: String,
    },
}

/// Id and secret of a text that has the form of a bootstrap token.
pub fn parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let all = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (all(id, ID_CHARS) && all(secret, SECRET_CHARS)).then_some((id, secret))
}

/// Knows the bootstrap tokens of a cluster.
#[derive(Debug)]
pub struct BootstrapTokens {
    objects: Arc<dyn Objects>,
}

impl BootstrapTokens {
    /// Over these objects.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self { objects }
    }

    /// Who a token speaks for; `None` when it has another form.
    pub fn user(&self, token: &str, now: Timestamp) -> Option<Result<User, BootstrapTokenError>> {
        let (id, secret) = parts(token)?;
        let object = self.objects.get("", "secrets", NAMESPACE, &format!("{NAME_PREFIX}{id}"));
        Some(match object {
            Some(object) => user(&object, id, secret, now),
            None => Err(BootstrapTokenError::Unknown(id.to_owned())),
        })
    }
}

/// Who a token speaks for, by the Secret of its name.
fn user(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<User, BootstrapTokenError> {
    let named = || id.to_owned();
    let data = |key: &str| {
        let bytes = STANDARD.decode(object["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Err(BootstrapTokenError::Unknown(named()));
    }
    if object["type"] != TYPE {
        return Err(BootstrapTokenError::Type(named()));
    }
    // Compared by digest: how long that takes says nothing about the secret.
    if sha256(&data("token-secret")) != sha256(secret) || data("token-id") != id {
        return Err(BootstrapTokenError::Secret(named()));
    }
    let expiration = data("expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().is_ok_and(|at| at <= now) || unreadable(&expiration) {
        return Err(BootstrapTokenError::Expired(named()));
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err(BootstrapTokenError::Usage(named()));
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !may_be_group(group) {
            return Err(BootstrapTokenError::Group { id: named(), group: group.to_owned() });
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Ok(User { name: format!("{USER_PREFIX}{id}"), groups, ..User::default() })
}

fn unreadable(expiration: &str) -> bool {
    !expiration.is_empty() && expiration.parse::<Timestamp>().is_err()
}

/// `system:bootstrappers:` and a name of lower case letters, digits, `:` and `-` that does not end in one of these.
fn may_be_group(group: &str) -> bool {
    let Some(name) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let all = name.bytes().all(|byte| plain(byte) || matches!(byte, b':' | b'-'));
    all && name.len() <= GROUP_CHARS && name.bytes().last().is_some_and(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn secret(changes: &[(&str, Option<&str>)]) -> Value {
        let mut data = std::collections::BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ]);
        for (key, value) in changes {
            match value {
                Some(value) => data.insert(key, value),
                None => data.remove(key),
            };
        }
        let data: std::collections::BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": data})
    }

    fn ask(object: &Value) -> Result<User, BootstrapTokenError> {
        user(object, "abcdef", "0123456789abcdef", NOW.parse().expect("a time"))
    }

    #[test]
    fn a_token_speaks_for_itself_and_its_groups() {
        let user = ask(&secret(&[("auth-extra-groups", Some("system:bootstrappers:b,system:bootstrappers:a:1,system:bootstrappers:b"))]));
        let user = user.expect("it holds");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, ["system:bootstrappers", "system:bootstrappers:a:1", "system:bootstrappers:b"]);
        assert!(ask(&secret(&[("expiration", Some("2026-01-01T00:00:01Z"))])).is_ok());
        assert!(ask(&secret(&[("auth-extra-groups", Some(""))])).is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said_to_the_log() {
        let id = || "abcdef".to_owned();
        for (changes, expected) in [
            (("token-secret", Some("0123456789abcdee")), BootstrapTokenError::Secret(id())),
            (("token-secret", None), BootstrapTokenError::Secret(id())),
            (("token-id", Some("abcdee")), BootstrapTokenError::Secret(id())),
            (("expiration", Some(NOW)), BootstrapTokenError::Expired(id())),
            (("expiration", Some("tomorrow")), BootstrapTokenError::Expired(id())),
            (("usage-bootstrap-authentication", Some("yes")), BootstrapTokenError::Usage(id())),
            (("auth-extra-groups", Some("system:masters")), BootstrapTokenError::Group { id: id(), group: "system:masters".into() }),
            (
                ("auth-extra-groups", Some("system:bootstrappers:-")),
                BootstrapTokenError::Group { id: id(), group: "system:bootstrappers:-".into() },
            ),
        ] {
            assert_eq!(ask(&secret(&[changes])), Err(expected), "{changes:?}");
        }
        let mut object = secret(&[]);
        object["type"] = "Opaque".into();
        assert_eq!(ask(&object), Err(BootstrapTokenError::Type(id())));
        object["metadata"]["deletionTimestamp"] = NOW.into();
        assert_eq!(ask(&object), Err(BootstrapTokenError::Unknown(id())));
    }

    #[test]
    fn only_texts_of_their_form_are_looked_up() {
        assert_eq!(parts("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in [
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcde",
            "abcdef.0123456789abcdef.x",
            "a.b.c",
            "",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }
}
