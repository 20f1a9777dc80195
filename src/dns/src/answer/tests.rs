//! Cases of answers: a question, what comes.

use proptest::prelude::*;

use super::*;
use crate::records::{Change, Endpoint, Port};

const DOMAIN: &str = "cluster.local";
const POD: &str = "10.42.0.7";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn port(name: &str, number: u16) -> Port {
    Port { name: name.into(), protocol: "tcp".into(), number }
}

fn records() -> Records {
    let mut records = Records::default();
    let mut add = |ns: &str, name: &str, service: Service| {
        records.apply(Change::Service { namespace: ns.into(), name: name.into(), service: Some(service) });
    };
    add("default", "web", Service { ips: vec![ip("10.43.0.5")], ports: vec![port("http", 80), port("", 81)], ..Service::default() });
    add("other", "db", Service { ips: vec![ip("10.43.0.6"), ip("fd00::6")], ..Service::default() });
    add("default", "outside", Service { external: Some("example.com".into()), ..Service::default() });
    for (name, external) in [
        ("inside", "web.default.svc.cluster.local"),
        ("twice", "inside.default.svc.cluster.local"),
        ("far", "outside.default.svc.cluster.local"),
        ("lost", "nobody.default.svc.cluster.local"),
        ("ring", "ring.default.svc.cluster.local"),
    ] {
        add("default", name, Service { external: Some(external.into()), ..Service::default() });
    }
    add("default", "empty", Service::default());
    let endpoint = |address: &str, hostname: Option<&str>| Endpoint {
        ip: ip(address),
        hostname: hostname.map(str::to_owned),
        ports: vec![port("peer", 7000)],
    };
    add(
        "default",
        "set",
        Service { endpoints: vec![endpoint("10.42.0.10", Some("set-0")), endpoint("10.42.0.11", None)], ..Service::default() },
    );
    records.apply(Change::Namespace { name: "bare".into(), exists: true });
    records.apply(Change::Pod { ip: ip(POD), namespace: Some("default".into()) });
    records
}

fn ask(name: &str, kind: Kind) -> Answer {
    answer(&records(), DOMAIN, name, kind, ip(POD))
}

fn addresses(name: &str, kind: Kind) -> Vec<String> {
    match ask(name, kind) {
        Answer::Found { records, .. } => records
            .into_iter()
            .map(|(owner, data)| match data {
                Data::Address(ip) => ip.to_string(),
                Data::Alias(to) => format!("{owner} -> {to}"),
                Data::Service(port, to) => format!("{port} {to}"),
                Data::Pointer(to) => to,
                Data::Text(text) => text,
            })
            .collect(),
        other => vec![format!("{other:?}")],
    }
}

#[test]
fn names_of_services() {
    for (name, kind, want) in [
        ("web.default.svc.cluster.local", Kind::A, vec!["10.43.0.5"]),
        ("web.default.svc.cluster.local", Kind::Aaaa, vec!["NoData"]),
        ("db.other.svc.cluster.local", Kind::Aaaa, vec!["fd00::6"]),
        ("db.other.svc.cluster.local", Kind::Any, vec!["10.43.0.6", "fd00::6"]),
        ("set.default.svc.cluster.local", Kind::A, vec!["10.42.0.10", "10.42.0.11"]),
        ("set-0.set.default.svc.cluster.local", Kind::A, vec!["10.42.0.10"]),
        ("10-42-0-11.set.default.svc.cluster.local", Kind::A, vec!["10.42.0.11"]),
        ("_http._tcp.web.default.svc.cluster.local", Kind::Srv, vec!["80 web.default.svc.cluster.local"]),
        (
            "_peer._tcp.set.default.svc.cluster.local",
            Kind::Srv,
            vec!["7000 set-0.set.default.svc.cluster.local", "7000 10-42-0-11.set.default.svc.cluster.local"],
        ),
        ("_http._tcp.web.default.svc.cluster.local", Kind::A, vec!["NoData"]),
        ("web.default.svc.cluster.local", Kind::Srv, vec!["80 web.default.svc.cluster.local"]),
        ("10-42-0-7.default.pod.cluster.local", Kind::A, vec!["10.42.0.7"]),
        ("5.0.43.10.in-addr.arpa", Kind::Ptr, vec!["web.default.svc.cluster.local"]),
        ("10.0.42.10.in-addr.arpa", Kind::Ptr, vec!["set-0.set.default.svc.cluster.local"]),
        ("dns-version.cluster.local", Kind::Txt, vec!["1.1.0"]),
        ("outside.default.svc.cluster.local", Kind::Cname, vec!["outside.default.svc.cluster.local -> example.com"]),
        ("cluster.local", Kind::A, vec!["NoData"]),
        ("bare.svc.cluster.local", Kind::A, vec!["NoData"]),
        ("_tcp.web.default.svc.cluster.local", Kind::A, vec!["NoData"]),
    ] {
        assert_eq!(addresses(name, kind), want, "{name} {kind:?}");
    }
}

#[test]
fn what_is_not_there_is_no_name() {
    for name in [
        "nothing.svc.cluster.local",
        "web.nothing.svc.cluster.local",
        "x.nothing.pod.cluster.local",
        "other.cluster.local",
        "_x._tcp.web.other.svc.cluster.local",
        "nobody.set.other.svc.cluster.local",
    ] {
        assert_eq!(ask(name, Kind::A), Answer::NoName, "{name}");
    }
}

#[test]
fn external_names_are_chased_upstream() {
    assert_eq!(ask("example.com", Kind::A), Answer::Forward { aliases: vec![], name: "example.com".into(), search: false });
    let name = "outside.default.svc.cluster.local";
    let aliases = vec![(name.to_owned(), Data::Alias("example.com".into()))];
    assert_eq!(ask(name, Kind::A), Answer::Forward { aliases, name: "example.com".into(), search: false });
    assert!(matches!(ask("8.8.8.8.in-addr.arpa", Kind::Ptr), Answer::Forward { .. }));
}

#[test]
fn external_names_of_the_cluster_are_followed_here() {
    let own = |name: &str| format!("{name}.default.svc.cluster.local");
    let alias = |from: &str, to: &str| format!("{} -> {}", own(from), own(to));
    assert_eq!(addresses(&own("inside"), Kind::A), [alias("inside", "web"), "10.43.0.5".into()]);
    assert_eq!(addresses(&own("twice"), Kind::A), [alias("twice", "inside"), alias("inside", "web"), "10.43.0.5".into()]);
    assert_eq!(addresses(&own("twice"), Kind::Cname), [alias("twice", "inside")]);
    assert_eq!(addresses(&own("inside"), Kind::Aaaa), [alias("inside", "web")]);
    assert_eq!(addresses(&own("lost"), Kind::A), [alias("lost", "nobody")]);
    assert_eq!(addresses(&own("ring"), Kind::A).len(), MAX_ALIASES + 1);
    let aliases = vec![(own("far"), Data::Alias(own("outside"))), (own("outside"), Data::Alias("example.com".into()))];
    assert_eq!(ask(&own("far"), Kind::A), Answer::Forward { aliases, name: "example.com".into(), search: false });
}

#[test]
fn the_first_step_of_a_search_is_the_last() {
    let found = addresses("db.other.default.svc.cluster.local", Kind::A);
    assert_eq!(found, ["db.other.default.svc.cluster.local -> db.other.svc.cluster.local", "10.43.0.6"]);
    let name = "www.example.com.default.svc.cluster.local";
    let aliases = vec![(name.to_owned(), Data::Alias("www.example.com".into()))];
    assert_eq!(ask(name, Kind::A), Answer::Forward { aliases, name: "www.example.com".into(), search: true });
    // Not the asker's namespace, or an asker that is no pod: nobody searches there.
    assert_eq!(ask("www.example.com.other.svc.cluster.local", Kind::A), Answer::NoName);
    assert_eq!(answer(&records(), DOMAIN, name, Kind::A, ip("192.168.0.1")), Answer::NoName);
    // A later step of the same walk.
    assert_eq!(ask("www.example.com.svc.cluster.local", Kind::A), Answer::NoName);
}

#[test]
fn a_service_that_goes_takes_its_names_along() {
    let mut records = records();
    records.apply(Change::Service { namespace: "default".into(), name: "web".into(), service: None });
    assert_eq!(answer(&records, DOMAIN, "web.default.svc.cluster.local", Kind::A, ip("192.168.0.1")), Answer::NoName);
    assert!(!records.reverse.contains_key(&ip("10.43.0.5")));
}

proptest! {
    #[test]
    fn no_name_panics(name in "[-_.a-z0-9]{0,80}", domain in prop::sample::select(vec!["", ".cluster.local", ".default.svc.cluster.local", ".in-addr.arpa", ".ip6.arpa"])) {
        for kind in [Kind::A, Kind::Srv, Kind::Ptr, Kind::Any] {
            let _ = ask(&format!("{name}{domain}"), kind);
        }
    }

    /// A table that took the steps one by one is the table that was sent whole.
    #[test]
    fn steps_and_the_whole_agree(steps in prop::collection::vec((0..3usize, 0..3usize, prop::option::of(0..4u8)), 0..30)) {
        let mut one = Records::default();
        for (ns, name, last) in steps {
            let service = last.map(|l| Service { ips: vec![IpAddr::from([10, 43, 0, l])], ..Service::default() });
            one.apply(Change::Service { namespace: format!("n{ns}"), name: format!("s{name}"), service });
        }
        let mut whole = Records::default();
        whole.apply(Change::All(Box::new(one.clone())));
        let sorted = |mut r: Records| { r.reverse.values_mut().for_each(|v| v.sort()); r };
        prop_assert_eq!(sorted(one), sorted(whole));
    }
}
