//! An extension API server in this process: flunders of the group wardle.test, over TLS, for whom the front-proxy certificate vouches.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard},
};

use rustls::{RootCertStore, server::WebPkiClientVerifier};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};

/// Where it serves.
const ROOT: &str = "/apis/wardle.test/v1";

type May = Box<dyn Fn(&str, &[String]) -> bool + Send + Sync>;

/// A running one.
pub struct Extension {
    /// Where it listens.
    pub address: SocketAddr,
    /// PEM of the authority that signed its certificate.
    pub authority: String,
    shared: Arc<Shared>,
}

struct Shared {
    tls: Arc<rustls::ServerConfig>,
    may: May,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    flunders: Vec<Value>,
    /// Ends those who listen.
    down: bool,
    /// What is open, to be cut.
    open: Vec<TcpStream>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panicked with it")
    }
}

impl Extension {
    /// Serves under the Service's name to clients of this authority. `may` says whether a user with groups may create flunders.
    pub fn start(service: &str, clients: &str, may: impl Fn(&str, &[String]) -> bool + Send + Sync + 'static) -> Self {
        let key = rcgen::generate_simple_self_signed([service.to_owned()]).expect("a certificate");
        let private = PrivateKeyDer::from_pem_slice(key.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(clients.as_bytes()).expect("a certificate")).expect("an authority");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().expect("a verifier");
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let tls = tls.with_client_cert_verifier(verifier).with_single_cert(vec![key.cert.der().clone()], private).expect("a pair");
        let listener = TcpListener::bind("0.0.0.0:0").expect("a socket");
        let address = listener.local_addr().expect("bound");
        let shared = Shared { tls: Arc::new(tls), may: Box::new(may), state: Mutex::default(), changed: Condvar::new() };
        let extension = Self { address, authority: key.cert.pem(), shared: Arc::new(shared) };
        extension.listen(listener);
        extension
    }

    fn listen(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = shared.state();
                if state.down {
                    return;
                }
                state.open.push(stream.try_clone().expect("a descriptor"));
                drop(state);
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let session = rustls::ServerConnection::new(Arc::clone(&shared.tls)).expect("a session");
                    // A client that goes away is no matter of the server's.
                    let _ = serve(rustls::StreamOwned::new(session, stream), &shared);
                });
            }
        });
    }

    /// Nobody listens any more, and all connections are cut.
    pub fn down(&self) {
        let mut state = self.shared.state();
        state.down = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the one who listens, so that it sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.address.port()));
        while TcpStream::connect(("127.0.0.1", self.address.port())).is_ok() {
            std::thread::yield_now();
        }
    }

    /// Listens again where it did.
    pub fn up(&self) {
        self.shared.state().down = false;
        self.listen(TcpListener::bind(self.address).expect("the port is free again"));
    }
}

/// A request: its head as it came, in lower-case names.
struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &mut BufReader<impl Read>) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, url) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = url.split_once('?').unwrap_or((&url, ""));
        let mut request = Self { method, path: path.to_owned(), query: query.to_owned(), headers: Vec::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let length = request.all("content-length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
        request.body.resize(length, 0);
        stream.read_exact(&mut request.body)?;
        Ok(Some(request))
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone()).collect()
    }
}

fn serve(stream: impl Read + Write, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(request) = Request::read(&mut stream)? {
        let users = request.all("x-remote-user");
        let collection = request.path.strip_prefix(ROOT).and_then(|rest| rest.strip_prefix("/namespaces/"));
        let parts: Vec<&str> = collection.map(|rest| rest.split('/').collect()).unwrap_or_default();
        let (code, answer) = match (request.method.as_str(), request.path.as_str(), parts.as_slice()) {
            _ if users.len() != 1 => (401, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401})),
            ("GET", ROOT, _) => (200, resources()),
            ("GET", "/openapi/v3", _) => (200, json!({"paths": {&ROOT[1..]: {"serverRelativeURL": format!("/openapi/v3{ROOT}?hash=7")}}})),
            ("GET", "/openapi/v3/apis/wardle.test/v1", _) => (200, openapi_v3()),
            ("GET", "/openapi/v2", _) => (200, openapi_v2()),
            ("GET", _, [_, "flunders", _, "echo"]) if request.all("upgrade") == ["echo"] => return echo(stream),
            ("GET", _, [_, "flunders"]) if request.query.contains("watch=true") || request.query.contains("watch=1") => {
                return watch(stream.get_mut(), shared);
            }
            ("GET", _, [_, "flunders"]) => (200, list(&shared.state().flunders)),
            ("GET", _, [_, "flunders", name]) => found(&shared.state().flunders, name),
            ("POST", _, [namespace, "flunders"]) => create(&request, shared, namespace, &users[0]),
            _ => (404, failure(404, "NotFound")),
        };
        let body = answer.to_string();
        write!(stream.get_mut(), "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        stream.get_mut().flush()?;
    }
    Ok(())
}

fn failure(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": reason, "code": code})
}

fn resources() -> Value {
    let verbs = ["create", "get", "list", "watch"];
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.test/v1", "resources": [
        {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": verbs, "shortNames": ["flu"]},
        {"name": "flunders/echo", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"]},
    ]})
}

fn schema() -> Value {
    let text = |what: &str| json!({"type": "string", "description": what});
    json!({"type": "object", "description": "A flunder is made for tests.",
        "properties": {"apiVersion": text("a"), "kind": text("k"), "size": text("How large it is, in wardles.")},
        "x-kubernetes-group-version-kind": [{"group": "wardle.test", "version": "v1", "kind": "Flunder"}]})
}

fn openapi_v3() -> Value {
    json!({"openapi": "3.0.0", "info": {"title": "wardle", "version": "1"}, "components": {"schemas": {"test.wardle.v1.Flunder": schema()}},
        "paths": {format!("{ROOT}/namespaces/{{namespace}}/flunders"): {"get": {"responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "list", "x-kubernetes-group-version-kind": {"group": "wardle.test", "version": "v1", "kind": "Flunder"}}}}})
}

fn openapi_v2() -> Value {
    json!({"swagger": "2.0", "info": {"title": "wardle", "version": "1"},
        "definitions": {"test.wardle.v1.Flunder": schema(), "test.wardle.v1.Unused": {"type": "object"}},
        "paths": {"/version": {"get": {}}, format!("{ROOT}/namespaces/{{namespace}}/flunders"): {
            "get": {"responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/test.wardle.v1.Flunder"}}}}}}})
}

fn list(flunders: &[Value]) -> Value {
    json!({"kind": "FlunderList", "apiVersion": "wardle.test/v1", "metadata": {"resourceVersion": flunders.len().to_string()}, "items": flunders})
}

fn found(flunders: &[Value], name: &str) -> (u16, Value) {
    let found = flunders.iter().find(|flunder| flunder["metadata"]["name"] == name);
    found.map_or_else(|| (404, failure(404, "NotFound")), |flunder| (200, flunder.clone()))
}

fn create(request: &Request, shared: &Shared, namespace: &str, user: &str) -> (u16, Value) {
    let groups = request.all("x-remote-group");
    if !(shared.may)(user, &groups) {
        return (403, failure(403, "Forbidden"));
    }
    let Ok(mut flunder) = serde_json::from_slice::<Value>(&request.body) else { return (400, failure(400, "BadRequest")) };
    let mut state = shared.state();
    let metadata = json!({"name": flunder["metadata"]["name"], "namespace": namespace, "uid": format!("flunder-{}", state.flunders.len()),
        "resourceVersion": (state.flunders.len() + 1).to_string(), "creationTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"by": user, "groups": groups.join(","), "authorization": request.all("authorization").join(",")}});
    flunder["metadata"] = metadata;
    state.flunders.push(flunder.clone());
    drop(state);
    shared.changed.notify_all();
    (201, flunder)
}

/// All that are there, then each as it comes.
fn watch(stream: &mut impl Write, shared: &Shared) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    stream.flush()?;
    let mut seen = 0;
    let mut state = shared.state();
    while !state.down {
        let new = state.flunders[seen..].to_vec();
        seen += new.len();
        drop(state);
        for flunder in new {
            let line = json!({"type": "ADDED", "object": flunder}).to_string();
            write!(stream, "{:x}\r\n{line}\n\r\n", line.len() + 1)?;
            stream.flush()?;
        }
        state = shared.state();
        if state.flunders.len() == seen && !state.down {
            state = shared.changed.wait(state).expect("nobody panicked with it");
        }
    }
    Ok(())
}

/// Another protocol: what comes goes back.
fn echo(mut stream: BufReader<impl Read + Write>) -> std::io::Result<()> {
    write!(stream.get_mut(), "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")?;
    stream.get_mut().flush()?;
    let mut bytes = [0; 64];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        stream.get_mut().write_all(&bytes[..count])?;
        stream.get_mut().flush()?;
    }
}
