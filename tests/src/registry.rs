//! A registry of images over TLS, in this process, with an authority of its own: holds what a `docker save` archive holds.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where it is and who vouches for it.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    /// PEM file of the authority that signed its certificate.
    pub authority: PathBuf,
}

type Bodies = BTreeMap<String, (&'static str, Vec<u8>)>;

impl Registry {
    /// Serves the image of the archive as `REPOSITORY:TAG`, until the test ends; the authority's file goes to `directory`.
    pub fn start(archive: &Path, repository: &str, tag: &str, directory: &Path) -> Self {
        Self::locked(archive, repository, tag, directory, None)
    }

    /// The same for those only who send this `Authorization`.
    pub fn locked(archive: &Path, repository: &str, tag: &str, directory: &Path, wanted: Option<&'static str>) -> Self {
        Self::serving(bodies(archive, repository, tag), directory, wanted)
    }

    /// The same of several archives, each with the name of its repository.
    pub fn several(archives: &[(PathBuf, &str)], tag: &str, directory: &Path) -> Self {
        Self::serving(archives.iter().flat_map(|(archive, repository)| bodies(archive, repository, tag)).collect(), directory, None)
    }

    fn serving(bodies: Bodies, directory: &Path, wanted: Option<&'static str>) -> Self {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let authority = directory.join("authority.pem");
        std::fs::write(&authority, key.cert.pem()).expect("written");
        let private = PrivateKeyDer::from_pem_slice(key.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).expect("a pair"));
        let bodies = Arc::new(bodies);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let host = listener.local_addr().expect("bound").to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, bodies) = (Arc::clone(&tls), Arc::clone(&bodies));
                std::thread::spawn(move || {
                    let session = rustls::ServerConnection::new(tls).expect("a session");
                    // A client that goes away is no matter of the registry's.
                    let _ = serve(rustls::StreamOwned::new(session, stream), &bodies, wanted);
                });
            }
        });
        Self { host, authority }
    }
}

fn serve(stream: impl std::io::Read + std::io::Write, bodies: &Bodies, key: Option<&str>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let mut line = String::from("x");
        let mut shown = None;
        while !line.trim().is_empty() {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
                shown = Some(value.trim().to_owned());
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        if key.is_some() && shown.as_deref() != key {
            let head = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\n\r\n";
            stream.get_mut().write_all(head.as_bytes())?;
            stream.get_mut().flush()?;
            continue;
        }
        let (status, kind, body) = match bodies.get(path) {
            Some((kind, body)) => ("200 OK", *kind, body.as_slice()),
            None => ("404 Not Found", "application/json", &br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#[..]),
        };
        let (digest, length) = (digest(body), body.len());
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\nContent-Length: {length}\r\n\r\n"
        )?;
        if method != "HEAD" {
            stream.get_mut().write_all(body)?;
        }
        stream.get_mut().flush()?;
    }
}

/// What is answered, by path.
fn bodies(archive: &Path, repository: &str, tag: &str) -> Bodies {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(File::open(archive).expect("an archive")).entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let (name, mut bytes) = (entry.path().expect("a name").display().to_string(), Vec::new());
        entry.read_to_end(&mut bytes).expect("read");
        files.insert(name, bytes);
    }
    let saved: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let mut bodies = Bodies::from([("/v2/".to_owned(), ("application/json", b"{}".to_vec()))]);
    let mut blob = |name: &Value, kind: &str| {
        let bytes = files[name.as_str().expect("a name")].clone();
        let digest = digest(&bytes);
        let described = json!({"digest": digest, "size": bytes.len(), "mediaType": kind});
        bodies.insert(format!("/v2/{repository}/blobs/{digest}"), ("application/octet-stream", bytes));
        described
    };
    let config = blob(&saved[0]["Config"], "application/vnd.oci.image.config.v1+json");
    let layers: Vec<Value> =
        saved[0]["Layers"].as_array().expect("layers").iter().map(|l| blob(l, "application/vnd.oci.image.layer.v1.tar")).collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).to_string().into_bytes();
    for name in [tag.to_owned(), digest(&manifest)] {
        bodies.insert(format!("/v2/{repository}/manifests/{name}"), (kind, manifest.clone()));
    }
    bodies
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}
