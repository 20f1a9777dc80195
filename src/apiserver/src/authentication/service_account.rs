//! ServiceAccount tokens: issued for an account, bound to a pod, a Secret or a node, and dead as soon as one of them is.

mod claims;
mod legacy;

use std::{collections::BTreeMap, fmt, sync::Arc};

use coracle_pki::tokens::{SignError, Signer, Verifier, VerifyError};
use jiff::Timestamp;
use serde_json::Value;

use super::AUTHENTICATED;
use crate::{objects::Objects, request::User, uuid};
use claims::{Claims, Private, Reference};

/// What the user name of a ServiceAccount starts with.
pub const USER_PREFIX: &str = "system:serviceaccount:";
/// Clocks of other machines may be this far off, in seconds; also how long a token outlives the deletion of what it is bound to, as upstream.
const LEEWAY_S: i64 = 60;
/// The life that pods' token volumes ask for. Their clients may not read the file again, so the token lives longer and warns (KEP-1205).
pub const POD_TOKEN_S: i64 = 3607;
/// How long those live, in seconds.
const EXTENDED_S: i64 = 365 * 24 * 3600;
/// Shortest life that can be asked for, in seconds.
pub const SHORTEST_S: i64 = 600;

/// Why a token says nothing about who asks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not one of ours.
    #[error("it cannot be verified")]
    Verify(#[source] VerifyError),
    /// Signed, but without what a ServiceAccount's token says.
    #[error("its claims are not those of a ServiceAccount")]
    Claims,
    /// By somebody who shares the key.
    #[error("it was issued by {0:?}")]
    Issuer(String),
    /// For somebody else.
    #[error("it is meant for {0:?}")]
    Audience(Vec<String>),
    /// Too late.
    #[error("service account token has expired")]
    Expired,
    /// Too early.
    #[error("service account token is not valid yet")]
    NotYet,
    /// Its account, or what it is bound to, is gone or another one of that name.
    #[error("its {kind} {name:?} no longer exists")]
    Dead {
        /// ServiceAccount, Pod, Secret, Node.
        kind: &'static str,
        /// Of the object.
        name: String,
    },
}

/// An object by name and uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// Which one of that name.
    pub uid: String,
}

/// What a token is bound to besides its account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// A pod, with the node that it runs on, where known.
    Pod(Named, Option<(String, Option<String>)>),
    /// A Secret.
    Secret(Named),
    /// A node.
    Node(Named),
}

/// A new token.
pub struct Issued {
    /// The token.
    pub token: String,
    /// When clients should have a new one.
    pub expires: Timestamp,
}

/// Issues and checks tokens.
pub struct Tokens {
    authority: Arc<coracle_pki::authority::Authority>,
    verifier: Verifier,
    objects: Arc<dyn Objects>,
    issuer: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Tokens {
    /// With the cluster's signing key. The issuer is also the API server's audience.
    pub fn new(authority: Arc<coracle_pki::authority::Authority>, objects: Arc<dyn Objects>, issuer: String) -> Self {
        let verifier = authority.signer().verifier();
        Self { authority, verifier, objects, issuer }
    }

    fn signer(&self) -> &Signer {
        self.authority.signer()
    }

    /// `https://kubernetes.default.svc.cluster.local`.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The public keys.
    pub fn key_set(&self) -> Value {
        self.verifier.key_set()
    }

    /// A token for an account. No audiences means the API server's.
    pub fn issue(
        &self,
        account: (&str, &str, &str),
        bound: Option<&Bound>,
        audiences: &[String],
        seconds: i64,
        now: Timestamp,
    ) -> Result<Issued, SignError> {
        let (namespace, name, uid) = account;
        let own = [self.issuer.clone()];
        let audiences = if audiences.is_empty() { &own[..] } else { audiences };
        let issued = now.as_second();
        let extended = seconds == POD_TOKEN_S && matches!(bound, Some(Bound::Pod(..))) && audiences == own;
        let mut private = Private {
            namespace: namespace.into(),
            serviceaccount: Reference::new(name, Some(uid)),
            pod: None,
            secret: None,
            node: None,
            warnafter: extended.then_some(issued + seconds),
        };
        match bound {
            Some(Bound::Pod(pod, node)) => {
                private.pod = Some(Reference::new(&pod.name, Some(&pod.uid)));
                private.node = node.as_ref().map(|(name, uid)| Reference::new(name, uid.as_deref()));
            }
            Some(Bound::Secret(secret)) => private.secret = Some(Reference::new(&secret.name, Some(&secret.uid))),
            Some(Bound::Node(node)) => private.node = Some(Reference::new(&node.name, Some(&node.uid))),
            None => {}
        }
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: issued + if extended { EXTENDED_S } else { seconds },
            iat: issued,
            iss: self.issuer.clone(),
            jti: uuid::random(),
            kubernetes: private,
            nbf: issued,
            sub: format!("{USER_PREFIX}{namespace}:{name}"),
        };
        let token = self.signer().sign(&serde_json::to_value(&claims).unwrap_or_default())?;
        Ok(Issued { token, expires: Timestamp::from_second(issued + seconds).unwrap_or(Timestamp::MAX) })
    }

    /// Who a token speaks for, and for which of the wanted audiences (none: the API server's).
    pub fn user(&self, token: &str, wanted: &[String], now: Timestamp) -> Result<(User, Vec<String>), TokenError> {
        let claims = self.verifier.verify(token).map_err(TokenError::Verify)?;
        let own = [self.issuer.clone()];
        let wanted = if wanted.is_empty() { &own[..] } else { wanted };
        let now_s = now.as_second();
        if claims["iss"] == legacy::ISSUER {
            let matched: Vec<String> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
            if matched.is_empty() {
                return Err(TokenError::Audience(own.to_vec()));
            }
            return Ok((legacy::user(&*self.objects, token, claims, now_s)?, matched));
        }
        let claims: Claims = serde_json::from_value(claims).map_err(|_| TokenError::Claims)?;
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer(claims.iss));
        }
        if now_s > claims.exp.saturating_add(LEEWAY_S) {
            return Err(TokenError::Expired);
        }
        if now_s < claims.nbf.saturating_sub(LEEWAY_S) {
            return Err(TokenError::NotYet);
        }
        let matched: Vec<String> = wanted.iter().filter(|audience| claims.aud.contains(audience)).cloned().collect();
        if matched.is_empty() {
            return Err(TokenError::Audience(claims.aud));
        }
        let private = &claims.kubernetes;
        if claims.sub != format!("{USER_PREFIX}{}:{}", private.namespace, private.serviceaccount.name) {
            return Err(TokenError::Claims);
        }
        self.alive(private, now_s)?;
        Ok((user(&claims), matched))
    }

    /// Whether everything that the token hangs on still exists.
    fn alive(&self, private: &Private, now_s: i64) -> Result<(), TokenError> {
        let namespace = private.namespace.as_str();
        let bound_node = if private.pod.is_none() && private.secret.is_none() { private.node.as_ref() } else { None };
        let all = [
            ("ServiceAccount", "serviceaccounts", namespace, Some(&private.serviceaccount)),
            ("Secret", "secrets", namespace, private.secret.as_ref()),
            ("Pod", "pods", namespace, private.pod.as_ref()),
            ("Node", "nodes", "", bound_node),
        ];
        for (kind, resource, namespace, reference) in all {
            let Some(reference) = reference else { continue };
            let object = self.objects.get("", resource, namespace, &reference.name);
            if !object.is_some_and(|object| is_it(&object, reference.uid.as_deref(), now_s)) {
                return Err(TokenError::Dead { kind, name: reference.name.clone() });
            }
        }
        Ok(())
    }
}

/// Whether an object is the one that was meant and not long deleted.
fn is_it(object: &Value, uid: Option<&str>, now_s: i64) -> bool {
    let metadata = &object["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    metadata["uid"].as_str() == uid && deleted.is_none_or(|at| at.as_second() + LEEWAY_S >= now_s)
}

fn user(claims: &Claims) -> User {
    let private = &claims.kubernetes;
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |key: &str, value: &str| extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
    if !claims.jti.is_empty() {
        add("credential-id", &format!("JTI={}", claims.jti));
    }
    for (kind, reference) in [("pod", &private.pod), ("node", &private.node)] {
        if let Some(reference) = reference {
            add(&format!("{kind}-name"), &reference.name);
            if let Some(uid) = &reference.uid {
                add(&format!("{kind}-uid"), uid);
            }
        }
    }
    User {
        name: claims.sub.clone(),
        uid: private.serviceaccount.uid.clone().unwrap_or_default(),
        groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{}", private.namespace), AUTHENTICATED.into()],
        extra,
    }
}

#[cfg(test)]
pub(super) mod tests;
