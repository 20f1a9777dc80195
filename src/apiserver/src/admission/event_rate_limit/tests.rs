//! Who is counted with whom, and what is said of it.

use std::time::Duration;

use serde_json::json;

use super::*;

fn limits(text: Value) -> Result<EventRateLimit, Vec<String>> {
    let written: Vec<Written> = serde_json::from_value(text).expect("limits");
    read(&written).map(|limits| EventRateLimit::new(&limits))
}

fn event(host: &str, uid: &str) -> Value {
    json!({"source": {"component": "kubelet", "host": host}, "involvedObject": {"kind": "Pod", "namespace": "a", "name": "p", "uid": uid, "apiVersion": "v1"}})
}

#[tokio::test(start_paused = true)]
async fn each_limit_counts_by_its_own_names() {
    let now = Instant::now();
    for (kind, together, apart) in [
        ("Server", ("b", "bob", event("m", "2")), None),
        ("Namespace", ("a", "bob", event("m", "2")), Some(("b", "ann", event("n", "1")))),
        ("User", ("b", "ann", event("m", "2")), Some(("a", "bob", event("n", "1")))),
        ("SourceAndObject", ("b", "bob", event("n", "1")), Some(("a", "ann", event("n", "2")))),
        ("SourceAndObject", ("b", "bob", event("n", "1")), Some(("a", "ann", event("m", "1")))),
    ] {
        let plugin = limits(json!([{"type": kind, "qps": 1, "burst": 1}])).expect("good");
        plugin.count("a", "ann", &event("n", "1"), now).expect("the first");
        let (namespace, user, event) = together;
        let status = plugin.count(namespace, user, &event, now).expect_err(kind);
        assert_eq!((status.code, status.reason, status.details), (429, "TooManyRequests", None));
        assert!(status.message.contains(&format!("the limit of type {kind} is reached")), "{}", status.message);
        if let Some((namespace, user, event)) = apart {
            plugin.count(namespace, user, &event, now).expect(kind);
        }
        tokio::time::advance(Duration::from_secs(1)).await;
        plugin.count(namespace, user, &event, Instant::now()).expect("after a second");
    }
    assert_ne!(key(&["a", "bc"]), key(&["ab", "c"]));
}

#[test]
fn all_limits_that_are_reached_are_named() {
    let plugin =
        limits(json!([{"type": "Server", "qps": 1, "burst": 2}, {"type": "User", "qps": 1, "burst": 1}, {"type": "Namespace", "qps": 1, "burst": 1}]))
            .expect("good");
    let now = Instant::now();
    let count = |user| plugin.count("a", user, &event("n", "1"), now).map_err(|status| status.message);
    assert_eq!(count("ann"), Ok(()));
    assert_eq!(count("bob"), Err("too many events: the limit of type Namespace is reached for \"a\"".into()));
    let all = "too many events: the limit of type Server is reached, the limit of type User is reached for \"bob\", \
        the limit of type Namespace is reached for \"a\"";
    assert_eq!(count("bob"), Err(all.into()), "who is refused by one limit is counted by the others");
}

#[test]
fn what_is_wrong_with_limits_is_named_by_its_field() {
    for (text, expected) in [
        (json!([]), "limits: there must be one"),
        (json!([{"type": "server", "qps": 1, "burst": 1}]), "limits[0].type: \"server\" is not one of"),
        (json!([{"type": "User", "qps": 0, "burst": 1}]), "limits[0].qps: 0 is not positive"),
        (json!([{"type": "User", "qps": 1, "burst": -1}]), "limits[0].burst: -1 is not positive"),
        (json!([{"type": "User", "qps": 1, "burst": 1, "cacheSize": -1}]), "limits[0].cacheSize: -1 is negative"),
    ] {
        let wrong = limits(text).expect_err(expected);
        assert!(wrong.len() == 1 && wrong[0].starts_with(expected), "{wrong:?}");
    }
    limits(json!([{"type": "Server", "qps": 1, "burst": 1, "cacheSize": -1}])).expect("a server has one bucket");
}
