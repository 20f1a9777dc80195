//! Plain HTTP by hand, through `kubectl proxy`: for requests that no client would send.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Stdio},
};

use serde_json::Value;

use crate::Kubectl;

/// A running `kubectl proxy`.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Proxy {
    /// On a port of its own.
    pub fn start(kubectl: &Kubectl) -> Self {
        let mut child = kubectl.command(&["proxy", "--port=0"]).stdout(Stdio::piped()).spawn().expect("kubectl can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it serves");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port in {line:?}"));
        Self { child, port }
    }

    /// One request; the status code and the body, which is JSON.
    pub fn ask(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> (u16, Value) {
        self.send(method, path, &format!("Content-Type: {content_type}"), body)
    }

    /// A GET of another form of a document.
    pub fn read_as(&self, path: &str, accept: &str) -> (u16, Value) {
        self.send("GET", path, &format!("Accept: {accept}"), b"")
    }

    /// HTTP/1.0: a body the proxy has decompressed, whose length it does not know, comes without the marks of chunks.
    fn send(&self, method: &str, path: &str, header: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the proxy listens");
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nConnection: close\r\n{header}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // A body that is too large is refused before its end.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status line in {text:?}"));
        let json = text.find('{').and_then(|at| text.rfind('}').map(|end| &text[at..=end])).unwrap_or("null");
        (code, serde_json::from_str(json).unwrap_or_else(|e| panic!("{e} in {text:?}")))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
