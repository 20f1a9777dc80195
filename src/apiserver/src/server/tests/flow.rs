//! A level without seats turns its requests away, and no others; what every cluster has of flow control comes back.

use super::*;

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test(flavor = "multi_thread")]
async fn a_level_without_seats_turns_its_requests_away() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, server) = start(dir.path()).await;
    let (admin, bob) = (Who::Certificate(&authority, "admin", &["system:masters"]), Who::Certificate(&authority, "bob", &["dev"]));
    let level = json!({"metadata": {"name": "none"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    let schema = json!({"metadata": {"name": "bob"}, "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "none"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "bob"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/version"]}]}]}});
    let condition = async |name: &str, status: &str| {
        // The server follows the objects on its own; the harness' time bounds the wait.
        loop {
            let (_, text) = ask(&server, &authority, admin, "GET", &format!("{GROUP}/flowschemas/{name}"), Value::Null).await;
            let schema: Value = serde_json::from_str(&text).unwrap();
            let dangling = &schema["status"]["conditions"][0];
            if dangling["type"] == "Dangling" && dangling["status"] == status {
                return;
            }
        }
    };
    let (code, text) = ask(&server, &authority, admin, "POST", &format!("{GROUP}/flowschemas"), schema).await;
    assert_eq!(code, StatusCode::CREATED, "{text}");
    condition("bob", "True").await;
    let (code, _) = ask(&server, &authority, bob, "GET", "/version", Value::Null).await;
    assert_eq!(code, StatusCode::OK, "a schema without its level is passed over");
    let (code, text) = ask(&server, &authority, admin, "POST", &format!("{GROUP}/prioritylevelconfigurations"), level).await;
    assert_eq!(code, StatusCode::CREATED, "{text}");
    condition("bob", "False").await;
    let (code, text) = ask(&server, &authority, bob, "GET", "/version", Value::Null).await;
    assert_eq!(code, StatusCode::TOO_MANY_REQUESTS, "{text}");
    for (who, path) in [(bob, "/openapi/v2"), (admin, "/version")] {
        let (code, _) = ask(&server, &authority, who, "GET", path, Value::Null).await;
        assert_ne!(code, StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    let (_, page) = ask(&server, &authority, admin, "GET", "/metrics", Value::Null).await;
    let wanted =
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"bob\",priority_level=\"none\",reason=\"concurrency-limit\"} 1\n";
    assert!(page.contains(wanted), "{page}");
    let (code, _) = ask(&server, &authority, admin, "DELETE", &format!("{GROUP}/flowschemas/exempt"), Value::Null).await;
    assert_eq!(code, StatusCode::OK);
    let back =
        async || ask(&server, &authority, admin, "GET", &format!("{GROUP}/flowschemas/exempt"), Value::Null).await.0 == StatusCode::OK;
    while !back().await {}
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_let_in_by_what_the_level_says_now() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, server) = start(dir.path()).await;
    let (admin, bob) = (Who::Certificate(&authority, "admin", &["system:masters"]), Who::Certificate(&authority, "bob", &["dev"]));
    let level = |shares: u32| {
        json!({"metadata": {"name": "narrow"}, "spec": {"type": "Limited",
        "limited": {"nominalConcurrencyShares": shares, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 10}}}}})
    };
    let schema = json!({"metadata": {"name": "bob"}, "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "narrow"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "bob"}}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/version"]}]}]}});
    for (what, object) in [("prioritylevelconfigurations", level(0)), ("flowschemas", schema)] {
        let (code, text) = ask(&server, &authority, admin, "POST", &format!("{GROUP}/{what}"), object).await;
        assert_eq!(code, StatusCode::CREATED, "{text}");
    }
    let page = async || ask(&server, &authority, admin, "GET", "/metrics", Value::Null).await.1;
    // The server follows the objects on its own; the harness' time bounds the waits.
    while !page().await.contains("priority_level=\"narrow\"") {}
    let widen = async {
        let waits = "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"bob\",priority_level=\"narrow\"} 1\n";
        while !page().await.contains(waits) {}
        ask(&server, &authority, admin, "PUT", &format!("{GROUP}/prioritylevelconfigurations/narrow"), level(100)).await
    };
    let ((let_in, text), (widened, why)) = tokio::join!(ask(&server, &authority, bob, "GET", "/version", Value::Null), widen);
    assert_eq!((let_in, widened), (StatusCode::OK, StatusCode::OK), "{text} {why}");
    server.shutdown().await;
}
