//! A webhook's server over TLS, in this process, with a certificate of its own: honest or not, as the test has it.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpListener,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};

use crate::Kubectl;

/// What is answered to a call.
#[derive(Debug)]
pub enum Reply {
    /// 200 with this body.
    Json(Value),
    /// 200 with this body, which is no JSON.
    Garbage(&'static str),
    /// 200 and a body without end.
    Endless,
    /// Nothing, for as long as the caller waits.
    Silence,
}

/// A running server; it ends with the test.
#[derive(Debug)]
pub struct Webhook {
    /// On every address: no EndpointSlice may lead to a loopback one.
    pub port: u16,
    bundle: String,
    calls: Arc<Mutex<Vec<(String, Value)>>>,
}

type Answer = dyn Fn(&str, &Value) -> Reply + Send + Sync;

impl Webhook {
    /// Answers each call by its path and body. The certificate is for 127.0.0.1 and this further name.
    pub fn start(name: &str, answer: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static) -> Self {
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), name.to_owned()]).expect("a certificate");
        let private = PrivateKeyDer::from_pem_slice(key.signing_key.serialize_pem().as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let tls = Arc::new(tls.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).expect("a pair"));
        let listener = TcpListener::bind("0.0.0.0:0").expect("a socket");
        let port = listener.local_addr().expect("bound").port();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (answer, heard): (Arc<Answer>, _) = (Arc::new(answer), Arc::clone(&calls));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (tls, answer, heard) = (Arc::clone(&tls), Arc::clone(&answer), Arc::clone(&heard));
                std::thread::spawn(move || {
                    let session = rustls::ServerConnection::new(tls).expect("a session");
                    // A caller that goes away is no matter of the server's.
                    let _ = serve(rustls::StreamOwned::new(session, stream), &*answer, &heard);
                });
            }
        });
        Self { port, bundle: STANDARD.encode(key.cert.pem()), calls }
    }

    /// A `clientConfig` that leads here by URL.
    pub fn by_url(&self, path: &str) -> Value {
        json!({"url": format!("https://127.0.0.1:{}{path}", self.port), "caBundle": self.bundle})
    }

    /// A `clientConfig` that leads to a Service on port 443; see [`Self::service`].
    pub fn by_service(&self, namespace: &str, name: &str, path: &str) -> Value {
        json!({"service": {"namespace": namespace, "name": name, "path": path}, "caBundle": self.bundle})
    }

    /// The Service without a selector, and the EndpointSlice that leads here by the address at which pods find the API server.
    pub fn service(&self, kubectl: &Kubectl, namespace: &str, name: &str) -> Value {
        let address = kubectl.ok(&["get", "endpointslice", "kubernetes", "-n", "default", "-o", "jsonpath={.endpoints[0].addresses[0]}"]);
        let metadata = json!({"name": name, "namespace": namespace});
        let slice = json!({"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}});
        json!({"kind": "List", "apiVersion": "v1", "items": [
            {"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": {"ports": [{"port": 443}]}},
            {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": slice, "addressType": "IPv4",
                "ports": [{"name": "", "port": self.port}], "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]}]})
    }

    /// The bodies of the calls to a path since the last time that this was asked.
    pub fn heard(&self, path: &str) -> Vec<Value> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let (heard, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *calls).into_iter().partition(|(called, _)| called == path);
        *calls = rest;
        heard.into_iter().map(|(_, body)| body).collect()
    }
}

fn serve(stream: impl Read + Write, answer: &Answer, heard: &Mutex<Vec<(String, Value)>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut line, mut length) = (String::from("x"), 0);
        while !line.trim().is_empty() {
            line.clear();
            stream.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        let reply = answer(&path, &body);
        heard.lock().unwrap_or_else(PoisonError::into_inner).push((path, body));
        let out = stream.get_mut();
        match reply {
            Reply::Json(value) => respond(out, &value.to_string())?,
            Reply::Garbage(text) => respond(out, text)?,
            Reply::Endless => {
                out.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
                loop {
                    out.write_all(&[b' '; 1 << 16])?;
                }
            }
            Reply::Silence => {
                // Ends when the caller has gone.
                stream.read_line(&mut String::new())?;
                return Ok(());
            }
        }
    }
}

fn respond(out: &mut impl Write, body: &str) -> std::io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    out.flush()
}
