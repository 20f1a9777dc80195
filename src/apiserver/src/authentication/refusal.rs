//! Why nobody knows a bearer token: one reason of each who was asked.

use std::fmt;

use super::{bootstrap_token::BootstrapTokenError, jwt, service_account, token_webhook::WebhookError};

/// Why one of those who know tokens refused it.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// As a ServiceAccount's.
    #[error("as a ServiceAccount's token: {0}")]
    ServiceAccount(service_account::TokenError),
    /// As a bootstrap token.
    #[error("as a bootstrap token: {0}")]
    Bootstrap(BootstrapTokenError),
    /// As a token of an issuer that was configured.
    #[error("oidc: {}", chain(.0))]
    Issuer(jwt::TokenError),
    /// By the webhook.
    #[error("{0}")]
    Webhook(WebhookError),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Refusals(Vec<Refusal>);

impl Refusals {
    /// One more.
    pub(super) fn add(&mut self, refusal: Refusal) {
        self.0.push(refusal);
    }
}

impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{refusal}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusals {}

/// An error and its causes in one line: what issuers do is for whoever reads the log.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
