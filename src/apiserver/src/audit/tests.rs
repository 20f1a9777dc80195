//! Requests from their beginning to the line in the log.

use std::path::Path;

use super::*;

fn record(dir: &Path, policy: &str, ask: impl FnOnce(&Audit)) -> Vec<Value> {
    let (log, file) = (dir.join("audit.log"), dir.join("policy.yaml"));
    std::fs::write(&file, format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{policy}]\n")).unwrap();
    let config = Config { log: Some(log.clone()), policy: Some(file), bounds: Bounds::default() };
    let audit = Audit::open(&config, Live::default()).unwrap();
    ask(&audit);
    assert_eq!(audit.counts().lost, 0);
    drop(audit);
    std::fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn begin(audit: &Audit, verb: &str) -> Annotations {
    let user = User { name: "alice".into(), ..User::default() };
    let question = Question { verb, is_resource: true, version: "v1", resource: "pods", namespace: "a", ..Question::blank(&user) };
    let mut headers = HeaderMap::new();
    headers.insert("x-forwarded-for", "192.0.2.7, 192.0.2.1".parse().unwrap());
    headers.insert(USER_AGENT, "x".repeat(2000).parse().unwrap());
    let came = Came {
        id: "u-1",
        at: Timestamp::now(),
        uri: &"/api/v1/pods?limit=1".parse().unwrap(),
        headers: &headers,
        peer: Some([192, 0, 2, 1].into()),
    };
    audit.begin(&question, came)
}

#[test]
fn stages_follow_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let events = record(dir.path(), "{level: Metadata}", |audit| {
        let create = begin(audit, "create");
        create.add("a/b", "first");
        create.add("a/b", "second");
        create.object(&serde_json::json!({"metadata": {"name": "web", "uid": "u"}}));
        create.impersonates(&User { name: "bob".into(), ..User::default() });
        create.answered(201, "", None, false);
        create.complete();
        let watch = begin(audit, "watch");
        watch.answered(200, "", None, true);
        let body = watch.clone();
        drop(watch);
        // The body of the answer is the last to go.
        drop(body);
        let nobody = begin(audit, "get");
        nobody.answered(401, "Authentication failed, no credentials provided", None, true);
        nobody.forget();
    });
    let seen: Vec<(&str, &str)> = events.iter().map(|event| (event["verb"].as_str().unwrap(), event["stage"].as_str().unwrap())).collect();
    let wanted = [
        ("create", "RequestReceived"),
        ("create", "ResponseComplete"),
        ("watch", "RequestReceived"),
        ("watch", "ResponseStarted"),
        ("watch", "ResponseComplete"),
        ("get", "RequestReceived"),
        ("get", "ResponseStarted"),
    ];
    assert_eq!(seen, wanted);
    let created = &events[1];
    assert_eq!(created["annotations"], serde_json::json!({"a/b": "first"}));
    assert_eq!((&created["objectRef"]["name"], &created["impersonatedUser"]["username"]), (&"web".into(), &"bob".into()));
    assert_eq!(created["sourceIPs"], serde_json::json!(["192.0.2.7", "192.0.2.1"]));
    assert!(created["userAgent"].as_str().unwrap().ends_with("xxx...TRUNCATED"));
    assert_eq!(events[6]["responseStatus"]["message"], "Authentication failed, no credentials provided");
}

#[test]
fn what_the_policy_does_not_want_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let rules = "{level: None, verbs: [get]}, {level: Request, omitStages: [RequestReceived, ResponseStarted]}";
    let events = record(dir.path(), rules, |audit| {
        let get = begin(audit, "get");
        assert!(!get.wanted());
        get.complete();
        let patch = begin(audit, "patch");
        assert!(patch.wants_body(true) && !patch.wants_body(false));
        patch.sent(&serde_json::json!([{"op": "remove"}]));
        patch.answered(200, "", None, true);
        patch.complete();
    });
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["requestObject"], serde_json::json!([{"op": "remove"}]));
}

#[test]
fn a_burst_beyond_the_bound_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { log: Some(dir.path().join("audit.log")), ..Config::default() };
    let audit = Audit::open(&config, Live::default()).unwrap();
    let large = Bytes::from(vec![b' '; 1 << 20]);
    for _ in 0..40 {
        let create = begin(&audit, "create");
        create.answered(409, "", Some(("application/json".into(), large.clone())), false);
        create.complete();
    }
    let Counts { events, lost } = audit.counts();
    assert!(events == 40 && lost > 0 && lost < 40, "{lost} of {events}");
    drop(audit);
    let lines = std::fs::read_to_string(dir.path().join("audit.log")).unwrap().lines().count() as u64;
    assert_eq!(lines, events - lost);
}

#[test]
fn a_log_that_cannot_be_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = |log: &str, policy: Option<&str>| Config {
        log: Some(dir.path().join(log)),
        policy: policy.map(|policy| dir.path().join(policy)),
        bounds: Bounds::default(),
    };
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(Audit::open(&config("file/audit.log", None), Live::default()), Err(AuditError::Log(LogError::Open { .. }))));
    assert!(matches!(Audit::open(&config("audit.log", Some("none")), Live::default()), Err(AuditError::Policy(PolicyError::Read { .. }))));
}
