//! The cache keeps its indexes in step with its objects.

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::OwnerReference};

use super::*;

fn object(namespace: &str, name: &str, owners: &[&str], data: &str) -> Arc<ConfigMap> {
    let mut map = ConfigMap::default();
    map.metadata.namespace = Some(namespace.into());
    map.metadata.name = Some(name.into());
    map.metadata.owner_references = Some(owners.iter().map(|uid| OwnerReference { uid: (*uid).into(), ..Default::default() }).collect());
    map.data = Some([("k".to_owned(), data.to_owned())].into());
    Arc::new(map)
}

fn by_data(map: &ConfigMap) -> Vec<String> {
    map.data.iter().flatten().map(|(_, v)| v.clone()).collect()
}

fn names(found: Vec<Arc<ConfigMap>>) -> Vec<String> {
    found.iter().map(|m| Key::of(&**m).to_string()).collect()
}

#[test]
fn objects_are_found_by_key_namespace_owner_and_index() {
    let lister = Lister { cache: Arc::new(RwLock::new(Cache::default())) };
    let put = |o| lister.cache.write().unwrap().put(o);
    put(object("a", "x", &["u1", "u2"], "red"));
    lister.cache.write().unwrap().index("data", by_data);
    put(object("a", "y", &["u1"], "blue"));
    put(object("ab", "x", &[], "red"));
    assert_eq!(names(lister.namespace("a")), ["a/x", "a/y"]);
    assert_eq!(names(lister.namespace("b")), [""; 0]);
    assert_eq!(names(lister.owned_by("u1")), ["a/x", "a/y"]);
    assert_eq!(names(lister.indexed("data", "red")), ["a/x", "ab/x"]);
    assert_eq!(names(lister.indexed("none", "red")), [""; 0]);

    assert!(put(object("a", "x", &["u2"], "blue")).is_some());
    assert_eq!(names(lister.owned_by("u1")), ["a/y"]);
    assert_eq!(names(lister.indexed("data", "red")), ["ab/x"]);

    lister.cache.write().unwrap().take(&Key::new("a", "x"));
    assert_eq!(lister.len(), 2);
    let cache = lister.cache.read().unwrap();
    assert_eq!(cache.owners.keys().collect::<Vec<_>>(), ["u1"]);
    assert_eq!(cache.indexes[0].entries.len(), 2);
}
