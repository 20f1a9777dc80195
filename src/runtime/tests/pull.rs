//! Pulls from a registry: a small one in this process, on loopback, that can also lie.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use coracle_runtime::{
    Credentials, PullError,
    images::{Digest, ImageStore, Progress, PullOptions},
};

/// What a registry holds, by path.
#[derive(Default)]
struct Content {
    bodies: HashMap<String, (&'static str, Vec<u8>)>,
    /// `Basic` value that opens it.
    key: Option<String>,
    asked: Vec<String>,
}

struct Registry {
    port: u16,
    content: Arc<Mutex<Content>>,
}

impl Registry {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let content: Arc<Mutex<Content>> = Arc::default();
        let shared = Arc::clone(&content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, content }
    }

    fn put(&self, path: &str, kind: &'static str, body: Vec<u8>) {
        self.content.lock().unwrap().bodies.insert(path.to_owned(), (kind, body));
    }

    /// An image of these layers under `app:TAG`, through an index for this and another machine.
    fn push(&self, tag: &str, layers: &[Vec<u8>]) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let blob = |bytes: &[u8], kind: &str| {
            let digest = Digest::of(bytes);
            self.put(&format!("/v2/app/blobs/{digest}"), "application/octet-stream", bytes.to_vec());
            serde_json::json!({"digest": digest, "size": bytes.len(), "mediaType": kind})
        };
        let diffs: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = serde_json::json!({"architecture": arch, "os": "linux", "config": {"Cmd": ["x"]}, "rootfs": {"type": "layers", "diff_ids": diffs}});
        let config = blob(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = layers.iter().map(|layer| blob(&gzip(layer), "application/vnd.oci.image.layer.v1.tar+gzip")).collect();
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers}).to_string();
        let digest = Digest::of(manifest.as_bytes());
        let entry = |arch: &str, digest: &Digest| serde_json::json!({"digest": digest, "size": manifest.len(), "mediaType": manifest_type, "platform": {"os": "linux", "architecture": arch}});
        let index_type = "application/vnd.oci.image.index.v1+json";
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [entry("s390x", &Digest::of(b"other")), entry(arch, &digest)]});
        self.put(&format!("/v2/app/manifests/{digest}"), manifest_type, manifest.clone().into_bytes());
        let index = index.to_string().into_bytes();
        for name in [tag, Digest::of(&index).as_str()] {
            self.put(&format!("/v2/app/manifests/{name}"), index_type, index.clone());
        }
    }

    fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/app:{tag}", self.port)
    }

    /// How often blobs were asked for.
    fn blobs(&self) -> usize {
        self.content.lock().unwrap().asked.iter().filter(|path| path.contains("/blobs/")).count()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

fn serve(stream: TcpStream, content: &Mutex<Content>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    loop {
        let (mut first, mut key) = (String::new(), None);
        if reader.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
                assert!(!name.is_empty());
                key = Some(value.trim().to_owned());
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut content = content.lock().unwrap();
        content.asked.push(path.clone());
        let closed = content.key.is_some() && content.key != key;
        let (status, kind, body) = match content.bodies.get(&path) {
            _ if closed => ("401 Unauthorized", "application/json", Vec::new()),
            _ if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
            Some((kind, body)) => ("200 OK", *kind, body.clone()),
            None => {
                ("404 Not Found", "application/json", br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec())
            }
        };
        drop(content);
        let challenge = if closed { "WWW-Authenticate: Basic realm=\"test\"\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{challenge}Docker-Content-Digest: {}\r\nContent-Length: {}\r\n\r\n",
            Digest::of(&body),
            body.len()
        );
        // A lie is told by the body, not by the header: blobs that are exchanged have no digest of the registry's.
        let head = if path.contains("/blobs/") { head.replace("Docker-Content-Digest", "X-None") } else { head };
        if stream.write_all(head.as_bytes()).is_err() || (method != "HEAD" && stream.write_all(&body).is_err()) {
            return;
        }
    }
}

fn layer(name: &str, text: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    builder.into_inner().unwrap()
}

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
    let evil = gzip(&layer("evil", "2"));
    let (_, body) = registry
        .content
        .lock()
        .unwrap()
        .bodies
        .iter()
        .find(|(path, (_, body))| path.contains("/blobs/") && body[0] == 0x1f)
        .map(|(p, b)| (p.clone(), b.1.clone()))
        .unwrap();
    let path = format!("/v2/app/blobs/{}", Digest::of(&body));
    registry.put(&path, "application/octet-stream", evil);
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
    registry.content.lock().unwrap().key = Some("Basic bWU6c2VjcmV0".into());
    let refused = pull(registry.name("one")).await;
    assert!(matches!(refused, Err(PullError::Refused(_))), "{refused:?}");
    let with = |password: &str| Credentials { username: "me".into(), password: password.into(), token: None };
    let credentials = [with("wrong"), with("secret")];
    store.pull(&registry.name("one"), &PullOptions { credentials: &credentials, ..PullOptions::default() }).await.unwrap();
}
