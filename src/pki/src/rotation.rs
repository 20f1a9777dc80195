//! A certificate that is asked for elsewhere: the request for it, and what a running server or client shows until the next one has come.
//!
//! Connections that stand keep what they were opened with; the next handshake shows the newest.

use std::{
    fmt, io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use rustls::{
    SignatureScheme,
    client::ResolvesClientCert,
    crypto::ring::sign::any_supported_type,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::{authority::IssueError, files, renewal::Renewing};

/// Signers date the beginning back by so much, for other machines' clocks: it is no part of the life.
const BACKDATE: SignedDuration = SignedDuration::from_secs(300);

/// Makes a key and the request for its certificate, both in PEM. A server's names stand in it; a client's has none.
pub fn request(common_name: &str, organisation: &str, names: &[String], ips: &[IpAddr]) -> Result<(String, String), IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organisation);
    params.distinguished_name.push(DnType::CommonName, common_name);
    for name in names {
        let dns = name.as_str().try_into().map_err(|source| IssueError::Name { name: name.clone(), source })?;
        params.subject_alt_names.push(SanType::DnsName(dns));
    }
    params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
    let key = KeyPair::generate().map_err(IssueError::Key)?;
    let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(IssueError::Sign)?;
    Ok((request, key.serialize_pem()))
}

/// Why a certificate and a key are no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not to be read.
    #[error("the file cannot be read")]
    Read(#[source] io::Error),
    /// No certificate.
    #[error("there is no certificate in it, or one that cannot be read")]
    Certificate,
    /// No key.
    #[error("there is no private key in it, or one that cannot be read")]
    Key,
    /// Of two different owners.
    #[error("the certificate is not that of the key")]
    Strangers(#[source] rustls::Error),
}

/// A certificate with its chain and its key.
pub struct Identity {
    pem: String,
    key: Arc<CertifiedKey>,
    begins: Timestamp,
    ends: Timestamp,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("begins", &self.begins).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Identity {
    /// From the PEM of the chain, the own certificate first, and of the key, in any order.
    pub fn from_pem(pem: String, now: Timestamp) -> Result<Self, IdentityError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let chain = chain.map_err(|_| IdentityError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::Key)?;
        let key = any_supported_type(&key).map_err(|_| IdentityError::Key)?;
        let (begins, ends) = chain.first().and_then(validity).ok_or(IdentityError::Certificate)?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(IdentityError::Strangers)?;
        let begins = begins.max(begins.saturating_add(BACKDATE).unwrap_or(begins).min(now)).min(ends);
        Ok(Self { pem, key: Arc::new(key), begins, ends })
    }

    /// From a file, if there is one.
    pub fn load(path: &Path, now: Timestamp) -> Result<Option<Self>, IdentityError> {
        files::read(path).map_err(IdentityError::Read)?.map(|pem| Self::from_pem(pem, now)).transpose()
    }

    /// Writes it to a file of its owner alone, which then has all of it or is as it was.
    pub fn keep(&self, path: &Path) -> io::Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        files::make_directory(directory)?;
        files::write_secret(path, self.pem.as_bytes())?;
        files::sync_directory(directory)
    }

    /// The certificates, and the key, in PEM.
    pub fn parts(&self) -> (String, String) {
        let (mut certificates, mut key, mut in_key) = (String::new(), String::new(), false);
        for line in self.pem.lines() {
            if line.starts_with("-----BEGIN ") {
                in_key = line.contains("PRIVATE KEY");
            }
            let part = if in_key { &mut key } else { &mut certificates };
            part.push_str(line);
            part.push('\n');
        }
        (certificates, key)
    }

    /// From when to when it is good.
    pub fn life(&self) -> (Timestamp, Timestamp) {
        (self.begins, self.ends)
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    at(certificate.validity().not_before).zip(at(certificate.validity().not_after))
}

/// What is shown: hand it to rustls as the resolver of a server or of a client.
pub struct Rotating {
    /// Made by ourselves, for as long as nothing was put, and should what was put be over.
    own: Option<Renewing>,
    put: Mutex<Option<Identity>>,
}

impl fmt::Debug for Rotating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rotating").finish_non_exhaustive()
    }
}

impl Rotating {
    /// With one of our own to begin with, or with nothing to show.
    pub fn new(own: Option<Renewing>) -> Self {
        Self { own, put: Mutex::new(None) }
    }

    /// Shown from now on.
    pub fn put(&self, identity: Identity) {
        *self.put.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
    }

    /// Whether what was put is shown, and not our own.
    pub fn is_put(&self, now: Timestamp) -> bool {
        self.put.lock().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|identity| now < identity.ends)
    }

    /// From when to when what is shown is good.
    pub fn life(&self, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let good = put.as_ref().filter(|identity| now < identity.ends || self.own.is_none()).map(Identity::life);
        good.or_else(|| self.own.as_ref().map(Renewing::life))
    }

    fn shown(&self, now: Timestamp) -> Option<Arc<CertifiedKey>> {
        let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
        let good = put.as_ref().filter(|identity| now < identity.ends || self.own.is_none()).map(|identity| identity.key.clone());
        drop(put);
        good.or_else(|| self.own.as_ref().map(Renewing::current))
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown(Timestamp::now())
    }
}

impl ResolvesClientCert for Rotating {
    fn resolve(&self, _roots: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown(Timestamp::now())
    }

    fn has_certs(&self) -> bool {
        self.life(Timestamp::now()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        authority::{Authority, Signatory},
        request::SigningRequest,
    };

    const SERVING: [&str; 2] = ["digital signature", "server auth"];

    fn signed(authority: &Authority, request: &str, life: Duration, now: Timestamp) -> String {
        let asked = SigningRequest::from_pem(request.as_bytes()).expect("a request");
        authority.sign_request(Signatory::Server, &asked, &SERVING, life, now).expect("a certificate")
    }

    #[test]
    fn a_request_says_who_asks_and_for_which_names() {
        let (pem, _) = request("system:node:n", "system:nodes", &["n".into()], &[[10, 0, 0, 1].into()]).expect("a request");
        let asked = SigningRequest::from_pem(pem.as_bytes()).expect("it is one");
        assert_eq!((asked.common_name.as_str(), asked.organisations), ("system:node:n", vec!["system:nodes".to_owned()]));
        assert_eq!((asked.dns_names, asked.ips), (vec!["n".to_owned()], vec![IpAddr::from([10, 0, 0, 1])]));
        let (pem, _) = request("system:node:n", "system:nodes", &[], &[]).expect("a request");
        assert_eq!(SigningRequest::from_pem(pem.as_bytes()).map(|asked| asked.dns_names.len() + asked.ips.len()), Ok(0));
    }

    #[test]
    fn what_was_put_is_shown_until_it_ends() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Arc::new(Authority::open(dir.path()).expect("authorities"));
        let now = Timestamp::from_second(Timestamp::now().as_second()).expect("a time");
        let (life, names) = (Duration::from_secs(60), vec!["n".to_owned()]);
        let rotating = Rotating::new(Some(Renewing::held(authority.clone(), names.clone(), vec![], life).expect("a first one")));
        let first = rotating.shown(now).expect("shown");
        let (pem, key) = request("system:node:n", "system:nodes", &names, &[]).expect("a request");
        let chain = signed(&authority, &pem, 2 * life, now);
        let identity = Identity::from_pem(format!("{chain}{key}"), now).expect("an identity");
        assert_eq!(identity.parts(), (chain, key));
        assert_eq!(identity.life(), (now, now + 2 * life), "the time before it was signed is not counted");
        let file = dir.path().join("pki/current.pem");
        identity.keep(&file).expect("kept");
        rotating.put(Identity::load(&file, now).expect("read").expect("there"));
        let second = rotating.shown(now).expect("shown");
        assert_ne!(first.cert, second.cert);
        assert_eq!(rotating.life(now), Some((now, now + 2 * life)));
        assert_eq!(rotating.shown(now + 2 * life).expect("our own stands in").cert, first.cert);
        let alone = Rotating::new(None);
        assert!(!alone.has_certs() && alone.shown(now).is_none());
        alone.put(identity);
        assert!(alone.has_certs() && alone.shown(now + 3 * life).is_some());
        assert!(Identity::load(&dir.path().join("none"), now).expect("no error").is_none());
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(dir.path()).expect("authorities");
        let now = Timestamp::now();
        let (pem, key) = request("a", "b", &["n".into()], &[]).expect("a request");
        let (_, other) = request("a", "b", &[], &[]).expect("a request");
        let chain = signed(&authority, &pem, Duration::from_secs(60), now);
        let check = |pem: String| Identity::from_pem(pem, now).map(drop).expect_err("refused").to_string();
        assert!(check(key.clone()).contains("certificate"));
        assert!(check(chain.clone()).contains("private key"));
        assert!(check(format!("{chain}{other}")).contains("not that of the key"));
        assert!(
            check(format!("{}{key}", chain.replace("-----BEGIN CERTIFICATE-----\nMI", "-----BEGIN CERTIFICATE-----\nAA")))
                .contains("certificate")
        );
    }
}
