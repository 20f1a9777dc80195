//! Tokens of other issuers (OpenID Connect): whose they are, whether they hold, and who they make of their bearer.

pub mod issuer;
pub mod mapping;

use std::sync::Arc;

use coracle_pki::jwk::{self, JwtError, Token};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    configuration::{Checked, JwtAuthenticator},
    remote::ClientError,
};
use crate::request::User;
use issuer::{Issuer, VerifyError};
use mapping::{Mapping, MappingError};

/// Clocks of issuers may run ahead by this, in seconds. Upstream's.
const NOT_BEFORE_LEEWAY_S: f64 = 300.0;
/// Google's tokens may leave out what their issuer's URL begins with (OpenID Connect Core, 15.6.2).
const GOOGLE: (&str, &str) = ("accounts.google.com", "https://accounts.google.com");

/// Why a token of a known issuer is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read, or nobody can say that the issuer signed it.
    #[error("it cannot be verified")]
    Verify(#[from] VerifyError),
    /// For somebody else.
    #[error("expected audience in {wanted:?} got {found:?}")]
    Audience {
        /// Configured.
        wanted: Vec<String>,
        /// In the token.
        found: Vec<String>,
    },
    /// Its time is over, or it has none.
    #[error("it has expired")]
    Expired,
    /// Its time has not come.
    #[error("it is not valid yet")]
    NotYet,
    /// Its claims.
    #[error("its claims make no user")]
    Mapping(#[from] MappingError),
}

/// The issuers of one configuration.
#[derive(Debug, Default)]
pub struct Issuers {
    all: Vec<One>,
}

#[derive(Debug)]
struct One {
    of: JwtAuthenticator,
    issuer: Arc<Issuer>,
    mapping: Mapping,
}

impl Issuers {
    /// As configured; an issuer that was there before keeps the keys that are known of it.
    pub fn new(checked: Checked, before: &Self) -> Result<Self, ClientError> {
        let kept = |of: &JwtAuthenticator| before.all.iter().find(|one| one.of.issuer == of.issuer).map(|one| Arc::clone(&one.issuer));
        let each = checked.document.jwt.into_iter().zip(checked.mappings).map(|(of, mapping)| {
            let issuer = kept(&of).map_or_else(|| Issuer::new(&of.issuer).map(Arc::new), Ok)?;
            Ok(One { of, issuer, mapping })
        });
        Ok(Self { all: each.collect::<Result<_, _>>()? })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Who a token speaks for; `None` when none of these issued it.
    pub async fn user(&self, token: &str, now: Timestamp) -> Option<Result<User, TokenError>> {
        if self.all.is_empty() {
            return None;
        }
        let mut issuer = jwk::issuer(token)?;
        if issuer == GOOGLE.0 {
            GOOGLE.1.clone_into(&mut issuer);
        }
        let one = self.all.iter().find(|one| one.of.issuer.url == issuer)?;
        Some(one.user(token, now).await)
    }
}

impl One {
    async fn user(&self, token: &str, now: Timestamp) -> Result<User, TokenError> {
        let malformed = |error: JwtError| TokenError::Verify(error.into());
        let token = Token::read(token).map_err(malformed)?;
        let claims = token.claims.as_object().ok_or_else(|| malformed(JwtError::Malformed))?;
        // What costs nothing is asked before the issuer is.
        let found = audiences(claims);
        let wanted = &self.of.issuer.audiences;
        if !found.iter().any(|audience| wanted.contains(audience)) {
            return Err(TokenError::Audience { wanted: wanted.clone(), found });
        }
        in_time(claims, now)?;
        self.issuer.verify(&token).await?;
        Ok(self.mapping.user(claims)?)
    }
}

fn audiences(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn in_time(claims: &Map<String, Value>, now: Timestamp) -> Result<(), TokenError> {
    let at = |name: &str| claims.get(name).and_then(Value::as_f64);
    let now_s = now.as_second() as f64;
    if at("exp").is_none_or(|expires| expires < now_s) {
        return Err(TokenError::Expired);
    }
    match at("nbf") {
        Some(from) if from > now_s + NOT_BEFORE_LEEWAY_S => Err(TokenError::NotYet),
        _ => Ok(()),
    }
}
