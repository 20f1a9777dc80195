//! Issues certificates: subject, usage and life in, signed certificate out.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use time::OffsetDateTime;

use crate::authority::{IssueError, Pair};

/// A certificate is valid from this long before it is made: clocks of other machines are not exact.
const BACKDATE: Duration = Duration::from_secs(300);

/// What a leaf certificate may be used for.
#[derive(Clone, Debug)]
pub(crate) enum Usage {
    /// By a TLS server under these names.
    Server { names: Vec<String>, ips: Vec<IpAddr> },
    /// By a TLS client with these organisations (Kubernetes: groups).
    Client { organisations: Vec<String> },
}

/// Parameters of a certificate authority that signs leaves only.
pub(crate) fn authority(name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(now, life);
    params
}

/// Makes a key and a certificate for it.
pub(crate) fn leaf(
    issuer: &Issuer<'_, KeyPair>,
    common_name: &str,
    usage: &Usage,
    now: Timestamp,
    life: Duration,
) -> Result<Pair, IssueError> {
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    match usage {
        Usage::Server { names, ips } => {
            params.distinguished_name = subject(common_name, &[])?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            for name in names {
                let dns = name.as_str().try_into().map_err(|source| IssueError::Name { name: name.clone(), source })?;
                params.subject_alt_names.push(SanType::DnsName(dns));
            }
            params.subject_alt_names.extend(ips.iter().copied().map(SanType::IpAddress));
        }
        Usage::Client { organisations } => {
            params.distinguished_name = subject(common_name, organisations)?;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        }
    }
    (params.not_before, params.not_after) = validity(now, life);
    let key = KeyPair::generate().map_err(IssueError::Key)?;
    let certificate = params.signed_by(&key, issuer).map_err(IssueError::Sign)?;
    Ok(Pair {
        certificate_pem: certificate.pem(),
        certificate: certificate.der().clone(),
        key_pem: key.serialize_pem(),
        key: rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialized_der().to_vec()).into(),
        issued: now,
        expires: now.saturating_add(jiff::SignedDuration::try_from(life).unwrap_or(jiff::SignedDuration::MAX)).unwrap_or(Timestamp::MAX),
    })
}

/// rcgen keeps one value for each attribute type, and knows the type of an organisation under these two names.
const ORGANISATION_TYPES: [fn() -> DnType; 2] = [|| DnType::OrganizationName, || DnType::CustomDnType(vec![2, 5, 4, 10])];

fn subject(common_name: &str, organisations: &[String]) -> Result<DistinguishedName, IssueError> {
    if organisations.len() > ORGANISATION_TYPES.len() {
        return Err(IssueError::Organisations { given: organisations.len(), bound: ORGANISATION_TYPES.len() });
    }
    let mut name = DistinguishedName::new();
    for (organisation, kind) in organisations.iter().zip(ORGANISATION_TYPES) {
        name.push(kind(), organisation.as_str());
    }
    name.push(DnType::CommonName, common_name);
    Ok(name)
}

fn validity(now: Timestamp, life: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::from_unix_timestamp(now.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    (now - BACKDATE, now.checked_add(life.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(now))
}
