//! Garbage collection as tables of cases.

use coracle_client::Key;
use kube::core::ApiResource;

use super::*;

/// A node in words: `deleting`, `orphan`, `foreground`, `other` (finalizers), `owner=UID` (blocking), `owner~UID` (not blocking).
fn node(uid: &str, words: &str) -> Arc<Node> {
    let (mut owners, mut finalizers) = (Vec::new(), Vec::new());
    for word in words.split_whitespace() {
        match word {
            "orphan" => finalizers.push(ORPHAN.to_owned()),
            "foreground" => finalizers.push(FOREGROUND.to_owned()),
            "other" => finalizers.push("other".to_owned()),
            "deleting" => {}
            owner => owners.push(OwnerReference {
                uid: owner[6..].to_owned(),
                block_owner_deletion: Some(owner.contains('=')),
                ..OwnerReference::default()
            }),
        }
    }
    Arc::new(Node {
        kind: Arc::new(ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&())),
        key: Key::new("d", uid),
        uid: uid.into(),
        revision: 1,
        owners: owners.into(),
        finalizers: finalizers.into(),
        deleting: words.contains("deleting"),
    })
}

fn check(object: &str, owners: &[Owner], dependents: &[&str], expected: &str) {
    let node = node("x", object);
    let dependents: Vec<_> = dependents.iter().enumerate().map(|(i, words)| self::node(&format!("d{i}"), words)).collect();
    let plan = plan(&Observed { node: &node, owners, dependents: &dependents });
    let mut words: Vec<String> = Vec::new();
    for patch in &plan.patches {
        let meta = &patch.body["metadata"];
        let what = meta["ownerReferences"].as_array().map_or_else(
            || format!("finalizers {}", meta["finalizers"]),
            |owners| {
                let uids: Vec<_> = owners
                    .iter()
                    .map(|o| format!("{}{}", o["uid"].as_str().unwrap(), if o["blockOwnerDeletion"] == true { "" } else { "~" }))
                    .collect();
                format!("owners [{}]", uids.join(" "))
            },
        );
        words.push(format!("{} {what}", patch.target.key.name));
    }
    words.extend(plan.deletes.iter().map(|d| format!("delete {:?}", d.propagation.clone().unwrap())));
    words.extend(plan.waiting.iter().map(ToString::to_string));
    assert_eq!(words.join(", "), expected, "{object} {dependents:?}");
}

#[test]
fn an_object_goes_with_its_last_owner() {
    use Owner::{Absent, Leaving, Solid};
    check("", &[], &[], "");
    check("owner=a", &[Solid], &[], "");
    check("owner=a", &[Absent], &[], "delete Background");
    check("owner=a owner=b", &[Absent, Absent], &[], "delete Background");
    check("owner=a owner=b", &[Absent, Solid], &[], "x owners [b]");
    check("owner=a owner=b", &[Solid, Leaving], &[], "x owners [a]");
    check("deleting other owner=a", &[Absent], &[], "");
    check("orphan owner=a", &[Absent], &[], "delete Orphan");
    check("foreground owner=a", &[Absent], &[], "delete Foreground");
}

#[test]
fn foreground_waits_for_those_that_block() {
    check("deleting foreground", &[], &[], "x finalizers []");
    check("deleting foreground other", &[], &["owner~x"], r#"x finalizers ["other"]"#);
    check("deleting foreground", &[], &["owner=x", "owner=x deleting", "owner~x"], "2 dependents are still there");
    check("owner=a", &[Owner::Leaving], &[], "delete Background");
    check("owner=a", &[Owner::Leaving], &["owner=x"], "delete Foreground");
}

#[test]
fn a_circle_of_waiting_is_opened() {
    check("owner=a", &[Owner::Leaving], &["deleting foreground owner=x"], "x owners [a~], delete Foreground");
    check("owner~a", &[Owner::Leaving], &["deleting foreground owner=x"], "delete Foreground");
}

#[test]
fn orphans_are_let_go_before_their_owner_goes() {
    check("deleting orphan", &[], &["owner=x owner=b", "owner~x"], "d0 owners [b], d1 owners [], 2 dependents are still there");
    check("deleting orphan", &[], &[], "x finalizers []");
}
