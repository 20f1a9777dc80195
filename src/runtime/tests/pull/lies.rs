//! Registries that lie, and stumble: each lie is told as what it is, and leaves nothing behind.

use coracle_runtime::{
    PullError,
    images::{Digest, PullOptions},
};

use crate::{
    registry::{Lie, Registry, gzip, layer},
    store,
};

/// An image of one layer, and the digest of the layer's blob.
fn registry() -> (Registry, Digest) {
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1")]);
    (registry, Digest::of(&gzip(&layer("a", "1"))))
}

async fn pulled(registry: &Registry) -> Result<(), PullError> {
    let (dir, store) = store();
    let result = store.pull(&registry.name("one"), &PullOptions::default()).await;
    assert_eq!(store.list().unwrap().len(), usize::from(result.is_ok()));
    assert_eq!(std::fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0, "nothing half-written stays");
    result.map(drop)
}

fn corrupt(result: Result<(), PullError>, wants: &[&str]) {
    match result {
        Err(PullError::Corrupt(why)) => assert!(wants.iter().all(|want| why.contains(want)), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn lengths_that_are_not_those_of_the_manifest_are_refused() {
    for bytes in [1, 1 << 40] {
        let (registry, blob) = registry();
        registry.lie(&format!("/v2/app/blobs/{blob}"), Lie::Length(bytes), usize::MAX);
        corrupt(pulled(&registry).await, &[blob.as_str(), &bytes.to_string(), "manifest says"]);
    }
}

#[tokio::test]
async fn bodies_without_an_end_are_cut_off() {
    let (one, blob) = registry();
    one.lie(&format!("/v2/app/blobs/{blob}"), Lie::Endless, usize::MAX);
    corrupt(pulled(&one).await, &["more than"]);
    let (other, _) = registry();
    other.lie("/v2/app/manifests/", Lie::Endless, usize::MAX);
    corrupt(pulled(&other).await, &["more than 4194304 bytes"]);
}

#[tokio::test]
async fn a_request_is_not_sent_round_for_ever() {
    let (registry, blob) = registry();
    let path = format!("/v2/app/blobs/{blob}");
    registry.lie(&path, Lie::Moved(path.clone()), usize::MAX);
    match pulled(&registry).await {
        Err(PullError::Refused(why)) => assert!(why.contains("sent on and on"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(registry.questions().iter().filter(|asked| **asked == path).count() < 20);
}

#[tokio::test]
async fn a_blob_that_lies_elsewhere_is_fetched_there() {
    let (registry, blob) = registry();
    registry.put("/storage/blob", "application/octet-stream", gzip(&layer("a", "1")));
    registry.lie(&format!("/v2/app/blobs/{blob}"), Lie::Moved("/storage/blob?signature=x".to_owned()), usize::MAX);
    pulled(&registry).await.unwrap();
}

#[tokio::test]
async fn a_registry_that_stumbles_is_asked_again_and_one_that_lies_down_is_given_up() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "502 Bad Gateway"] {
        let (registry, blob) = registry();
        registry.lie("/v2/app/manifests/one", Lie::Status(status), 2);
        registry.lie(&format!("/v2/app/blobs/{blob}"), Lie::Status(status), 2);
        pulled(&registry).await.unwrap();
    }
    let (registry, _) = registry();
    registry.lie("/v2/app/manifests/one", Lie::Status("503 Service Unavailable"), usize::MAX);
    match pulled(&registry).await {
        Err(PullError::Unavailable(why)) => assert!(why.contains("503"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// Puts a manifest as `app:one`.
fn put(registry: &Registry, manifest: &serde_json::Value) {
    registry.put("/v2/app/manifests/one", "application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes());
}

#[tokio::test]
async fn manifests_that_cannot_be_are_refused() {
    let digest = Digest::of(b"x");
    let config = serde_json::json!({"digest": digest, "size": 1, "mediaType": "x"});
    let huge = serde_json::json!({"digest": digest, "size": 1u64 << 40, "mediaType": "x"});
    for (manifest, want) in [
        (serde_json::json!("text"), "manifest"),
        (serde_json::json!({"schemaVersion": 2, "config": {"digest": "sha256:../../etc/passwd", "size": 1}}), "not a sha256 digest"),
        (serde_json::json!({"schemaVersion": 2, "config": {"digest": "md5:00", "size": 1}}), "not a sha256 digest"),
        (serde_json::json!({"schemaVersion": 2, "config": {"digest": digest, "size": -1}}), "manifest"),
        (serde_json::json!({"schemaVersion": 2, "config": huge}), "is refused"),
        (serde_json::json!({"schemaVersion": 2, "config": config, "layers": vec![config.clone(); 501]}), "501 layers"),
    ] {
        let (registry, _) = registry();
        put(&registry, &manifest);
        corrupt(pulled(&registry).await, &[want]);
    }
    let (registry, _) = registry();
    put(&registry, &serde_json::json!({"schemaVersion": 1, "fsLayers": []}));
    match pulled(&registry).await {
        Err(PullError::Refused(why)) => assert!(why.contains("schema 1"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_index_that_holds_itself_is_given_up() {
    let (registry, _) = registry();
    // An index cannot hold its own digest, but a registry can give any bytes for it; these are found out.
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"digest": Digest::of(b"itself"), "size": 0, "platform": {"os": "linux", "architecture": arch}}]});
    put(&registry, &index);
    registry.put(
        &format!("/v2/app/manifests/{}", Digest::of(b"itself")),
        "application/vnd.oci.image.index.v1+json",
        index.to_string().into_bytes(),
    );
    corrupt(pulled(&registry).await, &["for sha256:"]);
}
