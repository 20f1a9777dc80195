//! Mirrors, as `registries.yaml` names them: their order, rewrites, keys, and what is told when all fail.

use std::path::Path;

use coracle_runtime::{
    Credentials, PullError,
    images::{PullOptions, Registries},
};

use crate::{
    registry::{Lock, Registry, layer},
    store,
};

fn registries(dir: &Path, text: &str) -> Registries {
    let path = dir.join("registries.yaml");
    std::fs::write(&path, text).unwrap();
    Registries::read(&path, true).unwrap()
}

/// One that serves `mirrored/app` by the blobs and manifests of `app`.
fn mirror() -> Registry {
    let registry = Registry::new();
    registry.push_as("mirrored/app", "one", &[layer("a", "1")]);
    registry
}

#[tokio::test]
async fn mirrors_are_asked_in_their_order_by_the_names_that_they_know() {
    let (dir, store) = store();
    let (empty, full) = (Registry::new(), mirror());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "mirrors:\n  docker.io:\n    endpoint: ['http://127.0.0.1:{closed}', 'http://127.0.0.1:{}', 'http://127.0.0.1:{}/v2']\n    \
         rewrite: {{'^team/(.*)$': 'mirrored/$1'}}\n",
        empty.port, full.port
    );
    let options = PullOptions { registries: registries(dir.path(), &text), ..PullOptions::default() };
    let image = store.pull("team/app:one", &options).await.unwrap();
    assert_eq!(image.tags, ["docker.io/team/app:one"], "it has the name that was asked for");
    assert!(image.digests[0].starts_with("docker.io/team/app@sha256:"), "{:?}", image.digests);
    assert!(empty.asked("/v2/mirrored/app/manifests/one?ns=docker.io"), "{:?}", empty.questions());
    assert!(full.asked("/v2/mirrored/app/manifests/one"));
}

#[tokio::test]
async fn a_failed_pull_tells_what_each_endpoint_said() {
    let (dir, store) = store();
    let (locked, empty) = (mirror(), Registry::new());
    locked.lock(Lock::Password);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let name = format!("127.0.0.1:{}/team/app:one", empty.port);
    let text = format!(
        "mirrors:\n  '*':\n    endpoint: ['http://127.0.0.1:{closed}', 'http://127.0.0.1:{}']\n    rewrite: {{'^team/': mirrored/}}\n",
        locked.port
    );
    let mut registries = registries(dir.path(), &text);
    let refused = store.pull(&name, &PullOptions { registries: registries.clone(), ..PullOptions::default() }).await;
    match refused {
        Err(PullError::Refused(why)) => {
            for want in [format!("127.0.0.1:{closed}: "), format!("127.0.0.1:{}: 401", locked.port), "not found".to_owned()] {
                assert!(why.contains(&want), "{want}: {why}");
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(empty.asked("/v2/team/app/manifests/one"), "the registry itself is asked last, by its own name");
    registries.mirrors_only = true;
    let before = empty.questions().len();
    store.pull(&name, &PullOptions { registries, ..PullOptions::default() }).await.unwrap_err();
    assert_eq!(empty.questions().len(), before, "it is not asked");
}

#[tokio::test]
async fn a_mirror_is_opened_by_its_own_key() {
    let (dir, store) = store();
    let mirror = Registry::over_tls();
    mirror.push("one", &[layer("a", "1")]);
    mirror.lock(Lock::Token);
    std::fs::write(dir.path().join("ca.pem"), mirror.authority()).unwrap();
    let text = format!(
        "mirrors: {{r.example: {{endpoint: ['https://127.0.0.1:{0}']}}}}\nconfigs:\n  '127.0.0.1:{0}':\n    auth: {{username: me, password: secret}}\n    \
         tls: {{ca_file: {1}/ca.pem}}\n",
        mirror.port,
        dir.path().display()
    );
    let registries = registries(dir.path(), &text);
    let given = [Credentials { username: "pod".into(), password: "x".into(), token: None }];
    let options = PullOptions { registries, credentials: &given, ..PullOptions::default() };
    store.pull("r.example/app:one", &options).await.unwrap();
}

#[tokio::test]
async fn who_is_not_to_be_checked_is_not() {
    let (dir, store) = store();
    let registry = Registry::over_tls();
    registry.push("one", &[layer("a", "1")]);
    let text = format!("configs: {{'127.0.0.1:{}': {{tls: {{insecure_skip_verify: true}}}}}}\n", registry.port);
    let options = PullOptions { registries: registries(dir.path(), &text), ..PullOptions::default() };
    store.pull(&registry.name("one"), &options).await.unwrap();
}

#[tokio::test]
async fn who_has_no_key_does_not_share_the_pull_of_who_has() {
    let (_dir, store) = store();
    let registry = Registry::new();
    registry.push("one", &[layer("a", "1")]);
    registry.lock(Lock::Password);
    let name = registry.name("one");
    let keys = [Credentials { username: "me".into(), password: "secret".into(), token: None }];
    let options = PullOptions { credentials: &keys, ..PullOptions::default() };
    let without = PullOptions::default();
    let (with, without) = tokio::join!(store.pull(&name, &options), store.pull(&name, &without));
    assert!(with.is_ok() && matches!(without, Err(PullError::Refused(_))), "{with:?} {without:?}");
}
