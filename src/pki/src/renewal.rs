//! Certificates of a running process: renewed in place, at the first handshake after two thirds of their life.
//!
//! No timer and no task: a certificate that nobody asks for need not be new. A renewal takes some 100 microseconds of the handshake that meets it.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::authority::{Authority, IssueError, Pair};

/// What a certificate is renewed as.
enum Subject {
    Server {
        names: Vec<String>,
        ips: Vec<IpAddr>,
    },
    /// For so long, and renewed when it is over: before that somebody else does.
    Held {
        names: Vec<String>,
        ips: Vec<IpAddr>,
        life: Duration,
    },
    Client {
        common_name: String,
        organisations: Vec<String>,
    },
    FrontProxy {
        common_name: String,
    },
}

struct Current {
    key: Arc<CertifiedKey>,
    issued: Timestamp,
    expires: Timestamp,
}

/// Why a first certificate is missing.
#[derive(Debug, thiserror::Error)]
pub enum RenewalError {
    /// It was not issued.
    #[error("cannot issue the certificate")]
    Issue(#[source] IssueError),
    /// It was issued but TLS cannot use it.
    #[error("the new key cannot be used for TLS")]
    Key(#[source] rustls::Error),
}

/// A certificate that is always valid: hand it to rustls as the resolver of a server or of a client.
pub struct Renewing {
    authority: Arc<Authority>,
    subject: Subject,
    clock: fn() -> Timestamp,
    current: Mutex<Current>,
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}

impl Renewing {
    /// A serving certificate.
    pub fn server(authority: Arc<Authority>, names: Vec<String>, ips: Vec<IpAddr>) -> Result<Self, RenewalError> {
        Self::new(authority, Subject::Server { names, ips }, Timestamp::now)
    }

    /// A serving certificate of this life, for [`crate::rotation::Rotating`]: renewed here only when nobody else did in time.
    pub fn held(authority: Arc<Authority>, names: Vec<String>, ips: Vec<IpAddr>, life: Duration) -> Result<Self, RenewalError> {
        Self::new(authority, Subject::Held { names, ips, life }, Timestamp::now)
    }

    /// A client certificate.
    pub fn client(authority: Arc<Authority>, common_name: &str, organisations: &[String]) -> Result<Self, RenewalError> {
        let subject = Subject::Client { common_name: common_name.to_owned(), organisations: organisations.to_vec() };
        Self::new(authority, subject, Timestamp::now)
    }

    /// The client certificate of the aggregating proxy, of the authority that vouches for nothing else.
    pub fn front_proxy(authority: Arc<Authority>, common_name: &str) -> Result<Self, RenewalError> {
        Self::new(authority, Subject::FrontProxy { common_name: common_name.to_owned() }, Timestamp::now)
    }

    fn new(authority: Arc<Authority>, subject: Subject, clock: fn() -> Timestamp) -> Result<Self, RenewalError> {
        let current = Mutex::new(issue(&authority, &subject, clock())?);
        Ok(Self { authority, subject, clock, current })
    }

    /// The certificate to show now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        let now = (self.clock)();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match self.subject {
            Subject::Held { .. } => now >= current.expires,
            _ => due(current.issued, current.expires, now),
        };
        if due {
            match issue(&self.authority, &self.subject, now) {
                Ok(fresh) => *current = fresh,
                // A third of the life is left for the next attempts.
                Err(error) => tracing::error!(%error, "a certificate could not be renewed"),
            }
        }
        Arc::clone(&current.key)
    }

    /// From when to when the newest certificate is valid.
    pub fn life(&self) -> (Timestamp, Timestamp) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.issued, current.expires)
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Renewing {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Two thirds of the life are over.
fn due(issued: Timestamp, expires: Timestamp, now: Timestamp) -> bool {
    let life = expires.as_millisecond().saturating_sub(issued.as_millisecond());
    now.as_millisecond().saturating_sub(issued.as_millisecond()) >= life / 3 * 2
}

fn issue(authority: &Authority, subject: &Subject, now: Timestamp) -> Result<Current, RenewalError> {
    let pair = match subject {
        Subject::Server { names, ips } => authority.issue_server_at(names, ips, now),
        Subject::Held { names, ips, life } => authority.issue_server_for(names, ips, *life, now),
        Subject::Client { common_name, organisations } => authority.issue_client_at(common_name, organisations, now),
        Subject::FrontProxy { common_name } => authority.issue_front_proxy_at(common_name, now),
    };
    let Pair { certificate, key, issued, expires, .. } = pair.map_err(RenewalError::Issue)?;
    let key = any_supported_type(&key).map_err(RenewalError::Key)?;
    Ok(Current { key: Arc::new(CertifiedKey::new(vec![certificate], key)), issued, expires })
}

#[cfg(test)]
mod tests;
