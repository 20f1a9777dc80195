//! Front proxies: who shows a certificate of their authority may say in headers for whom it asks (`X-Remote-User` and its kind).

use std::sync::Arc;

use coracle_pki::verifier::VerifierError;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use rustls::{crypto::CryptoProvider, pki_types::CertificateDer};

use super::certificate::{Presented, Verifier};
use crate::request::User;

/// Common names that may. The ConfigMap `extension-apiserver-authentication` tells the same to extension servers.
pub const ALLOWED: [&str; 1] = ["system:auth-proxy"];
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Knows front proxies.
#[derive(Debug)]
pub struct FrontProxy {
    /// Of their authority.
    pub certificates: Verifier,
}

impl FrontProxy {
    /// With their authority.
    pub fn new(authority: &CertificateDer<'static>, provider: &Arc<CryptoProvider>) -> Result<Self, VerifierError> {
        Ok(Self { certificates: Verifier::new(authority, provider)? })
    }

    /// For whom the request is, if it comes from a front proxy. The headers are taken off, so that nobody behind us obeys them again.
    pub fn user(&self, presented: &Presented, headers: &mut HeaderMap, now: Timestamp) -> Option<User> {
        let name = headers.get(USER)?.to_str().ok().filter(|name| !name.is_empty())?.to_owned();
        let proxy = self.certificates.name(presented, now).ok()?;
        if !ALLOWED.contains(&proxy.as_str()) {
            return None;
        }
        let mut user = User { name, ..User::default() };
        user.uid = headers.get(UID).and_then(|uid| uid.to_str().ok()).unwrap_or_default().to_owned();
        user.groups = headers.get_all(GROUP).iter().filter_map(|group| group.to_str().ok()).map(str::to_owned).collect();
        for (header, value) in headers.iter() {
            if let (Some(key), Ok(value)) = (header.as_str().strip_prefix(EXTRA), value.to_str()) {
                let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
                user.extra.entry(key).or_default().push(value.to_owned());
            }
        }
        let said: Vec<HeaderName> = headers.keys().filter(|header| header.as_str().starts_with("x-remote-")).cloned().collect();
        for header in said {
            headers.remove(header);
        }
        Some(user)
    }
}
