//! Renewal with short lives, and through a real handshake.

use std::{cell::Cell, time::Duration};

use super::*;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

const START: i64 = 1_800_000_000;

fn renewing(dir: &std::path::Path) -> Renewing {
    NOW.set(START);
    let authority = Authority::open_at(dir, Duration::from_secs(300), clock()).unwrap();
    Renewing::new(Arc::new(authority), Subject::Server { names: vec!["localhost".into()], ips: vec![] }, clock).unwrap()
}

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let renewing = renewing(dir.path());
    let mut last = renewing.current();
    for (second, fresh) in [(1, false), (199, false), (200, true), (201, false), (399, false), (400, true), (5_000, true)] {
        NOW.set(START + second);
        let next = renewing.current();
        assert_eq!(next.cert != last.cert, fresh, "after {second} s");
        last = next;
    }
}

#[test]
fn a_client_that_trusts_the_authority_accepts_the_renewed_certificate_of_a_running_server() {
    let dir = tempfile::tempdir().unwrap();
    let renewing = Arc::new(renewing(dir.path()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(renewing.authority.server_ca().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let server = Arc::new(builder.with_no_client_auth().with_cert_resolver(Arc::clone(&renewing) as Arc<dyn ResolvesServerCert>));
    let mut seen = Vec::new();
    for second in [0, 100, 250, 10_000] {
        NOW.set(START + second);
        let client = rustls::ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(GivenTime))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        seen.push(handshake(client, &server));
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
    assert_ne!(seen[2], seen[3]);
}

#[derive(Debug)]
struct GivenTime;

impl rustls::time_provider::TimeProvider for GivenTime {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW.get() as u64)))
    }
}

/// Runs a handshake in memory; answers the certificate that the client was shown.
fn handshake(client: rustls::ClientConfig, server: &Arc<rustls::ServerConfig>) -> Vec<u8> {
    let mut client = rustls::ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    let mut server = rustls::ServerConnection::new(Arc::clone(server)).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    client.peer_certificates().unwrap()[0].to_vec()
}
