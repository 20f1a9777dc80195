//! Client certificates: the common name is the user, the organisations are the groups.
//!
//! TLS takes any certificate whose key the client holds; whether our authority signed it is asked here, so that a stranger gets a 401
//! with a Status that says so instead of a broken connection.

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use ring::digest;
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AUTHENTICATED, extra};
use crate::request::User;

/// Why a certificate does not say who asks.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Another authority, expired, or not for clients.
    #[error("it is not a valid client certificate of this cluster")]
    Chain(#[source] rustls::Error),
    /// Not to be read.
    #[error("it cannot be read")]
    Form,
    /// No common name.
    #[error("its subject has no common name")]
    Nameless,
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
}

/// Asks whether the cluster's authority signed a certificate.
#[derive(Debug)]
pub struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
}

/// Why there is no verifier.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The authority's certificate is not one.
    #[error("the client authority cannot be used to verify certificates")]
    Root(#[source] rustls::Error),
    /// rustls refuses.
    #[error("no verifier of client certificates can be made")]
    Build(#[source] VerifierBuilderError),
}

impl Verifier {
    /// With one authority.
    pub fn new(authority: &CertificateDer<'static>, provider: &Arc<CryptoProvider>) -> Result<Self, VerifierError> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(VerifierError::Root)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        Ok(Self { inner: builder.build().map_err(VerifierError::Build)? })
    }

    /// For TLS: asks for a certificate, takes any, checks that the client holds its key.
    pub fn for_handshake(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Requested { inner: Arc::clone(&self.inner) })
    }

    /// Who presented it. Asked on every request: connections outlive certificates.
    pub fn user(&self, presented: &Presented, now: Timestamp) -> Result<User, CertificateError> {
        if let Some((user, ends)) = presented.verified.get()
            && now.as_second() < *ends
        {
            return Ok(user.clone());
        }
        let (own, intermediates) = presented.chain.split_first().ok_or(CertificateError::Form)?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
        self.inner.verify_client_cert(own, intermediates, now).map_err(CertificateError::Chain)?;
        let (_, certificate) = X509Certificate::from_der(own).map_err(|_| CertificateError::Form)?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
        let mut groups: Vec<String> = subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
        groups.push(AUTHENTICATED.into());
        let fingerprint: String = digest::digest(&digest::SHA256, own).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let user = User {
            name: name.ok_or(CertificateError::Nameless)?.to_owned(),
            uid: String::new(),
            groups,
            extra: extra("authentication.kubernetes.io/credential-id", format!("X509SHA256={fingerprint}")),
        };
        let _ = presented.verified.set((user.clone(), certificate.validity().not_after.timestamp()));
        Ok(user)
    }
}

#[derive(Debug)]
struct Requested {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Requested {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
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
