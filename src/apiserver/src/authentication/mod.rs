//! Authentication: who asks. A front proxy that vouches for somebody, a client certificate that holds, then a bearer token, by whoever knows it;
//! nobody in particular may only ask how the server is, unless the operator says otherwise.

mod anonymous;
pub mod bootstrap_token;
pub mod certificate;
pub mod configuration;
mod front_proxy;
pub mod jwt;
mod refusal;
mod reload;
pub mod remote;
pub mod service_account;
pub mod token_webhook;
pub mod websocket;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use coracle_api::status::Status;
use http::{HeaderMap, header::AUTHORIZATION};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::{authorization::masters, objects::Objects, request::User};
use anonymous::Anonymous;
use bootstrap_token::BootstrapTokens;
use certificate::{CertificateError, Presented};
use configuration::{Checked, ConfigurationError};
pub use front_proxy::FrontProxy;
use jwt::Issuers;
pub use refusal::{Refusal, Refusals};
pub(crate) use reload::follow;
use remote::ClientError;
use service_account::Tokens;
use token_webhook::TokenWebhook;

/// Group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// What everybody else is called.
pub const ANONYMOUS: &str = "system:anonymous";

/// What an operator says of authentication.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// An AuthenticationConfiguration; followed as it changes.
    pub configuration: Option<PathBuf>,
    /// Who else knows tokens.
    pub token_webhook: Option<token_webhook::Settings>,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The AuthenticationConfiguration.
    #[error("the authentication configuration {0} cannot be used")]
    Configuration(PathBuf, #[source] ConfigurationError),
    /// An issuer in it.
    #[error("an issuer's TLS cannot be set up")]
    Issuer(#[source] ClientError),
    /// The webhook.
    #[error("the token webhook cannot be used")]
    Webhook(#[source] token_webhook::SettingsError),
}

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
    Token(#[source] Refusals),
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
    front_proxy: FrontProxy,
    tokens: Arc<Tokens>,
    /// Compared by its digest: how long that takes says nothing about the token.
    bootstrap_token: Option<[u8; 32]>,
    bootstrap_tokens: BootstrapTokens,
    issuers: ArcSwap<Issuers>,
    webhook: Option<TokenWebhook>,
    anonymous: Anonymous,
}

impl Authenticator {
    /// With the cluster's authorities, token keys and objects, and what the operator adds.
    pub fn new(
        (certificates, front_proxy): (certificate::Verifier, FrontProxy),
        tokens: Arc<Tokens>,
        objects: Arc<dyn Objects>,
        bootstrap_token: Option<&str>,
        settings: &Settings,
    ) -> Result<Self, SettingsError> {
        let checked = match &settings.configuration {
            Some(file) => configuration::read(file, tokens.issuer()).map_err(|e| SettingsError::Configuration(file.clone(), e))?,
            None => Checked::default(),
        };
        let anonymous = Anonymous::new(checked.document.anonymous.as_ref());
        let issuers = Issuers::new(checked, &Issuers::default()).map_err(SettingsError::Issuer)?;
        let webhook = settings.token_webhook.as_ref().map(TokenWebhook::open).transpose().map_err(SettingsError::Webhook)?;
        Ok(Self {
            certificates,
            front_proxy,
            tokens,
            bootstrap_token: bootstrap_token.map(sha256),
            bootstrap_tokens: BootstrapTokens::new(objects),
            issuers: ArcSwap::from_pointee(issuers),
            webhook,
            anonymous,
        })
    }

    /// Who asks, by the certificate of the connection or the token of the request.
    pub async fn authenticate(
        &self,
        caller: &Caller,
        headers: &mut HeaderMap,
        path: &str,
        now: Timestamp,
    ) -> Result<User, AuthenticationError> {
        let refused = match caller {
            Caller::Process(user) => return Ok(user.clone()),
            Caller::Connection(None) => None,
            Caller::Connection(Some(presented)) => match self.front_proxy.user(presented, headers, now) {
                Some(user) => return Ok(known(user)),
                None => match self.certificates.user(presented, now) {
                    Ok(user) => return Ok(user),
                    Err(error) => Some(error),
                },
            },
        };
        if let Some(token) = bearer(headers) {
            return self.token(token, &[], now).await.map(|(user, _)| user).map_err(AuthenticationError::Token);
        }
        if let Some(error) = refused {
            return Err(AuthenticationError::Certificate(error));
        }
        if self.anonymous.admits(path) {
            return Ok(User { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() });
        }
        Err(AuthenticationError::Missing)
    }

    /// Who a token speaks for, and for which of the wanted audiences (none: the API server's). Those who know tokens by themselves are
    /// asked before those who must ask others, and the first who knows it decides.
    pub async fn token(&self, token: &str, wanted: &[String], now: Timestamp) -> Result<(User, Vec<String>), Refusals> {
        let own = [self.tokens.issuer().to_owned()];
        let wanted = if wanted.is_empty() { &own[..] } else { wanted };
        let mut refusals = Refusals::default();
        match self.tokens.user(token, wanted, now) {
            Ok(found) => return Ok(found),
            Err(error) => refusals.add(Refusal::ServiceAccount(error)),
        }
        // Who names no audience in a token means the API server's.
        let general: Vec<String> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
        if !general.is_empty() {
            if self.bootstrap_token.is_some_and(|own| own == sha256(token)) {
                let user = User { name: "coracle:bootstrap".into(), groups: vec![masters::GROUP.into()], ..User::default() };
                return Ok((known(user), general));
            }
            match self.bootstrap_tokens.user(token, now) {
                Some(Ok(user)) => return Ok((known(user), general)),
                Some(Err(error)) => refusals.add(Refusal::Bootstrap(error)),
                None => {}
            }
            match self.issuers.load_full().user(token, now).await {
                Some(Ok(user)) => return Ok((known(user), general)),
                Some(Err(error)) => refusals.add(Refusal::Issuer(error)),
                None => {}
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.user(token, wanted, &own).await {
                Ok((user, audiences)) => return Ok((known(user), audiences)),
                Err(error) => refusals.add(Refusal::Webhook(error)),
            }
        }
        Err(refusals)
    }

    /// The issuer of ServiceAccount tokens, which is the API server's audience.
    pub fn own_audience(&self) -> &str {
        self.tokens.issuer()
    }

    /// Takes the place of the issuers that were configured; the rest of a configuration does not change while the server runs.
    fn configure(&self, checked: Checked) -> Result<(), ClientError> {
        if Anonymous::new(checked.document.anonymous.as_ref()) != self.anonymous {
            tracing::warn!("what the configuration says of anonymous requests counts from the next start on");
        }
        let issuers = Issuers::new(checked, &self.issuers.load())?;
        self.issuers.store(Arc::new(issuers));
        Ok(())
    }
}

/// The user with the group of everybody who proved who they are.
fn known(mut user: User) -> User {
    if !user.groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.into());
    }
    user
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

#[cfg(test)]
mod tests;
