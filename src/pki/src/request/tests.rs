//! Requests as their senders make them, and the certificates that come of them.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::{crypto::ring::default_provider, pki_types::CertificateDer};
use rustls_pki_types::{UnixTime, pem::PemObject as _};

use super::*;
use crate::{
    authority::{Authority, Signatory},
    sign::SignRequestError,
    subject::Subject,
    verifier,
};

fn params(common_name: &str, organisations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let kinds = [DnType::OrganizationName, DnType::CustomDnType(vec![2, 5, 4, 10])];
    for (organisation, kind) in organisations.iter().zip(kinds) {
        params.distinguished_name.push(kind, *organisation);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn pem(params: &CertificateParams, key: &KeyPair) -> String {
    params.serialize_request(key).expect("a request").pem().expect("PEM")
}

fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::open(dir.path()).expect("authorities");
    (dir, authority)
}

#[test]
fn a_request_says_for_whom_and_for_which_names() {
    let key = KeyPair::generate().expect("a key");
    let mut params = params("alice", &["dev", "ops"]);
    params.subject_alt_names = vec![
        SanType::DnsName("a.test".try_into().expect("a name")),
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::URI("spiffe://a/b".try_into().expect("a name")),
        SanType::Rfc822Name("a@b.test".try_into().expect("a name")),
    ];
    let request = SigningRequest::from_pem(pem(&params, &key).as_bytes()).expect("a request");
    assert_eq!(request.common_name, "alice");
    assert_eq!(request.organisations, ["dev", "ops"]);
    assert_eq!((request.dns_names, request.uris), (vec!["a.test".to_owned()], vec!["spiffe://a/b".to_owned()]));
    assert_eq!((request.emails, request.ips), (vec!["a@b.test".to_owned()], vec![IpAddr::from([10, 0, 0, 1])]));
}

#[test]
fn a_signed_request_logs_in_as_its_subject() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().expect("a key");
    let request = SigningRequest::from_pem(pem(&params("alice", &["dev", "ops"]), &key).as_bytes()).expect("a request");
    let now = Timestamp::now();
    let usages = ["digital signature", "key encipherment", "client auth"];
    let pem = authority.sign_request(Signatory::Client, &request, &usages, Duration::from_secs(3600), now).expect("signed");
    assert_eq!(check_chain(pem.as_bytes()), Ok(()));
    assert_eq!(chain_ends_s(pem.as_bytes()), Some(now.as_second() + 3600));
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let verifier = verifier::of_clients(authority.client_ca(), &std::sync::Arc::new(default_provider())).expect("a verifier");
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).expect("after 1970")));
    verifier.verify_client_cert(&certificate, &[], at).expect("the cluster's own");
    let late = UnixTime::since_unix_epoch(Duration::from_secs(at.as_secs() + 3700));
    verifier.verify_client_cert(&certificate, &[], late).expect_err("its time is over");
    let subject = Subject::of(&certificate).expect("a subject");
    assert_eq!((subject.name.as_str(), subject.groups), ("alice", vec!["dev".to_owned(), "ops".to_owned()]));
}

#[test]
fn a_certificate_is_for_what_was_asked_and_no_authority() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("a key");
    let mut params = params("system:node:n", &["system:nodes"]);
    // What the request wants to be is not looked at.
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.subject_alt_names = vec![SanType::DnsName("n".try_into().expect("a name"))];
    let request = SigningRequest::from_pem(pem(&params, &key).as_bytes()).expect("a request");
    let usages = ["server auth", "digital signature"];
    let now = Timestamp::now();
    let pem = authority.sign_request(Signatory::Server, &request, &usages, Duration::from_secs(365 * 86_400), now).expect("signed");
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).expect("it can be read");
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().expect("read").expect("there").value;
    assert!(usage.digital_signature() && !usage.key_cert_sign());
    let purposes = certificate.extended_key_usage().expect("read").expect("there").value;
    assert!(purposes.server_auth && !purposes.client_auth && !purposes.code_signing);
    assert_eq!(certificate.validity().not_after.timestamp(), now.as_second() + 365 * 86_400 - 300, "a long life is dated back");
    let again = authority.sign_request(Signatory::Server, &request, &usages, Duration::from_secs(3600), now).expect("signed");
    assert_ne!(pem, again, "serial numbers differ");
}

#[test]
fn no_certificate_outlives_its_authority() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().expect("a key");
    let request = SigningRequest::from_pem(pem(&params("alice", &[]), &key).as_bytes()).expect("a request");
    let now = Timestamp::now();
    let pem =
        authority.sign_request(Signatory::Client, &request, &["client auth"], Duration::from_secs(50 * 365 * 86_400), now).expect("signed");
    assert!(chain_ends_s(pem.as_bytes()).expect("an end") <= now.as_second() + 3650 * 86_400);
    let after = now + jiff::SignedDuration::from_hours(11 * 365 * 24);
    let late = authority.sign_request(Signatory::Client, &request, &["client auth"], Duration::from_secs(3600), after);
    assert!(matches!(late, Err(SignRequestError::Expired(_))), "{late:?}");
    let odd = authority.sign_request(Signatory::Client, &request, &["flying"], Duration::from_secs(3600), now);
    assert!(matches!(odd, Err(SignRequestError::Usage(usage)) if usage == "flying"));
}

#[test]
fn what_is_no_request_is_named() {
    let key = KeyPair::generate().expect("a key");
    let good = pem(&params("alice", &[]), &key);
    let other = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    assert_eq!(SigningRequest::from_pem(other.as_bytes()), Err(RequestError::Pem));
    assert_eq!(SigningRequest::from_pem(b""), Err(RequestError::Pem));
    assert_eq!(SigningRequest::from_pem(&[b'x'; REQUEST_BOUND + 1]), Err(RequestError::TooLong));
    let block = Pem::iter_from_buffer(good.as_bytes()).next().expect("a block").expect("PEM");
    let mut forged = block.contents.clone();
    let at = forged.windows(5).position(|part| part == b"alice").expect("the name");
    forged[at] = b'b';
    assert_eq!(SigningRequest::from_der(&forged), Err(RequestError::Signature));
    assert_eq!(SigningRequest::from_der(&block.contents[..40]), Err(RequestError::Form));
    assert_eq!(check_chain(good.as_bytes()), Err(ChainError::Label("CERTIFICATE REQUEST".into())));
    assert_eq!(check_chain(b"nothing"), Err(ChainError::None));
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0..200usize, new in any::<u8>()) {
        let _ = SigningRequest::from_der(&bytes);
        let _ = SigningRequest::from_pem(&bytes);
        static GOOD: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = GOOD.get_or_init(|| {
            let key = KeyPair::generate().expect("a key");
            Pem::iter_from_buffer(pem(&params("alice", &["dev"]), &key).as_bytes()).next().expect("a block").expect("PEM").contents
        });
        let mut changed = good.clone();
        let place = at % changed.len();
        changed[place] = new;
        // Not all bytes around what is signed mean something; but what is accepted says what was signed.
        let accepted = SigningRequest::from_der(&changed);
        prop_assert!(accepted.is_err() || accepted == SigningRequest::from_der(good), "{accepted:?}");
    }
}
