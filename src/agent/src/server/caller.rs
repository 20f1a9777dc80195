//! Who may call the node: the API server, by its client certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The API server's name.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// Those who may everything.
const MASTERS: &str = "system:masters";

/// Whether the holder of this certificate (already verified against the cluster's CA) may call.
pub fn may_call(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let subject = certificate.subject();
    let any = |mut names: Box<dyn Iterator<Item = &x509_parser::x509::AttributeTypeAndValue<'_>> + '_>, wanted: &str| {
        names.any(|n| n.as_str() == Ok(wanted))
    };
    any(Box::new(subject.iter_common_name()), API_SERVER) || any(Box::new(subject.iter_organization()), MASTERS)
}
