//! Signs certificate requests of others: their subject, key and names as they ask, usage and life as the signer allows.
//!
//! Written by hand and not by rcgen, whose subjects hold one value of each kind: a user may be in any number of groups.

use std::{net::IpAddr, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, SigningKey as _};
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls_pki_types::CertificateDer;
use x509_parser::{
    extensions::ParsedExtension,
    prelude::{FromDer as _, X509Certificate},
};

use crate::{der, request::SigningRequest};

/// A certificate is valid from this long before it is signed: clocks of other machines are not exact. Upstream's.
const BACKDATE: SignedDuration = SignedDuration::from_secs(300);
/// From this life on the end is dated back with the beginning. Upstream's.
const LONG: Duration = Duration::from_secs(8 * 3600);
/// Bytes of a serial number.
const SERIAL: usize = 16;

/// Bits of the key usage extension, by the usages that the API has for them; the first bit is the highest.
const KEY_USAGES: [(&str, u16); 10] = [
    ("signing", 1 << 15),
    ("digital signature", 1 << 15),
    ("content commitment", 1 << 14),
    ("key encipherment", 1 << 13),
    ("data encipherment", 1 << 12),
    ("key agreement", 1 << 11),
    ("cert sign", 1 << 10),
    ("crl sign", 1 << 9),
    ("encipher only", 1 << 8),
    ("decipher only", 1 << 7),
];
/// Extended key usages, in the order in which they are written.
const EXTENDED_USAGES: [(&[&str], &[u64]); 12] = [
    (&["any"], &[2, 5, 29, 37, 0]),
    (&["server auth"], &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    (&["client auth"], &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    (&["code signing"], &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    (&["email protection", "s/mime"], &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    (&["ipsec end system"], &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    (&["ipsec tunnel"], &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    (&["ipsec user"], &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    (&["timestamping"], &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    (&["ocsp signing"], &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    (&["microsoft sgc"], &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    (&["netscape sgc"], &[2, 16, 840, 1, 113_730, 4, 1]),
];

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignRequestError {
    /// A usage that certificates do not have.
    #[error("unknown usage {0:?}")]
    Usage(String),
    /// The authority's own time is over.
    #[error("the certificate authority expired at {0}")]
    Expired(Timestamp),
    /// The authority's own certificate.
    #[error("the certificate authority's certificate cannot be read")]
    Authority,
    /// The authority's key is of a kind that has no name here.
    #[error("the certificate authority's key is of a kind that signs no requests")]
    Algorithm,
    /// No serial number.
    #[error("the system has no randomness for a serial number")]
    Random,
    /// No signature.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

/// A certificate in DER for what the request asks, by this authority. Longer than the authority lives no certificate lives.
pub(crate) fn request(
    (authority, key): (&CertificateDer<'_>, &KeyPair),
    request: &SigningRequest,
    usages: &[&str],
    life: Duration,
    now: Timestamp,
) -> Result<Vec<u8>, SignRequestError> {
    let (_, authority) = X509Certificate::from_der(authority).map_err(|_| SignRequestError::Authority)?;
    let ends = Timestamp::from_second(authority.validity().not_after.timestamp()).map_err(|_| SignRequestError::Authority)?;
    if ends <= now {
        return Err(SignRequestError::Expired(ends));
    }
    let length = SignedDuration::try_from(life).unwrap_or(SignedDuration::MAX);
    let length = if life < LONG { length } else { length.saturating_sub(BACKDATE) };
    let not_before = now.saturating_sub(BACKDATE).unwrap_or(now);
    let not_after = now.saturating_add(length).unwrap_or(Timestamp::MAX).min(ends);
    let algorithm = algorithm(key)?;
    let to_sign = der::sequence(&[
        &[0xa0, 0x03, 0x02, 0x01, 0x02],
        &serial()?,
        &algorithm,
        authority.subject().as_raw(),
        &der::sequence(&[&der::time(not_before), &der::time(not_after)]),
        &request.subject,
        &request.key,
        &der::element(0xa3, &extensions(&authority, request, usages)?),
    ]);
    let signature = key.sign(&to_sign).map_err(SignRequestError::Sign)?;
    Ok(der::sequence(&[&to_sign, &algorithm, &der::bytes_as_bits(&signature)]))
}

fn algorithm(key: &KeyPair) -> Result<Vec<u8>, SignRequestError> {
    const NULL: &[u8] = &[5, 0];
    let known: [(&rcgen::SignatureAlgorithm, &[u64], &[u8]); 6] = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, &[1, 2, 840, 10045, 4, 3, 2], &[]),
        (&rcgen::PKCS_ECDSA_P384_SHA384, &[1, 2, 840, 10045, 4, 3, 3], &[]),
        (&rcgen::PKCS_ED25519, &[1, 3, 101, 112], &[]),
        (&rcgen::PKCS_RSA_SHA256, &[1, 2, 840, 113_549, 1, 1, 11], NULL),
        (&rcgen::PKCS_RSA_SHA384, &[1, 2, 840, 113_549, 1, 1, 12], NULL),
        (&rcgen::PKCS_RSA_SHA512, &[1, 2, 840, 113_549, 1, 1, 13], NULL),
    ];
    let found = known.into_iter().find(|(known, ..)| *known == key.algorithm());
    let (_, id, parameters) = found.ok_or(SignRequestError::Algorithm)?;
    Ok(der::sequence(&[&der::object_id(id), parameters]))
}

fn serial() -> Result<Vec<u8>, SignRequestError> {
    let mut bytes = [0; SERIAL];
    SystemRandom::new().fill(&mut bytes).map_err(|_| SignRequestError::Random)?;
    // Positive, and in its shortest form.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(der::element(der::INTEGER, &bytes))
}

fn extensions(authority: &X509Certificate<'_>, request: &SigningRequest, usages: &[&str]) -> Result<Vec<u8>, SignRequestError> {
    let (bits, purposes) = usage(usages)?;
    let mut all = Vec::new();
    let mut add = |id: &[u64], critical: bool, value: &[u8]| {
        let critical = if critical { &der::TRUE[..] } else { &[] };
        all.push(der::sequence(&[&der::object_id(id), critical, &der::element(der::OCTET_STRING, value)]));
    };
    if bits != 0 {
        add(&[2, 5, 29, 15], true, &der::named_bits(bits));
    }
    if !purposes.is_empty() {
        let purposes: Vec<&[u8]> = purposes.iter().map(Vec::as_slice).collect();
        add(&[2, 5, 29, 37], false, &der::sequence(&purposes));
    }
    // No authority: an empty sequence.
    add(&[2, 5, 29, 19], true, &der::sequence(&[]));
    let own_id = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    if let Some(id) = own_id {
        add(&[2, 5, 29, 35], false, &der::sequence(&[&der::element(0x80, id)]));
    }
    let names = names(request);
    if !names.is_empty() {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        // An empty subject is two bytes; then the names alone say whose certificate it is.
        add(&[2, 5, 29, 17], request.subject.len() <= 2, &der::sequence(&names));
    }
    let all: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
    Ok(der::sequence(&all))
}

fn usage(usages: &[&str]) -> Result<(u16, Vec<Vec<u8>>), SignRequestError> {
    let mut bits = 0;
    for usage in usages {
        match KEY_USAGES.iter().find(|(name, _)| name == usage) {
            Some((_, bit)) => bits |= bit,
            None if EXTENDED_USAGES.iter().any(|(names, _)| names.contains(usage)) => {}
            None => return Err(SignRequestError::Usage((*usage).to_owned())),
        }
    }
    let asked = |names: &[&str]| names.iter().any(|name| usages.contains(name));
    Ok((bits, EXTENDED_USAGES.iter().filter(|(names, _)| asked(names)).map(|(_, id)| der::object_id(id)).collect()))
}

fn names(request: &SigningRequest) -> Vec<Vec<u8>> {
    let text = |tag: u8| move |name: &String| der::element(tag, name.as_bytes());
    let ip = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => der::element(0x87, &ip.octets()),
        IpAddr::V6(ip) => der::element(0x87, &ip.octets()),
    };
    let dns = request.dns_names.iter().map(text(0x82));
    let emails = request.emails.iter().map(text(0x81));
    dns.chain(emails).chain(request.ips.iter().map(ip)).chain(request.uris.iter().map(text(0x86))).collect()
}
