//! The book on real files: restarts, crashes at every place, reboots.

use super::*;

fn pods() -> IpNet {
    "10.42.0.0/24".parse().expect("range")
}

fn pod(sandbox: &str, ports: &[(u16, &str)]) -> PodRequest {
    let port = |(port, ip): &(u16, &str)| HostPort {
        protocol: "TCP".into(),
        host_ip: ip.parse().expect("address"),
        host_port: *port,
        container_port: 80,
    };
    PodRequest {
        sandbox: sandbox.into(),
        namespace: "d".into(),
        name: sandbox.into(),
        uid: format!("{sandbox}-uid"),
        host_ports: ports.iter().map(port).collect(),
    }
}

#[test]
fn a_restart_knows_all_and_gives_no_address_twice() {
    let directory = tempfile::tempdir().expect("directory");
    let mut book = Book::open(directory.path(), pods()).expect("open");
    let first = book.enter(&pod("a", &[])).expect("a");
    assert_eq!(book.enter(&pod("a", &[])).expect("again"), first);
    let second = book.enter(&pod("b", &[])).expect("b");
    assert_ne!(first.addresses, second.addresses);
    drop(book);
    let mut book = Book::open(directory.path(), pods()).expect("reopen");
    assert_eq!(book.records().count(), 2);
    assert_eq!(book.get("a"), Some(&first));
    let third = book.enter(&pod("c", &[])).expect("c");
    assert!(third.addresses != first.addresses && third.addresses != second.addresses);
    book.strike("a").expect("strike");
    book.strike("a").expect("strike of nothing");
    drop(book);
    let book = Book::open(directory.path(), pods()).expect("reopen");
    assert!(book.get("a").is_none() && book.get("b").is_some());
}

#[test]
fn a_write_that_was_cut_off_never_was() {
    let directory = tempfile::tempdir().expect("directory");
    Book::open(directory.path(), pods()).expect("open");
    fs::write(directory.path().join("attachments/x.tmp"), b"{\"sand").expect("write");
    let book = Book::open(directory.path(), pods()).expect("reopen");
    assert_eq!(book.records().count(), 0);
    assert!(!directory.path().join("attachments/x.tmp").exists());
}

#[test]
fn a_damaged_file_is_named() {
    let directory = tempfile::tempdir().expect("directory");
    Book::open(directory.path(), pods()).expect("open");
    fs::write(directory.path().join("attachments/x.json"), b"{").expect("write");
    let error = Book::open(directory.path(), pods()).expect_err("refused").to_string();
    assert!(error.contains("x.json"), "{error}");
}

#[test]
fn after_a_reboot_the_book_is_empty() {
    let directory = tempfile::tempdir().expect("directory");
    let mut book = Book::open(directory.path(), pods()).expect("open");
    book.enter(&pod("a", &[])).expect("a");
    // A power loss may also have torn files.
    fs::write(directory.path().join("attachments/torn.json"), b"").expect("write");
    fs::write(directory.path().join("boot"), b"another boot").expect("write");
    let book = Book::open(directory.path(), pods()).expect("reopen");
    assert_eq!(book.records().count(), 0);
}

#[test]
fn sandbox_ids_that_are_no_file_names_are_refused() {
    let directory = tempfile::tempdir().expect("directory");
    let mut book = Book::open(directory.path(), pods()).expect("open");
    for id in ["", "..", ".hidden", "a/b", "a b", &"x".repeat(129)] {
        assert!(matches!(book.enter(&pod(id, &[])), Err(AttachError::System { .. })), "{id:?}");
    }
}

#[test]
fn host_ports_clash_by_protocol_port_and_address() {
    let directory = tempfile::tempdir().expect("directory");
    let mut book = Book::open(directory.path(), pods()).expect("open");
    book.enter(&pod("a", &[(80, "0.0.0.0"), (81, "192.0.2.1")])).expect("a");
    for (port, ip, clash) in [
        (80, "0.0.0.0", true),
        (80, "192.0.2.9", true),
        (81, "0.0.0.0", true),
        (81, "192.0.2.1", true),
        (81, "192.0.2.2", false),
        (82, "0.0.0.0", false),
    ] {
        let result = book.enter(&pod("b", &[(port, ip)]));
        match result {
            Err(AttachError::PortTaken { by, .. }) => assert!(clash && by == "a-uid", "{port} {ip}"),
            Ok(_) => assert!(!clash, "{port} {ip}"),
            Err(error) => panic!("{error}"),
        }
        book.strike("b").expect("strike");
    }
}

#[test]
fn a_full_range_says_so() {
    let directory = tempfile::tempdir().expect("directory");
    let mut book = Book::open(directory.path(), "10.42.0.0/30".parse().expect("range")).expect("open");
    book.enter(&pod("a", &[])).expect("the only one");
    assert!(matches!(book.enter(&pod("b", &[])), Err(AttachError::Exhausted(range)) if range == "10.42.0.0/30"));
}
