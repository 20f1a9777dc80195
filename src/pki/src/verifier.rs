//! Verifies client certificates: signed by the cluster's client authority, in time, meant for clients.

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    server::{VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier},
};

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

/// The verifier of certificates of one authority; as a server's, it wants one of every client.
pub fn of_clients(
    authority: &CertificateDer<'static>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    WebPkiClientVerifier::builder_with_provider(roots(std::slice::from_ref(authority))?, Arc::clone(provider))
        .build()
        .map_err(VerifierError::Build)
}

/// The same, of several authorities, for a server whose clients may show none: those say otherwise who they are.
pub fn of_clients_if_any(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(authorities)?, Arc::clone(provider));
    builder.allow_unauthenticated().build().map_err(VerifierError::Build)
}

fn roots(authorities: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, VerifierError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(VerifierError::Root)?;
    }
    Ok(Arc::new(roots))
}
