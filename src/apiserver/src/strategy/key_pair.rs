//! Secrets of type `kubernetes.io/tls`: whether the key belongs to the certificate.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::{
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde_json::Value;

/// Why nobody can serve with what the Secret holds; `None` when one can, or when it is of another type.
pub fn warning(secret: &Value) -> Option<String> {
    if secret["type"] != "kubernetes.io/tls" {
        return None;
    }
    let bytes = |name: &str| STANDARD.decode(secret["data"][name].as_str().unwrap_or_default()).unwrap_or_default();
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes("tls.crt")).flatten().collect();
    if chain.is_empty() {
        return Some("data[tls.crt]: no certificate in PEM form".into());
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(&bytes("tls.key")) else {
        return Some("data[tls.key]: no private key in PEM form".into());
    };
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(_) => None,
        Err(error) => Some(format!("data[tls.key]: not the private key of the certificate: {error}")),
    }
}
