//! TLS of the API server: a certificate that renews itself, any client certificate (see authentication), HTTP/2 before 1.1.

use std::sync::Arc;

use coracle_pki::renewal::Renewing;
use rustls::{ServerConfig, crypto::CryptoProvider, server::danger::ClientCertVerifier};

/// Offered in this order.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The configuration of the listener.
pub fn server_config(
    certificate: Arc<Renewing>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(certificate);
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}
