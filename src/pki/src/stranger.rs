//! TLS to servers whose certificates say nothing to us: pods make their own, and probes and the API server's proxy ask them all the same.
//!
//! Neither the chain nor the handshake's signature is looked at. Without the first the second proves nothing, and reading it would refuse the
//! X.509 v1 certificates that `openssl x509 -req` makes. What is sent on such a connection must be fit for anybody.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// A client that shows no certificate and takes any.
pub fn client_config(provider: &Arc<CryptoProvider>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier(provider)).with_no_client_auth();
    // A pod's address is the next pod's tomorrow.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes any certificate: for clients whose user has said so (`insecureSkipTLSVerify`).
pub fn verifier(provider: &CryptoProvider) -> Arc<dyn ServerCertVerifier> {
    Arc::new(Anyone { schemes: provider.signature_verification_algorithms.supported_schemes() })
}

#[derive(Debug)]
struct Anyone {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use rcgen::{CertificateParams, KeyPair};
    use rustls::{ClientConnection, ServerConfig, ServerConnection, pki_types::PrivateKeyDer};

    use super::*;

    /// Carries TLS records between the two until neither has any.
    fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), Error> {
        while client.wants_write() || server.wants_write() {
            let mut bytes = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut bytes).expect("a Vec takes all");
            }
            server.read_tls(&mut &bytes[..]).expect("a slice gives all");
            server.process_new_packets()?;
            bytes.clear();
            while server.wants_write() {
                server.write_tls(&mut bytes).expect("a Vec takes all");
            }
            client.read_tls(&mut &bytes[..]).expect("a slice gives all");
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn anybody_is_spoken_to() {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["other.test".to_owned()]).and_then(|p| p.self_signed(&key)).expect("a certificate");
        let own_key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().expect("versions");
        let server = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], own_key).expect("a server");
        let mut server = ServerConnection::new(Arc::new(server)).expect("a server");
        let name = ServerName::try_from("10.0.0.1").expect("an address");
        let mut client = ClientConnection::new(Arc::new(client_config(&provider).expect("a client")), name).expect("a client");
        client.writer().write_all(b"hello").expect("written");
        handshake(&mut client, &mut server).expect("they agree");
        let mut heard = [0; 5];
        server.reader().read_exact(&mut heard).expect("read");
        assert_eq!(&heard, b"hello");
    }
}
