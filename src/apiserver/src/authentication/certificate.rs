//! Client certificates: the common name is the user, the organisations are the groups.
//!
//! TLS takes any certificate whose key the client holds; whether our authority signed it is asked here, so that a stranger gets a 401
//! with a Status that says so instead of a broken connection.

use std::sync::{Arc, OnceLock};

use coracle_pki::{
    subject::{Subject, SubjectError},
    verifier::{self, VerifierError},
};
use jiff::Timestamp;
use ring::digest;
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{AUTHENTICATED, extra};
use crate::request::User;

/// Why a certificate does not say who asks.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Another authority, expired, or not for clients.
    #[error("it is not a valid client certificate of this cluster")]
    Chain(#[source] rustls::Error),
    /// None was presented after all.
    #[error("the chain is empty")]
    Empty,
    /// It names nobody.
    #[error("it does not say whose it is")]
    Subject(#[source] SubjectError),
}

/// The certificates that a client presented, its own first, and who it turned out to be.
#[derive(Debug)]
pub struct Presented {
    chain: Vec<CertificateDer<'static>>,
    /// With the second at which the certificate ends; signatures are verified once per connection.
    verified: OnceLock<(User, i64)>,
}

impl Presented {
    /// From a finished handshake; `None` when the client showed none.
    pub fn of(connection: &rustls::ServerConnection) -> Option<Self> {
        let chain = connection.peer_certificates().filter(|chain| !chain.is_empty())?;
        Some(Self { chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(), verified: OnceLock::new() })
    }

    /// The second at which the certificate of somebody who is known by it ends.
    pub fn ends_s(&self) -> Option<i64> {
        self.verified.get().map(|(_, ends_s)| *ends_s)
    }
}

/// Asks whether the cluster's authority signed a certificate.
#[derive(Debug)]
pub struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

impl Verifier {
    /// With one authority.
    pub fn new(authority: &CertificateDer<'static>, provider: &Arc<CryptoProvider>) -> Result<Self, VerifierError> {
        Ok(Self { inner: verifier::of_clients(authority, provider)? })
    }

    /// For TLS: asks for a certificate, takes any, checks that the client holds its key.
    /// Clients show one of the authority that the server names: here these two.
    pub fn for_handshake(&self, other: &Self) -> Arc<dyn ClientCertVerifier> {
        let names = [self, other].into_iter().flat_map(|of| of.inner.root_hint_subjects());
        Arc::new(Requested { inner: Arc::clone(&self.inner), names: names.cloned().collect() })
    }

    /// Who presented it. Asked on every request: connections outlive certificates.
    pub fn user(&self, presented: &Presented, now: Timestamp) -> Result<User, CertificateError> {
        if let Some((user, ends)) = presented.verified.get()
            && now.as_second() < *ends
        {
            return Ok(user.clone());
        }
        let own = self.holds(presented, now)?;
        let Subject { name, mut groups, ends_s } = Subject::of(own).map_err(CertificateError::Subject)?;
        groups.push(AUTHENTICATED.into());
        let fingerprint: String = digest::digest(&digest::SHA256, own).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let extra = extra("authentication.kubernetes.io/credential-id", format!("X509SHA256={fingerprint}"));
        let user = User { name, uid: String::new(), groups, extra };
        let _ = presented.verified.set((user.clone(), ends_s));
        Ok(user)
    }

    /// The common name of who presented it, which is remembered nowhere.
    pub fn name(&self, presented: &Presented, now: Timestamp) -> Result<String, CertificateError> {
        Ok(Subject::of(self.holds(presented, now)?).map_err(CertificateError::Subject)?.name)
    }

    /// The client's own certificate, if the authority vouches for it.
    fn holds<'p>(&self, presented: &'p Presented, now: Timestamp) -> Result<&'p CertificateDer<'static>, CertificateError> {
        let (own, intermediates) = presented.chain.split_first().ok_or(CertificateError::Empty)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
        self.inner.verify_client_cert(own, intermediates, now).map_err(CertificateError::Chain)?;
        Ok(own)
    }
}

#[derive(Debug)]
struct Requested {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<DistinguishedName>,
}

impl ClientCertVerifier for Requested {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
