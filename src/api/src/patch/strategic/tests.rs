//! Cases of strategic merge, on the schema of Deployments.

use serde_json::json;

use super::*;
use crate::catalogue;

fn check(name: &str, mut object: Value, patch: Value, want: Value) {
    let deployment = catalogue::builtin().resource("apps", "v1", "deployments").expect("a built-in kind");
    strategic(&deployment.schema, &mut object, &patch).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(object, want, "{name}");
}

fn containers(list: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": list}}}})
}

#[test]
fn lists_merge_by_their_key() {
    let have = containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
    check(
        "an element changes in its place",
        have.clone(),
        containers(json!([{"name": "b", "image": "2"}])),
        containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])),
    );
    check(
        "a new element comes first",
        have.clone(),
        containers(json!([{"name": "c"}])),
        containers(json!([{"name": "c"}, {"name": "a", "image": "1"}, {"name": "b", "image": "1"}])),
    );
    check(
        "or after the one that it is named after",
        have.clone(),
        containers(json!([{"name": "a", "image": "2"}, {"name": "c"}])),
        containers(json!([{"name": "a", "image": "2"}, {"name": "c"}, {"name": "b", "image": "1"}])),
    );
    check(
        "an element is deleted",
        have.clone(),
        containers(json!([{"name": "a", "$patch": "delete"}])),
        containers(json!([{"name": "b", "image": "1"}])),
    );
    check(
        "a list is replaced",
        have.clone(),
        containers(json!([{"$patch": "replace"}, {"name": "z"}])),
        containers(json!([{"name": "z"}])),
    );
    check("null removes", have, json!({"spec": {"template": {"spec": {"containers": null}}}}), json!({"spec": {"template": {"spec": {}}}}));
}

#[test]
fn order_follows_the_directive() {
    let have = containers(json!([{"name": "server"}, {"name": "a"}, {"name": "b"}]));
    let patch = json!({"spec": {"template": {"spec": {
        "$setElementOrder/containers": [{"name": "b"}, {"name": "new"}, {"name": "a"}],
        "containers": [{"name": "new"}],
    }}}});
    check(
        "named ones in their order",
        have.clone(),
        patch,
        containers(json!([{"name": "server"}, {"name": "b"}, {"name": "new"}, {"name": "a"}])),
    );
    let only_order = json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}}});
    check("without other changes", have, only_order, containers(json!([{"name": "server"}, {"name": "b"}, {"name": "a"}])));
}

#[test]
fn sets_of_scalars_unite() {
    let have = json!({"metadata": {"finalizers": ["a", "b"]}});
    check("union", have.clone(), json!({"metadata": {"finalizers": ["b", "c"]}}), json!({"metadata": {"finalizers": ["a", "b", "c"]}}));
    check("removal", have, json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), json!({"metadata": {"finalizers": ["b"]}}));
}

#[test]
fn lists_without_a_strategy_are_replaced() {
    let have = containers(json!([{"name": "a", "args": ["1", "2"]}]));
    check("args", have, containers(json!([{"name": "a", "args": ["3"]}])), containers(json!([{"name": "a", "args": ["3"]}])));
}

#[test]
fn retained_keys_push_the_others_out() {
    let have = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    check("strategy", have, patch, json!({"spec": {"strategy": {"type": "Recreate"}}}));
}

#[test]
fn directives_of_objects() {
    let have = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    check(
        "replace",
        have.clone(),
        json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}),
        json!({"metadata": {"labels": {"c": "3"}}}),
    );
    check(
        "merge",
        have.clone(),
        json!({"metadata": {"labels": {"a": null, "c": "3"}}}),
        json!({"metadata": {"labels": {"b": "2", "c": "3"}}}),
    );
    check("delete", have, json!({"metadata": {"labels": {"$patch": "delete"}}}), json!({"metadata": {"labels": {}}}));
}

#[test]
fn malformed_patches_say_where() {
    let schema = &catalogue::builtin().resource("apps", "v1", "deployments").expect("a built-in kind").schema;
    let have = json!({"spec": {"strategy": {"type": "Recreate"}, "template": {"spec": {"containers": []}}}});
    for (patch, word) in [
        (json!([]), "is an object"),
        (json!({"spec": {"$patch": "explode"}}), "spec: Unknown patch type"),
        (containers(json!([{"image": "x"}])), "\"name\""),
        (containers(json!([1])), "spec.template.spec.containers: "),
        (json!({"spec": {"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}}), "$retainKeys lacks \"type\""),
    ] {
        let error = strategic(schema, &mut have.clone(), &patch).expect_err("refused").to_string();
        assert!(error.contains(word), "{error:?} has {word:?}");
    }
}

#[test]
fn where_there_is_nothing_directives_say_nothing() {
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    for word in ["delete", "replace", "bogus"] {
        check(word, json!({"metadata": {}}), labels(json!({"$patch": word, "c": "3"})), json!({"metadata": {}}));
    }
    check("no nulls", json!({}), labels(json!({"a": null, "b": "1"})), labels(json!({"b": "1"})));
    check("in place of a text", json!({"metadata": "x"}), labels(json!({"b": "1"})), labels(json!({"b": "1"})));
}

#[test]
fn long_lists_merge_in_time() {
    let list = |image: &str| -> Value { (0..30_000).map(|i| json!({"name": format!("c{i}"), "image": image})).collect() };
    let merge = || check("each by its key", containers(list("1")), containers(list("2")), containers(list("2")));
    assert!(crate::effort::seconds(merge) < 20);
}
