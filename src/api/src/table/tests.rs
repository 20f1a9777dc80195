//! Cases of table cells.

use serde_json::json;

use super::*;
use crate::catalogue::builtin;

fn check(group: &str, plural: &str, mut object: Value, expected: Value) {
    let resource = builtin().resources().iter().find(|r| r.group == group && r.plural == plural).unwrap();
    object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let now = "2026-01-01T00:05:00Z".parse().unwrap();
    assert_eq!(Value::from(row(resource, &object, now)), expected);
}

#[test]
fn pods_in_one_word() {
    let pod = |status: Value| json!({"metadata": {"name": "p"}, "spec": {"containers": [{}], "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status});
    for (status, cells) in [
        (json!({"phase": "Pending"}), ["0/1", "Pending", "0"]),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}),
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}),
            ["0/1", "Init:1/2", "1"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"ready": true, "restartCount": 0, "state": {"running": {}}}]}),
            ["1/1", "Running", "0"],
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T00:04:00Z"}}}]}),
            ["0/1", "CrashLoopBackOff", "5 (60s ago)"],
        ),
        (json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}), ["0/1", "ExitCode:3", "0"]),
    ] {
        let [ready, word, restarts] = cells;
        check("", "pods", pod(status), json!(["p", ready, word, restarts, "5m", "<none>", "<none>", "<none>", "<none>"]));
    }
}

#[test]
fn services_by_type() {
    let service = |spec: Value| json!({"metadata": {"name": "s"}, "spec": spec});
    for (spec, cells) in [
        (
            json!({"type": "ClusterIP", "clusterIP": "10.43.0.1", "ports": [{"port": 80, "protocol": "TCP"}], "selector": {"app": "a"}}),
            json!(["s", "ClusterIP", "10.43.0.1", "<none>", "80/TCP", "5m", "app=a"]),
        ),
        (
            json!({"type": "ExternalName", "externalName": "x.test"}),
            json!(["s", "ExternalName", "<none>", "x.test", "<none>", "5m", "<none>"]),
        ),
        (
            json!({"type": "LoadBalancer", "clusterIP": "10.43.0.2", "ports": [{"port": 80, "nodePort": 30000, "protocol": "TCP"}]}),
            json!(["s", "LoadBalancer", "10.43.0.2", "<pending>", "80:30000/TCP", "5m", "<none>"]),
        ),
    ] {
        check("", "services", service(spec), cells);
    }
}

#[test]
fn ages() {
    for (seconds, age) in [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (301, "5m1s"),
        (3600, "60m"),
        (4 * 3600 + 60, "4h1m"),
        (49 * 3600, "2d1h"),
        (100 * 86_400, "100d"),
        (800 * 86_400, "2y70d"),
    ] {
        assert_eq!(text::duration(seconds), age);
    }
}

#[test]
fn every_row_has_a_cell_for_each_column() {
    for resource in builtin().resources() {
        let printer = printers().get(&(resource.group.as_str(), resource.plural.as_str()));
        let empty = json!({});
        if let Some(print) = printer {
            assert_eq!(
                print(&Seen { object: &empty, now: Timestamp::UNIX_EPOCH }).len(),
                resource.columns.len(),
                "{}",
                resource.qualified()
            );
        }
        let plain = ["Name", "Created At"];
        assert!(
            printer.is_some() || resource.columns.iter().map(|c| c.name.as_str()).eq(plain) || resource.plural == "componentstatuses",
            "{}",
            resource.qualified()
        );
    }
}

#[test]
fn paths_of_custom_columns() {
    let object = json!({"a": {"b.c": [{"d": 1}]}});
    assert_eq!(custom::find(&object, r".a.b\.c[0].d"), Some(&json!(1)));
    assert_eq!(custom::find(&object, ".a['b.c'][0].d"), Some(&json!(1)));
    assert_eq!(custom::find(&object, ".a.x"), None);
    let object = json!({"c": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False", "n": 2}]});
    for (path, found) in [
        (r#".c[?(@.type=="Old")].status"#, json!("False")),
        (".c[?(@.n >= 2)].type", json!("Old")),
        (".c[*].status", json!("True")),
        (".c[-1].type", json!("Old")),
        ("{.c[0].type}", json!("Ready")),
    ] {
        assert_eq!(custom::find(&object, path), Some(&found), "{path}");
    }
    assert_eq!(custom::find(&object, r#".c[?(@.type=="No")].status"#), None);
}
