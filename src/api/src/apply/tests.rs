//! Server-side apply over real kinds, and the laws of its sets.

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::{collect::collect, fieldsv1, *};
use crate::{
    catalogue::{self, builtin},
    defaulting, structural,
};

const NOW: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

/// The versions of a built-in kind.
struct Builtin(&'static str);

impl Builtin {
    fn resource(&self, version: &str) -> Option<&'static Arc<catalogue::Resource>> {
        builtin().resources().iter().find(|r| r.plural == self.0 && r.api_version() == version)
    }
}

impl Versions for Builtin {
    fn schema(&self, version: &str) -> Option<Arc<Schema>> {
        self.resource(version).map(|r| Arc::clone(&r.schema))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        Some(catalogue::convert(self.resource(from)?, self.resource(to)?, object.clone()))
    }
}

/// An object and its managers, as a server would keep them.
struct World {
    plural: &'static str,
    object: Option<Value>,
    managers: Managers,
}

impl World {
    fn new(plural: &'static str) -> Self {
        Self { plural, object: None, managers: Managers::default() }
    }

    fn settle(&mut self, version: &str, mut object: Value) {
        let resource = Builtin(self.plural).resource(version).unwrap();
        structural::prune(&resource.schema, &mut object).unwrap();
        defaulting::apply(resource, &mut object);
        object["metadata"]["uid"] = "u".into();
        self.object = Some(object);
    }

    fn live(&self, version: &str) -> Value {
        let resource = Builtin(self.plural).resource(version).unwrap();
        match &self.object {
            Some(object) => {
                let from = object["apiVersion"].as_str().unwrap();
                Builtin(self.plural).convert(object, from, version).unwrap()
            }
            None => structural::zero(&resource.schema),
        }
    }

    fn update(&mut self, manager: &str, now: &str, new: &Value) -> &mut Self {
        let version = new["apiVersion"].as_str().unwrap();
        let (old, resource) = (self.live(version), Builtin(self.plural).resource(version).unwrap());
        self.settle(version, new.clone());
        let act = Act { manager, api_version: version, subresource: "", now, reach: &Reach::Whole };
        let new = self.object.clone().unwrap();
        self.managers = track(&resource.schema, &old, &new, std::mem::take(&mut self.managers), &act, &Builtin(self.plural));
        self
    }

    fn try_apply(&mut self, manager: &str, now: &str, force: bool, config: &Value) -> Result<(), ApplyError> {
        let version = config["apiVersion"].as_str().unwrap();
        let (live, resource) = (self.live(version), Builtin(self.plural).resource(version).unwrap());
        let act = Act { manager, api_version: version, subresource: "", now, reach: &Reach::Whole };
        let applied = apply(&resource.schema, &live, config, self.managers.clone(), &act, force, &Builtin(self.plural))?;
        self.managers = applied.managers;
        self.settle(version, applied.object);
        Ok(())
    }

    fn apply(&mut self, manager: &str, config: &Value) -> &mut Self {
        self.try_apply(manager, NOW, false, config).unwrap();
        self
    }

    fn conflicts(&mut self, manager: &str, config: &Value) -> Vec<String> {
        match self.try_apply(manager, NOW, false, config) {
            Err(ApplyError::Conflicts(conflicts)) => conflicts.iter().map(|c| format!("{} {}", c.manager, c.path)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// `manager operation fields`, in the order of managedFields.
    fn managed(&self) -> Vec<(String, Value)> {
        let entries = self.managers.clone().write();
        let entries = entries.as_array().cloned().unwrap_or_default();
        let entry = |e: Value| (format!("{} {}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap()), e["fieldsV1"].clone());
        entries.into_iter().map(entry).collect()
    }

    fn expect(&self, want: &[(&str, Value)]) {
        let want: Vec<(String, Value)> = want.iter().map(|(name, fields)| ((*name).to_owned(), fields.clone())).collect();
        assert_eq!(self.managed(), want);
    }
}

fn map(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

#[test]
fn a_field_that_another_manager_set_is_a_conflict() {
    let mut world = World::new("configmaps");
    world.update("up", NOW, &map(&json!({"x": "1"})));
    world.expect(&[("up Update", json!({"f:data": {".": {}, "f:x": {}}}))]);
    assert_eq!(world.conflicts("one", &map(&json!({"x": "2"}))), ["\"up\" using v1 .data.x"]);
    world.try_apply("one", NOW, true, &map(&json!({"x": "2", "y": "1"}))).unwrap();
    world.expect(&[("one Apply", json!({"f:data": {"f:x": {}, "f:y": {}}})), ("up Update", json!({"f:data": {}}))]);
    world.update("up", LATER, &map(&json!({"x": "5"})));
    world.expect(&[("up Update", json!({"f:data": {".": {}, "f:x": {}}}))]);
}

#[test]
fn the_same_value_is_shared_and_the_last_to_give_it_up_removes_it() {
    let mut world = World::new("configmaps");
    world.apply("one", &map(&json!({"x": "1"}))).apply("two", &map(&json!({"x": "1"})));
    let times: Vec<bool> = world.managers.entries().iter().map(|e| e.time.is_some()).collect();
    assert_eq!(times, [true, false], "who only claims what is there changes nothing");
    world.apply("one", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert_eq!(world.object.as_ref().unwrap()["data"], json!({"x": "1"}));
    world.apply("two", &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}));
    assert_eq!(world.object.as_ref().unwrap().get("data"), None);
    world.expect(&[]);
}

#[test]
fn elements_of_keyed_lists_belong_to_who_applied_them() {
    let deployment = |containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"template": {"spec": {"containers": containers}}}})
    };
    let mut world = World::new("deployments");
    world.apply("one", &deployment(json!([{"name": "a", "image": "i:1"}, {"name": "b", "image": "i:1"}])));
    world.apply("two", &deployment(json!([{"name": "a", "env": [{"name": "E", "value": "1"}]}])));
    world.apply("one", &deployment(json!([{"name": "a", "image": "i:1"}])));
    let containers = &world.object.as_ref().unwrap()["spec"]["template"]["spec"]["containers"];
    assert_eq!((containers.as_array().unwrap().len(), &containers[0]["env"][0]["value"]), (1, &json!("1")));
    let conflicts = world.conflicts("two", &deployment(json!([{"name": "a", "image": "other"}])));
    assert_eq!(conflicts, ["\"one\" .spec.template.spec.containers[name=\"a\"].image"]);
    let of_two =
        json!({"k:{\"name\":\"a\"}": {".": {}, "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}, "f:name": {}}});
    assert_eq!(world.managed()[1].1["f:spec"]["f:template"]["f:spec"]["f:containers"], of_two);
}

#[test]
fn a_key_that_is_not_given_has_its_default() {
    let mut world = World::new("services");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 53, "name": "t"}, {"port": 53, "name": "u", "protocol": "UDP"}]}});
    world.apply("one", &service);
    world.expect(&[(
        "one Apply",
        json!({"f:spec": {"f:ports": {"k:{\"port\":53,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}},
            "k:{\"port\":53,\"protocol\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}}}}),
    )]);
}

#[test]
fn kubectl_takes_over_what_its_client_side_applied() {
    let annotated = |data: Value, last: Value| {
        let mut object = map(&data);
        object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": map(&last).to_string()});
        object
    };
    let mut world = World::new("configmaps");
    world.update("kubectl-client-side-apply", NOW, &annotated(json!({"x": "1", "y": "1"}), json!({"x": "1", "y": "1"})));
    world.apply("kubectl", &map(&json!({"x": "2"})));
    let object = world.object.clone().unwrap();
    let last = object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(last, "{\"apiVersion\":\"v1\",\"data\":{\"x\":\"2\"},\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"a\"}}\n");
    assert_eq!(object["data"], json!({"x": "2", "y": "1"}));
    // Anybody else has a conflict there.
    assert_eq!(world.conflicts("other", &map(&json!({"y": "2"}))).len(), 1);
}

#[test]
fn an_object_that_nobody_manages_gets_a_manager_at_its_first_apply() {
    let mut world = World::new("configmaps");
    world.settle("v1", map(&json!({"x": "1"})));
    world.update("up", NOW, &map(&json!({"x": "2"})));
    world.expect(&[]);
    assert_eq!(world.conflicts("one", &map(&json!({"x": "3"}))), ["\"before-first-apply\" using v1 .data.x"]);
    world.apply("one", &map(&json!({"x": "2"})));
    world.expect(&[("one Apply", json!({"f:data": {"f:x": {}}})), ("before-first-apply Update", json!({"f:data": {".": {}, "f:x": {}}}))]);
}

#[test]
fn the_oldest_updaters_become_one() {
    let mut world = World::new("configmaps");
    world.update("m0", NOW, &map(&json!({"k0": "1"})));
    for i in 1..12 {
        let mut data = world.object.clone().unwrap()["data"].clone();
        data[format!("k{i}")] = "1".into();
        world.update(&format!("m{i}"), &format!("2026-01-01T00:00:{i:02}Z"), &map(&data));
    }
    let managed = world.managed();
    assert_eq!(managed.len(), 10);
    assert_eq!(managed[0], ("ancient-changes Update".into(), json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}})));
}

#[test]
fn a_manager_that_changes_its_version_keeps_its_fields() {
    let scaler = |version: &str, spec: Value| {
        let mut spec = spec;
        spec["maxReplicas"] = 3.into();
        spec["scaleTargetRef"] = json!({"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"});
        json!({"apiVersion": version, "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"}, "spec": spec})
    };
    let mut world = World::new("horizontalpodautoscalers");
    world.apply("one", &scaler("autoscaling/v1", json!({"minReplicas": 2})));
    let v2 = scaler("autoscaling/v2", json!({}));
    world.apply("one", &v2);
    assert_eq!(world.managers.entries().len(), 1);
    assert_eq!(world.object.as_ref().unwrap()["spec"]["minReplicas"], 1, "given up, so it has its default again");
}

#[test]
fn a_list_that_became_atomic_is_owned_as_a_whole() {
    let schema = &builtin().resource("apps", "v1", "deployments").unwrap().schema;
    let old = fieldsv1::decode(&json!({"f:spec": {"f:selector": {"f:matchLabels": {"f:app": {}}}, "f:replicas": {}}})).unwrap();
    let new = remove::in_line(schema, &old).unwrap();
    assert_eq!(fieldsv1::encode(&new), json!({"f:spec": {"f:selector": {}, "f:replicas": {}}}));
    assert_eq!(remove::in_line(schema, &new), None);
}

#[test]
fn scale_shares_the_replicas_with_its_object() {
    let at = |version: &str| (version == "apps/v1").then(|| Path::of_names(&["spec", "replicas"]));
    let parent = json!([{"manager": "c", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:replicas": {}, "f:paused": {}}}}]);
    let parent = Managers::read(&parent).unwrap();
    let scale = to_scale(&parent, &at);
    assert_eq!(scale.entries().len(), 1);
    assert_eq!(from_scale(&parent, scale.clone(), "apps/v1", &at), parent, "nothing changed");
    let act = Act { manager: "hpa", api_version: "autoscaling/v1", subresource: "scale", now: NOW, reach: &Reach::Whole };
    let fields = FieldSet::of_paths([&Path::of_names(&REPLICAS_IN_SCALE)]);
    let mut taken = Managers::default();
    taken.put(Entry::new(Id::new(&act, false), "autoscaling/v1", Some(NOW.into()), fields));
    let after = from_scale(&parent, taken, "apps/v1", &at).write();
    assert_eq!(after.as_array().unwrap().len(), 2);
    assert_eq!(
        after[0],
        json!({"manager": "hpa", "operation": "Update", "apiVersion": "apps/v1", "subresource": "scale", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}}}})
    );
    assert_eq!(after[1]["fieldsV1"], json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn names_of_managers_come_from_the_user_agent() {
    for (agent, name) in [("kubectl/v1.36 (linux)", "kubectl"), ("", ""), ("a\u{7}b/1", "ab"), (&"x".repeat(200), &"x".repeat(128))] {
        assert_eq!(Act::name_of(agent), name);
    }
}

#[test]
fn managed_fields_that_are_wrong_are_refused() {
    for wrong in [
        json!({}),
        json!([{"operation": "Delete"}]),
        json!([{"operation": "Apply"}]),
        json!([{"operation": "Apply", "apiVersion": "v1"}]),
        json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": []}]),
        json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": 1}}]),
        json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"a": {}}}]),
    ] {
        assert!(Managers::read(&wrong).is_err(), "{wrong}");
    }
    assert!(is_reset(&json!([])) && is_reset(&json!([{}])) && !is_reset(&json!(null)) && !is_reset(&json!([{"manager": "a"}])));
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[a-c]".prop_map(|name| Element::field(&name)),
        "[a-c]".prop_map(|name| Element::key(json!({"name": name}).as_object().unwrap().clone())),
        "[a-c]".prop_map(|value| Element::value(&value.into())),
    ]
}

fn set() -> impl Strategy<Value = FieldSet> {
    vec(vec(element(), 1..4).prop_map(Path), 0..12).prop_map(|paths| FieldSet::of_paths(&paths))
}

/// Configurations of a Deployment over few names, so that managers meet.
fn config() -> impl Strategy<Value = Value> {
    let labels = proptest::option::of(proptest::collection::btree_map("[a-c]", "[xy]", 1..3));
    let env = vec(("[a-c]", "[xy]"), 0..3);
    let container = ("[ab]", proptest::option::of("[xy]"), env);
    (labels, proptest::option::of(0..2i32), vec(container, 0..3)).prop_map(|(labels, replicas, containers)| {
        let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        if let Some(labels) = labels {
            out["metadata"]["labels"] = json!(labels);
        }
        if let Some(replicas) = replicas {
            out["spec"]["replicas"] = replicas.into();
        }
        let mut seen: Vec<Value> = Vec::new();
        for (name, image, env) in containers {
            if seen.iter().any(|c| c["name"] == name) {
                continue;
            }
            // Its default would depend on the image and outlive it.
            let mut container = json!({"name": name, "imagePullPolicy": "Always"});
            if let Some(image) = image {
                container["image"] = image.into();
            }
            let env: std::collections::BTreeMap<String, String> = env.into_iter().collect();
            if !env.is_empty() {
                container["env"] = env.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            }
            seen.push(container);
        }
        if !seen.is_empty() {
            out["spec"]["template"]["spec"]["containers"] = seen.into();
        }
        out
    })
}

/// A Deployment that somebody manages already, so that nobody has its defaults for their own.
fn seeded() -> World {
    let mut world = World::new("deployments");
    let metadata = json!({"name": "d", "annotations": {"seed": "1"}});
    world.apply("seed", &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata}));
    world
}

fn fields_of(config: &Value) -> FieldSet {
    update::managed(&collect(&builtin().resource("apps", "v1", "deployments").unwrap().schema, config))
}

proptest! {
    #[test]
    fn sets_obey_the_laws_of_sets((a, b, c) in (set(), set(), set())) {
        let empty = FieldSet::default();
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.union(&b).union(&c), a.union(&b.union(&c)));
        prop_assert_eq!(a.intersection(&b), b.intersection(&a));
        prop_assert_eq!(a.union(&a), a.clone());
        prop_assert_eq!(a.intersection(&a), a.clone());
        prop_assert_eq!(a.difference(&a), empty.clone());
        prop_assert_eq!(a.union(&empty), a.clone());
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        prop_assert_eq!(a.intersection(&b.union(&c)), a.intersection(&b).union(&a.intersection(&c)));
        prop_assert_eq!(a.difference(&b.union(&c)), a.difference(&b).difference(&c));
        prop_assert_eq!(a.meets(&b), !a.intersection(&b).is_empty());
        prop_assert_eq!(a.without(&b).difference(&a), empty);
        prop_assert!(!a.without(&b).meets(&b));
    }

    #[test]
    fn sets_are_their_paths(a in set(), b in set()) {
        let paths = |s: &FieldSet| s.paths().into_iter().collect::<std::collections::BTreeSet<_>>();
        prop_assert_eq!(&FieldSet::of_paths(&a.paths()), &a);
        prop_assert_eq!(paths(&a.union(&b)), &paths(&a) | &paths(&b));
        prop_assert_eq!(paths(&a.intersection(&b)), &paths(&a) & &paths(&b));
        prop_assert_eq!(paths(&a.difference(&b)), &paths(&a) - &paths(&b));
        prop_assert!(a.paths().iter().all(|path| a.contains(&path.0)));
    }

    #[test]
    fn sets_survive_their_json(a in set()) {
        prop_assert_eq!(fieldsv1::decode(&fieldsv1::encode(&a)).unwrap(), a);
    }

    #[test]
    fn garbage_is_refused_and_not_a_panic(text in ".*", inner in ".*") {
        let _ = Element::parse(&text);
        let _ = fieldsv1::decode(&json!({(text): {(inner): {}}}));
    }

    #[test]
    fn applying_twice_is_applying_once(a in config(), b in config()) {
        let mut world = seeded();
        world.apply("a", &a);
        world.try_apply("b", NOW, true, &b).unwrap();
        let (object, managers) = (world.object.clone(), world.managers.clone());
        world.try_apply("b", LATER, false, &b).unwrap();
        prop_assert_eq!(&world.object, &object);
        prop_assert_eq!(&world.managers, &managers, "not even a time has changed");
    }

    #[test]
    fn what_is_given_up_goes(a in config(), b in config()) {
        let mut world = seeded();
        world.apply("a", &a).apply("a", &b);
        let mut fresh = seeded();
        fresh.apply("a", &b);
        prop_assert_eq!(&world.object, &fresh.object);
        prop_assert_eq!(world.managed(), fresh.managed());
    }

    #[test]
    fn managers_of_disjoint_fields_do_not_meet(a in config(), b in config()) {
        let mut world = seeded();
        world.apply("a", &a);
        let result = world.try_apply("b", NOW, false, &b);
        if !fields_of(&a).meets(&fields_of(&b)) {
            prop_assert!(result.is_ok());
        }
        if let Err(ApplyError::Conflicts(conflicts)) = result {
            let (of_a, of_b) = (fields_of(&a), fields_of(&b));
            prop_assert!(conflicts.iter().all(|c| of_a.contains(&c.path.0) && of_b.contains(&c.path.0)), "{:?}", conflicts);
        }
    }

    #[test]
    fn the_last_to_force_owns_what_it_says(a in config(), b in config()) {
        let mut world = seeded();
        world.apply("a", &a);
        world.try_apply("b", NOW, true, &b).unwrap();
        let act = Act { manager: "b", api_version: "apps/v1", subresource: "", now: NOW, reach: &Reach::Whole };
        let owned = world.managers.get(&Id::new(&act, true)).map(|e| e.fields().clone()).unwrap_or_default();
        prop_assert_eq!(owned, fields_of(&b));
    }
}
