//! Authentication: who asks. A client certificate that holds counts before a bearer token; nobody in particular may only ask how the server is.

pub mod certificate;
pub mod service_account;

use std::{collections::BTreeMap, sync::Arc};

use coracle_api::status::Status;
use http::{HeaderMap, header::AUTHORIZATION};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::request::User;
use certificate::{CertificateError, Presented};
use service_account::{TokenError, Tokens};

/// Group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// What everybody else is called.
pub const ANONYMOUS: &str = "system:anonymous";
/// Paths that need no proof: probes and load balancers ask there.
const ANONYMOUS_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Why a request is answered with 401. The answer does not say; the log does.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    /// No certificate, no token.
    #[error("no credentials")]
    Missing,
    /// The certificate does not hold.
    #[error("the client certificate is refused")]
    Certificate(#[source] CertificateError),
    /// The token does not hold.
    #[error("the bearer token is refused")]
    Token(#[source] TokenError),
}

impl AuthenticationError {
    /// The answer.
    pub fn status(&self) -> Status {
        Status::new(401, "Unauthorized", "Unauthorized")
    }
}

/// Who is at the other end, as far as the way that a request came tells.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A part of this process, as this user.
    Process(User),
    /// A connection, with the certificates that were presented on it, if any.
    Connection(Option<Arc<Presented>>),
}

/// Knows who is who.
#[derive(Debug)]
pub struct Authenticator {
    certificates: certificate::Verifier,
    tokens: Arc<Tokens>,
    /// Compared by its digest: how long that takes says nothing about the token.
    bootstrap_token: Option<[u8; 32]>,
}

impl Authenticator {
    /// With the cluster's client authority and token keys.
    pub fn new(certificates: certificate::Verifier, tokens: Arc<Tokens>, bootstrap_token: Option<String>) -> Self {
        Self { certificates, tokens, bootstrap_token: bootstrap_token.as_deref().map(sha256) }
    }

    /// Who asks, by the certificate of the connection or the token of the request.
    pub fn authenticate(&self, caller: &Caller, headers: &HeaderMap, path: &str, now: Timestamp) -> Result<User, AuthenticationError> {
        let refused = match caller {
            Caller::Process(user) => return Ok(user.clone()),
            Caller::Connection(None) => None,
            Caller::Connection(Some(presented)) => match self.certificates.user(presented, now) {
                Ok(user) => return Ok(user),
                Err(error) => Some(error),
            },
        };
        if let Some(token) = bearer(headers) {
            return self.bearer(token, now);
        }
        if let Some(error) = refused {
            return Err(AuthenticationError::Certificate(error));
        }
        if ANONYMOUS_PATHS.iter().any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))) {
            return Ok(User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() });
        }
        Err(AuthenticationError::Missing)
    }

    /// Who a token speaks for, for any of the API server's own audiences.
    pub fn bearer(&self, token: &str, now: Timestamp) -> Result<User, AuthenticationError> {
        if self.bootstrap_token.is_some_and(|own| own == sha256(token)) {
            let groups = vec![crate::authorization::masters::GROUP.into(), AUTHENTICATED.into()];
            return Ok(User { name: "coracle:bootstrap".into(), groups, ..User::default() });
        }
        self.tokens.user(token, &[], now).map(|(user, _)| user).map_err(AuthenticationError::Token)
    }
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim())
}

/// One entry of [`User::extra`].
fn extra(key: &str, value: String) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([(key.to_owned(), vec![value])])
}

fn sha256(text: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    out
}
