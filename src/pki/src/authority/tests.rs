//! Authorities on real directories.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_second_opening_reads_what_the_first_one_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tls");
    let first = Authority::open(&path).unwrap();
    let second = Authority::open(&path).unwrap();
    assert_eq!(first.server_ca_pem(), second.server_ca_pem());
    assert_eq!(first.client_ca(), second.client_ca());
    assert_ne!(first.server_ca(), first.client_ca());
    let token = first.signer().sign(&serde_json::json!({"sub": "x"})).unwrap();
    assert!(second.signer().verifier().verify(&token).is_ok());
    assert!(!first.server_ca_pem().contains("PRIVATE"));
}

#[test]
fn every_file_is_readable_by_its_owner_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tls");
    Authority::open(&path).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_damaged_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    Authority::open(dir.path()).unwrap();
    for name in ["server-ca.pem", "client-ca.pem", "front-proxy-ca.pem", "service-account.key"] {
        let path = dir.path().join(name);
        let before = std::fs::read(&path).unwrap();
        std::fs::write(&path, "not PEM").unwrap();
        let error = Authority::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"not PEM");
        std::fs::write(&path, before).unwrap();
    }
}

#[test]
fn a_certificate_says_who_and_for_what() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open(dir.path()).unwrap();
    let client = authority.issue_client("kubernetes-admin", &["system:masters".into(), "developers".into()]).unwrap();
    let (_, client) = x509_parser::parse_x509_certificate(&client.certificate).unwrap();
    assert_eq!(client.subject().iter_common_name().next().unwrap().as_str().unwrap(), "kubernetes-admin");
    let groups: Vec<_> = client.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
    assert_eq!(groups, ["system:masters", "developers"]);
    let usage = client.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);

    let names = ["kubernetes.default.svc".to_owned()];
    let server = authority.issue_server(&names, &["10.43.0.1".parse().unwrap()]).unwrap();
    let (_, server) = x509_parser::parse_x509_certificate(&server.certificate).unwrap();
    assert_eq!(server.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    let (_, ca) = x509_parser::parse_x509_certificate(authority.server_ca()).unwrap();
    assert_eq!(server.issuer(), ca.subject());
    assert!(matches!(authority.issue_client("x", &["a".into(), "b".into(), "c".into()]), Err(IssueError::Organisations { .. })));
}
