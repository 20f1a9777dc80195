//! Pulls from a registry on loopback: over TLS and without, with tokens and passwords, from one that breaks off and one that lies.

mod lies;
mod mirrors;
mod registry;

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
};

use coracle_runtime::{
    Credentials, PullError,
    images::{Digest, ImageStore, Progress, PullOptions, Registries},
};

use crate::registry::{Lock, Registry, gzip, layer};

fn store() -> (tempfile::TempDir, Arc<ImageStore>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(ImageStore::open(dir.path()).unwrap());
    (dir, store)
}

#[tokio::test]
async fn an_image_comes_by_its_index_and_shared_layers_come_once() {
    let registry = Registry::new();
    let layers: Vec<Vec<u8>> = (0..5).map(|n| layer(&format!("file{n}"), "text")).collect();
    registry.push("one", &layers);
    registry.push("two", &[layers.clone(), vec![layer("more", "x")]].concat());
    let (_dir, store) = store();
    let told = Arc::new(Mutex::new(Progress::default()));
    let listener = Arc::clone(&told);
    let options = PullOptions { progress: Some(Arc::new(move |progress| *listener.lock().unwrap() = progress)), ..PullOptions::default() };
    let image = store.pull(&registry.name("one"), &options).await.unwrap();
    assert_eq!(image.tags, [registry.name("one")]);
    assert!(image.digests[0].starts_with(&format!("127.0.0.1:{}/app@sha256:", registry.port)));
    let told = *told.lock().unwrap();
    assert!(told.done == told.total && told.total > 0, "{told:?}");
    assert_eq!(registry.blobs(), 6);
    store.pull(&registry.name("two"), &PullOptions::default()).await.unwrap();
    assert_eq!(registry.blobs(), 8, "one configuration and one layer more");
    store.pull(&registry.name("two"), &PullOptions::default()).await.unwrap();
    assert_eq!(registry.blobs(), 8, "nothing twice");
    let by_digest = store.pull(&image.digests[0], &PullOptions::default()).await.unwrap();
    assert_eq!(by_digest.id, image.id);
}

#[tokio::test]
async fn pulls_of_one_image_at_a_time_are_one() {
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1"), layer("b", "2")]);
    let (_dir, store) = store();
    let (name, options) = (registry.name("one"), PullOptions::default());
    let results = futures::future::join_all((0..8).map(|_| store.pull(&name, &options))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(registry.blobs(), 3);
}

#[tokio::test]
async fn an_exchanged_blob_is_refused_and_nothing_of_it_stays() {
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1")]);
    let digest = Digest::of(&gzip(&layer("a", "1")));
    registry.put(&format!("/v2/app/blobs/{digest}"), "application/octet-stream", gzip(&layer("evil", "2")));
    let (dir, store) = store();
    let pulled = store.pull(&registry.name("one"), &PullOptions::default()).await;
    assert!(matches!(pulled, Err(PullError::Corrupt(_))), "{pulled:?}");
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("images/layers")).unwrap().count(), 0);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1")]);
    let (_dir, store) = store();
    let pull = |name: String| {
        let store = Arc::clone(&store);
        async move { store.pull(&name, &PullOptions::default()).await }
    };
    assert!(matches!(pull("Not a name".into()).await, Err(PullError::InvalidName(_))));
    let unknown = pull(registry.name("none")).await;
    assert!(matches!(unknown, Err(PullError::Refused(_))), "{unknown:?}");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let absent = pull(format!("127.0.0.1:{closed}/app:one")).await;
    assert!(matches!(absent, Err(PullError::Unavailable(_))), "{absent:?}");
}

fn password(text: &str) -> Credentials {
    Credentials { username: "me".into(), password: text.into(), token: None }
}

#[tokio::test]
async fn a_locked_registry_opens_to_its_password_and_its_token_over_tls() {
    for lock in [Lock::Password, Lock::Token] {
        let registry = Registry::over_tls();
        registry.push("one", &[layer("a", "1"), layer("b", "2")]);
        registry.lock(lock);
        let (_dir, store) = store();
        let pull = async |credentials: &[Credentials], authorities: Vec<Vec<u8>>| {
            store
                .pull(
                    &registry.name("one"),
                    &PullOptions { credentials, registries: Registries::default().trusting(authorities), ..PullOptions::default() },
                )
                .await
        };
        let authority = || vec![registry.authority()];
        // Each with what a person needs to know: that it is the certificate, that it is the password.
        let stranger = Registry::over_tls().authority();
        match pull(&[password("secret")], vec![stranger]).await {
            Err(PullError::Unavailable(why)) => assert!(why.contains("certificate"), "{lock:?}: {why}"),
            other => panic!("{lock:?}: {other:?}"),
        }
        for credentials in [&[][..], &[password("wrong")]] {
            let refused = pull(credentials, authority()).await;
            assert!(matches!(refused, Err(PullError::Refused(_))), "{lock:?}: {refused:?}");
        }
        assert_eq!(registry.blobs(), 0, "{lock:?}: nothing is given to who may not have it");
        let image = pull(&[password("wrong"), password("secret")], authority()).await.unwrap();
        assert_eq!((image.tags, registry.blobs()), (vec![registry.name("one")], 3), "{lock:?}");
        assert!(registry.asked("/token") == (lock == Lock::Token), "{lock:?}");
    }
}

#[tokio::test]
async fn a_token_of_the_pods_own_opens_too() {
    let registry = Registry::over_tls();
    registry.push("one", &[layer("a", "1")]);
    registry.lock(Lock::Token);
    let (_dir, store) = store();
    let credentials = [Credentials { token: Some(registry::TOKEN.into()), ..password("") }];
    let options = PullOptions {
        credentials: &credentials,
        registries: Registries::default().trusting(vec![registry.authority()]),
        ..PullOptions::default()
    };
    store.pull(&registry.name("one"), &options).await.unwrap();
    assert!(!registry.asked("/token"));
}

#[tokio::test]
async fn several_layers_come_at_once() {
    let registry = Registry::over_tls();
    registry.push("one", &(0..6).map(|n| layer(&format!("file{n}"), "text")).collect::<Vec<_>>());
    // None is given before three are asked for.
    registry.hold(3);
    let (_dir, store) = store();
    store
        .pull(
            &registry.name("one"),
            &PullOptions { registries: Registries::default().trusting(vec![registry.authority()]), ..PullOptions::default() },
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_body_that_breaks_off_goes_on_where_it_broke() {
    // Six bits of chance in a byte: gzip cannot make it shorter than two breaks.
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 58) as u8)
    };
    let noise: String = (0..200_000).map(|_| next()).collect();
    for ranges in [true, false] {
        let registry = Registry::over_tls();
        registry.push("one", &[layer("noise", &noise)]);
        registry.cut(50_000, 2, ranges);
        let (dir, store) = store();
        let told = Arc::new(Mutex::new(Progress::default()));
        let listener = Arc::clone(&told);
        let options = PullOptions {
            registries: Registries::default().trusting(vec![registry.authority()]),
            progress: Some(Arc::new(move |progress| *listener.lock().unwrap() = progress)),
            ..PullOptions::default()
        };
        store.pull(&registry.name("one"), &options).await.unwrap();
        let told = *told.lock().unwrap();
        assert!(told.done == told.total && told.total > 100_000, "ranges {ranges}: each byte counts once: {told:?}");
        let starts = registry.ranges();
        assert_eq!(starts.len(), 2, "ranges {ranges}: asked again after each break, not from the start: {starts:?}");
        assert!(starts.is_sorted() && starts[0] >= 50_000, "ranges {ranges}: {starts:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_registry_that_always_breaks_off_is_given_up() {
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1")]);
    registry.cut(1, usize::MAX, false);
    let (dir, store) = store();
    let pulled = store.pull(&registry.name("one"), &PullOptions::default()).await;
    assert!(matches!(pulled, Err(PullError::Unavailable(_))), "{pulled:?}");
    assert!(store.list().unwrap().is_empty());
    assert_eq!(std::fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0, "nothing half-written stays");
}

#[tokio::test]
async fn blobs_that_a_power_loss_damaged_come_anew() {
    let registry = Registry::new();
    let content = layer("a", "1");
    registry.push("one", std::slice::from_ref(&content));
    let (dir, store) = store();
    for blob in registry.digests() {
        std::fs::write(dir.path().join("images/blobs/sha256").join(blob.hex()), "").unwrap();
    }
    store.pull(&registry.name("one"), &PullOptions::default()).await.unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
}

/// Where the process that is to be killed pulls to, and what.
const KILLED: [&str; 2] = ["CORACLE_TEST_STORE", "CORACLE_TEST_IMAGE"];

#[tokio::test]
#[ignore = "is run, and killed, by what_a_killed_pull_leaves_goes_and_the_image_comes"]
async fn is_killed() {
    let [dir, image] = KILLED.map(|name| std::env::var(name).unwrap());
    let store = Arc::new(ImageStore::open(dir.as_ref()).unwrap());
    let _ = store.pull(&image, &PullOptions::default()).await;
}

#[tokio::test]
async fn what_a_killed_pull_leaves_goes_and_the_image_comes() {
    let registry = Registry::new();
    let layers = [layer("a", "1"), layer("b", &"2".repeat(1000))];
    registry.push("one", &layers);
    let blob = Digest::of(&gzip(&layers[1]));
    registry.lie(&format!("/v2/app/blobs/{blob}"), registry::Lie::Stalls(20), 1);
    let (dir, store) = store();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "is_killed", "--ignored"])
        .envs(KILLED.into_iter().zip([dir.path().to_str().unwrap(), &registry.name("one")]))
        .spawn()
        .unwrap();
    registry.wait_stalled();
    let left = || std::fs::read_dir(dir.path().join("images/incoming")).unwrap().count();
    assert_eq!(store.gc().unwrap(), 0);
    assert!(left() > 0, "nothing is taken away from one who still pulls");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(left() > 0 && store.list().unwrap().is_empty());
    store.gc().unwrap();
    assert_eq!(left(), 0);
    store.pull(&registry.name("one"), &PullOptions::default()).await.unwrap();
    assert_eq!((left(), store.list().unwrap().len()), (0, 1));
}
