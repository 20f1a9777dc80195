//! Which servers are believed to be who they say: those of a CA bundle, or without one those that the system believes.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// No certificate in PEM form.
    #[error("it holds no certificate")]
    Empty,
    /// One of them cannot be read.
    #[error("one of its certificates cannot be read: {0}")]
    Certificate(#[source] Error),
    /// TLS does not take the rest.
    #[error("it cannot be used: {0}")]
    Tls(#[source] Error),
    /// There is no bundle, and the system has none.
    #[error("there is none, and this machine has no certificates of its own")]
    NoSystem,
}

/// A client that shows no certificate and believes this bundle (PEM); an empty one means the system's.
pub fn client_config(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<ClientConfig, TrustError> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions().map_err(TrustError::Tls)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier(pem, provider)?).with_no_client_auth())
}

/// Believes this bundle (PEM); an empty one means the system's.
pub fn verifier(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    Ok(Arc::new(Bundle::new(pem, provider)?))
}

/// Verifies by the chain to an authority. A certificate that is itself in the bundle is its own authority, as Go's TLS has it: webhooks
/// with self-signed certificates are in every tutorial.
#[derive(Debug)]
struct Bundle {
    named: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Bundle {
    fn new(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        let mut named = Vec::new();
        if pem.iter().all(u8::is_ascii_whitespace) {
            let found = rustls_native_certs::load_native_certs().certs;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(TrustError::NoSystem);
            }
        } else {
            // What else a PEM file holds says nothing here.
            named = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect();
            if named.is_empty() {
                return Err(TrustError::Empty);
            }
            named.iter().try_for_each(|certificate| roots.add(certificate.clone())).map_err(TrustError::Certificate)?;
        }
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let chains = chains.map_err(|error| TrustError::Tls(Error::General(error.to_string())))?;
        Ok(Self { named, chains })
    }
}

impl ServerCertVerifier for Bundle {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.named.iter().any(|certificate| certificate == end) {
            return self.chains.verify_server_cert(end, between, name, ocsp, now);
        }
        verify_server_name(&ParsedCertificate::try_from(end)?, name)?;
        let (_, parsed) = X509Certificate::from_der(end).map_err(|_| CertificateError::BadEncoding)?;
        let (validity, now) = (parsed.validity(), i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if now < validity.not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn check(bundle: &Bundle, certificate: &CertificateDer<'_>, name: &str, at_s: u64) -> bool {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(at_s));
        bundle.verify_server_cert(certificate, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn a_certificate_of_the_bundle_is_believed_for_its_name_and_time() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["hook.test".to_owned()]).expect("a name");
        // What openssl's own `req -x509` makes: an authority that serves by itself.
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2030, 1, 1));
        let own = params.self_signed(&key).expect("a certificate");
        let key = KeyPair::generate().expect("another key");
        let other = CertificateParams::new(vec!["hook.test".to_owned()]).and_then(|p| p.self_signed(&key)).expect("a certificate");
        let bundle = Bundle::new(own.pem().as_bytes(), &provider).expect("a bundle");
        let in_2026 = 1_780_000_000;
        assert!(check(&bundle, own.der(), "hook.test", in_2026));
        assert!(!check(&bundle, own.der(), "other.test", in_2026));
        assert!(!check(&bundle, own.der(), "hook.test", 1_500_000_000), "not yet");
        assert!(!check(&bundle, own.der(), "hook.test", 1_900_000_000), "not any more");
        assert!(!check(&bundle, other.der(), "hook.test", in_2026), "of the same name, and not in the bundle");
        assert!(matches!(Bundle::new(b"no certificate", &provider), Err(TrustError::Empty)));
    }
}
