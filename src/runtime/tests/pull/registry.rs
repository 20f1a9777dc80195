//! A registry (OCI distribution specification, the reading half) on loopback: locked or not, over TLS or not, whole or breaking off.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use coracle_runtime::images::Digest;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// What its token service gives for the right password.
pub const TOKEN: &str = "let-me-in";
/// `me:secret`.
const PASSWORD: &str = "Basic bWU6c2VjcmV0";
/// How long held layers wait for each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// What opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Password,
    /// Which a service gives for a password.
    Token,
}

/// How a path is answered that does not tell the truth.
#[derive(Clone, Debug)]
pub enum Lie {
    /// With this length, whatever comes.
    Length(usize),
    /// With bytes that do not end.
    Endless,
    /// By another place.
    Moved(String),
    /// With so many bytes, and then nothing until the other side has gone.
    Stalls(usize),
    /// With this status.
    Status(&'static str),
}

/// What it holds, by path, and how it behaves.
#[derive(Default)]
struct Content {
    bodies: HashMap<String, (&'static str, Vec<u8>)>,
    lock: Option<Lock>,
    asked: Vec<String>,
    /// Where ranges that were asked for began.
    ranges: Vec<u64>,
    /// Layers break off after so many bytes, so many times.
    cut: Option<(usize, usize)>,
    understands_ranges: bool,
    /// Layers that are asked for before one is given.
    held: usize,
    /// Lies by the beginnings of paths, and how often they are told.
    lies: Vec<(String, Lie, usize)>,
    /// Answers that stalled.
    stalled: usize,
}

#[derive(Default)]
struct Shared {
    content: Mutex<Content>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

pub struct Registry {
    pub port: u16,
    shared: Arc<Shared>,
    authority: Option<String>,
}

impl Registry {
    pub fn new() -> Self {
        Self::start(None)
    }

    /// With a certificate of an authority of its own.
    pub fn over_tls() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.signed_by(&key, &Issuer::new(params, authority_key)).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.der().clone()], key.into())
            .unwrap();
        Self::start(Some((Arc::new(config), authority)))
    }

    fn start(tls: Option<(Arc<rustls::ServerConfig>, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared: Arc<Shared> = Arc::default();
        let (inner, config) = (Arc::clone(&shared), tls.as_ref().map(|(config, _)| Arc::clone(config)));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shared, config) = (Arc::clone(&inner), config.clone());
                std::thread::spawn(move || match config {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &format!("https://127.0.0.1:{port}"), &shared);
                    }
                    None => serve::<TcpStream>(stream, &format!("http://127.0.0.1:{port}"), &shared),
                });
            }
        });
        Self { port, shared, authority: tls.map(|(_, pem)| pem) }
    }

    /// The certificate to trust, as PEM.
    pub fn authority(&self) -> Vec<u8> {
        self.authority.clone().unwrap().into_bytes()
    }

    pub fn put(&self, path: &str, kind: &'static str, body: Vec<u8>) {
        self.shared.lock().bodies.insert(path.to_owned(), (kind, body));
    }

    pub fn lock(&self, lock: Lock) {
        self.shared.lock().lock = Some(lock);
    }

    pub fn hold(&self, layers: usize) {
        self.shared.lock().held = layers;
    }

    pub fn cut(&self, after: usize, times: usize, understands_ranges: bool) {
        let mut content = self.shared.lock();
        (content.cut, content.understands_ranges) = (Some((after, times)), understands_ranges);
    }

    /// Lies about what begins so, so many times.
    pub fn lie(&self, path: &str, lie: Lie, times: usize) {
        self.shared.lock().lies.push((path.to_owned(), lie, times));
    }

    /// Waits until it has stalled.
    pub fn wait_stalled(&self) {
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), PATIENCE, |content| content.stalled == 0).unwrap();
        assert!(!waited.1.timed_out(), "nobody has asked");
    }

    /// An image of these layers under `app:TAG`, through an index for this and another machine.
    pub fn push(&self, tag: &str, layers: &[Vec<u8>]) {
        self.push_as("app", tag, layers);
    }

    /// The same under `REPOSITORY:TAG`.
    pub fn push_as(&self, repository: &str, tag: &str, layers: &[Vec<u8>]) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let blob = |bytes: &[u8], kind: &str| {
            let digest = Digest::of(bytes);
            self.put(&format!("/v2/{repository}/blobs/{digest}"), "application/octet-stream", bytes.to_vec());
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
        self.put(&format!("/v2/{repository}/manifests/{digest}"), manifest_type, manifest.clone().into_bytes());
        let index = index.to_string().into_bytes();
        for name in [tag, Digest::of(&index).as_str()] {
            self.put(&format!("/v2/{repository}/manifests/{name}"), index_type, index.clone());
        }
    }

    pub fn name(&self, tag: &str) -> String {
        format!("127.0.0.1:{}/app:{tag}", self.port)
    }

    /// How often blobs were given.
    pub fn blobs(&self) -> usize {
        self.shared.lock().asked.iter().filter(|path| path.contains("/blobs/")).count()
    }

    /// Whether a path that begins so was asked for.
    pub fn asked(&self, path: &str) -> bool {
        self.shared.lock().asked.iter().any(|asked| asked.starts_with(path))
    }

    /// All that was asked for, in order.
    pub fn questions(&self) -> Vec<String> {
        self.shared.lock().asked.clone()
    }

    /// Where ranges that were asked for began.
    pub fn ranges(&self) -> Vec<u64> {
        self.shared.lock().ranges.clone()
    }

    /// Of all blobs.
    pub fn digests(&self) -> Vec<Digest> {
        self.shared.lock().bodies.keys().filter_map(|path| path.strip_prefix("/v2/app/blobs/")?.parse().ok()).collect()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A layer with one file.
pub fn layer(name: &str, text: &str) -> Vec<u8> {
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

/// A request's first line and the headers that count, by their lower-case names; `None` at the end of the connection.
fn request(reader: &mut impl BufRead) -> Option<(String, String, HashMap<String, String>)> {
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return None;
    }
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let mut words = first.split(' ');
    Some((words.next()?.to_owned(), words.next()?.to_owned(), headers))
}

fn serve<S: Read + Write>(stream: S, address: &str, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some((method, path, headers)) = request(&mut reader) {
        let (mut head, body) = answer(&path, &headers, address, shared);
        let out = reader.get_mut();
        let lie =
            shared.lock().lies.iter_mut().find(|(start, _, times)| path.starts_with(&**start) && *times > 0).map(|(_, lie, times)| {
                *times -= 1;
                lie.clone()
            });
        match lie.filter(|_| head.starts_with("HTTP/1.1 200")) {
            None => {}
            Some(Lie::Length(bytes)) => {
                head = head.replace(&format!("Content-Length: {}", body.len()), &format!("Content-Length: {bytes}"));
                let sent =
                    out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body[..bytes.min(body.len())])).and_then(|()| out.flush());
                if sent.is_err() || bytes > body.len() {
                    return;
                }
                continue;
            }
            Some(Lie::Endless) => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                let mut sent = out.write_all(head.as_bytes());
                while sent.is_ok() {
                    sent = out.write_all(b"2000\r\n").and_then(|()| out.write_all(&[b' '; 0x2000])).and_then(|()| out.write_all(b"\r\n"));
                }
                return;
            }
            Some(Lie::Stalls(bytes)) => {
                let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body[..bytes])).and_then(|()| out.flush());
                shared.lock().stalled += 1;
                shared.changed.notify_all();
                let _ = out.read(&mut [0]);
                return;
            }
            Some(Lie::Moved(to)) => {
                let head = format!("HTTP/1.1 307 Temporary Redirect\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
                if out.write_all(head.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return;
                }
                continue;
            }
            Some(Lie::Status(status)) => {
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
                if out.write_all(head.as_bytes()).and_then(|()| out.flush()).is_err() {
                    return;
                }
                continue;
            }
        }
        let is_layer = path.contains("/blobs/") && body.starts_with(&[0x1f, 0x8b]) || headers.contains_key("range");
        let cut =
            shared.lock().cut.as_mut().filter(|(after, times)| is_layer && *times > 0 && *after < body.len()).map(|(after, times)| {
                *times -= 1;
                *after
            });
        let body = if method == "HEAD" { &[][..] } else { &body[..cut.unwrap_or(body.len())] };
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)).and_then(|()| out.flush()).is_err() || cut.is_some() {
            return;
        }
    }
}

fn answer(path: &str, headers: &HashMap<String, String>, address: &str, shared: &Shared) -> (String, Vec<u8>) {
    let key = headers.get("authorization").map(String::as_str);
    let mut content = shared.lock();
    if path.starts_with("/token") {
        content.asked.push(path.to_owned());
        return match key == Some(PASSWORD) {
            true => head("200 OK", "application/json", "", format!(r#"{{"token":"{TOKEN}"}}"#).into_bytes()),
            false => head("401 Unauthorized", "application/json", "", Vec::new()),
        };
    }
    let challenge = match content.lock {
        Some(Lock::Password) if key != Some(PASSWORD) => "WWW-Authenticate: Basic realm=\"test\"\r\n".to_owned(),
        Some(Lock::Token) if key != Some(&format!("Bearer {TOKEN}")) => {
            format!("WWW-Authenticate: Bearer realm=\"{address}/token\",service=\"test\",scope=\"repository:app:pull\"\r\n")
        }
        _ => String::new(),
    };
    if !challenge.is_empty() {
        return head("401 Unauthorized", "application/json", &challenge, Vec::new());
    }
    content.asked.push(path.to_owned());
    let start: Option<u64> = headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    content.ranges.extend(start);
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let (status, kind, body) = match content.bodies.get(path) {
        _ if path == "/v2/" => ("200 OK", "application/json", b"{}".to_vec()),
        Some((kind, body)) => match start.filter(|_| content.understands_ranges) {
            Some(start) => ("206 Partial Content", *kind, body[start as usize..].to_vec()),
            None => ("200 OK", *kind, body.clone()),
        },
        None => ("404 Not Found", "application/json", br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec()),
    };
    if body.starts_with(&[0x1f, 0x8b]) && content.held > 0 {
        content.held -= 1;
        shared.changed.notify_all();
        let (free, late) = shared.changed.wait_timeout_while(content, PATIENCE, |content| content.held > 0).unwrap();
        drop(free);
        if late.timed_out() {
            return head("500 Internal Server Error", "text/plain", "", b"layers come one after the other".to_vec());
        }
    }
    // A lie is told by the body, not by the header: blobs that are exchanged have no digest of the registry's.
    let digest = if path.contains("/blobs/") { String::new() } else { format!("Docker-Content-Digest: {}\r\n", Digest::of(&body)) };
    head(status, kind, &digest, body)
}

fn head(status: &str, kind: &str, more: &str, body: Vec<u8>) -> (String, Vec<u8>) {
    (format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Content-Length: {}\r\n\r\n", body.len()), body)
}
