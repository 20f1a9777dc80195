//! Asks a container how it is: HTTP, TCP, exec, gRPC. Also the HTTP of lifecycle hooks.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use coracle_pki::stranger;
use coracle_runtime::{ContainerId, PodRuntime, RuntimeError};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;

use super::grpc;
use crate::context::chain;

/// Bytes of an answer that are looked at.
const BODY_BYTES: usize = 10 << 10;
/// Redirects that are followed on the same host.
const REDIRECTS: u32 = 10;
/// How probes name themselves.
const USER_AGENT: &str = "kube-probe/1.36";

/// The container that is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its id.
    pub id: ContainerId,
    /// The pod's address.
    pub address: Option<IpAddr>,
    /// Its spec, for named ports.
    pub container: Container,
}

/// Why a container is not well, in words for an Event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwell {
    /// It says so, or says nothing in its time.
    #[error("{0}")]
    Failed(String),
    /// The container runtime could not ask it: nothing is known.
    #[error("{0}")]
    NotAsked(String),
}

fn unwell(text: impl std::fmt::Display) -> Unwell {
    Unwell::Failed(text.to_string())
}

/// What is to be told of a container that is well.
pub type Warning = Option<String>;

/// One look.
pub async fn ask(runtime: &Arc<dyn PodRuntime>, target: &Target, probe: &Probe, timeout: Duration) -> Result<Warning, Unwell> {
    if let Some(exec) = &probe.exec {
        return command(runtime, target, exec.command.as_deref().unwrap_or_default(), timeout).await.map(|()| None);
    }
    let look = async {
        if let Some(get) = &probe.http_get {
            http_get(target, get).await
        } else if let Some(tcp) = &probe.tcp_socket {
            let host = host(target, tcp.host.as_deref())?;
            TcpStream::connect((host.as_str(), port(target, &tcp.port)?)).await.map(|_| None).map_err(|e| unwell(format!("connect: {e}")))
        } else if let Some(grpc) = &probe.grpc {
            health(target, grpc).await.map(|()| None)
        } else {
            Ok(None)
        }
    };
    tokio::time::timeout(timeout, look).await.unwrap_or_else(|_| Err(unwell(format!("no answer within {} s", timeout.as_secs()))))
}

/// Runs a command in the container; its exit code is the answer.
pub async fn command(runtime: &Arc<dyn PodRuntime>, target: &Target, command: &[String], timeout: Duration) -> Result<(), Unwell> {
    match runtime.exec_sync(&target.id, command, Some(timeout)).await {
        Ok(result) if result.timed_out => Err(unwell(format!("command timed out after {} s", timeout.as_secs()))),
        Ok(result) if result.exit_code == 0 => Ok(()),
        Ok(result) => {
            let output = [result.stdout, result.stderr].concat();
            Err(unwell(format!("command ended with {}: {}", result.exit_code, String::from_utf8_lossy(&output).trim())))
        }
        Err(e @ RuntimeError::System { .. }) => Err(Unwell::NotAsked(chain(&e))),
        Err(e) => Err(unwell(e)),
    }
}

fn host(target: &Target, own: Option<&str>) -> Result<String, Unwell> {
    let own = own.filter(|h| !h.is_empty()).map(str::to_owned);
    own.or_else(|| target.address.map(|a| a.to_string())).ok_or_else(|| unwell("the pod has no address"))
}

fn port(target: &Target, port: &IntOrString) -> Result<u16, Unwell> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = target.container.ports.iter().flatten().find(|p| p.name.as_deref() == Some(name)).map(|p| p.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    number.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0).ok_or_else(|| unwell(format!("there is no port {port:?}")))
}

/// A GET of a hook: it is told, and any answer will do.
pub async fn http_call(target: &Target, get: &HTTPGetAction) -> Result<(), Unwell> {
    let (host, port) = (host(target, get.host.as_deref())?, port(target, &get.port)?);
    get_once(&host, port, is_tls(get), &path_of(get), get).await.map(drop)
}

fn is_tls(get: &HTTPGetAction) -> bool {
    get.scheme.as_deref() == Some("HTTPS")
}

fn path_of(get: &HTTPGetAction) -> String {
    let path = get.path.clone().unwrap_or_default();
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// A GET; any status from 200 to 399 is well. Of one that leads to another host it is told that nobody followed.
pub async fn http_get(target: &Target, get: &HTTPGetAction) -> Result<Warning, Unwell> {
    let host = host(target, get.host.as_deref())?;
    let port = port(target, &get.port)?;
    let (tls, mut path) = (is_tls(get), path_of(get));
    for _ in 0..REDIRECTS {
        let (status, location, body) = get_once(&host, port, tls, &path, get).await?;
        match (status, location) {
            (300..=399, Some(location)) => match same_host(&location, &host, port) {
                Some(next) => path = next,
                // Somebody else's answer would say nothing of this container.
                None => return Ok(Some(format!("the answer leads to another host, {location}, which is not asked"))),
            },
            (200..=399, _) => return Ok(None),
            _ => return Err(unwell(format!("HTTP probe failed with statuscode: {status} {}", body.trim()))),
        }
    }
    Err(unwell(format!("stopped after {REDIRECTS} redirects")))
}

fn same_host(location: &str, host: &str, port: u16) -> Option<String> {
    if location.starts_with('/') {
        return Some(location.to_owned());
    }
    let uri: http::Uri = location.parse().ok()?;
    let same = uri.host() == Some(host) && uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 }) == port;
    same.then(|| uri.path_and_query().map_or("/", |p| p.as_str()).to_owned())
}

async fn get_once(host: &str, port: u16, tls: bool, path: &str, get: &HTTPGetAction) -> Result<(u16, Option<String>, String), Unwell> {
    let headers = get.http_headers.iter().flatten();
    let named = |name: &str| get.http_headers.iter().flatten().any(|h| h.name.eq_ignore_ascii_case(name));
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let mut request = http::Request::get(path);
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    for (name, value) in
        [("host", format!("{bracketed}:{port}").as_str()), ("user-agent", USER_AGENT), ("accept", "*/*"), ("connection", "close")]
    {
        if !named(name) {
            request = request.header(name, value);
        }
    }
    let request = request.body(Full::new(Bytes::new())).map_err(unwell)?;
    let stream = TcpStream::connect((host, port)).await.map_err(|e| unwell(format!("Get \"{path}\": connect: {e}")))?;
    let response = if tls {
        let name = ServerName::try_from(host.to_owned()).map_err(unwell)?;
        let stream = tokio_rustls::TlsConnector::from(any_certificate()).connect(name, stream).await.map_err(unwell)?;
        send(TokioIo::new(stream), request).await?
    } else {
        send(TokioIo::new(stream), request).await?
    };
    let status = response.status().as_u16();
    let location = response.headers().get("location").and_then(|l| l.to_str().ok()).map(str::to_owned);
    let body = Limited::new(response.into_body(), BODY_BYTES).collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
}

async fn send<S>(io: S, request: http::Request<Full<Bytes>>) -> Result<http::Response<hyper::body::Incoming>, Unwell>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(unwell)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(unwell)
}

async fn health(target: &Target, action: &GRPCAction) -> Result<(), Unwell> {
    let host = host(target, None)?;
    let port = u16::try_from(action.port).map_err(unwell)?;
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|e| unwell(format!("connect: {e}")))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(unwell)?;
    tokio::spawn(connection);
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host };
    let request = http::Request::post(format!("http://{bracketed}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", USER_AGENT)
        .body(Full::new(grpc::request(action.service.as_deref().unwrap_or_default())))
        .map_err(unwell)?;
    let response = sender.send_request(request).await.map_err(unwell)?;
    let body = Limited::new(response.into_body(), BODY_BYTES).collect().await.map_err(unwell)?.to_bytes();
    if grpc::is_serving(&body) { Ok(()) } else { Err(unwell("the service does not say SERVING")) }
}

/// Probes of scheme HTTPS do not verify the certificate: the field's contract.
fn any_certificate() -> Arc<rustls::ClientConfig> {
    static CONFIG: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
        let config = stranger::client_config(&Arc::new(rustls::crypto::ring::default_provider()));
        #[expect(clippy::expect_used, reason = "ring has the default versions: known when this is compiled")]
        Arc::new(config.expect("protocol versions of ring"))
    });
    Arc::clone(&CONFIG)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers once, and what a probe makes of it.
    async fn check(answer: &str) -> Result<Warning, Unwell> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let answer = answer.to_owned();
        let served = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a caller");
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await.expect("a request");
            socket.write_all(answer.as_bytes()).await.expect("written");
        });
        let get = HTTPGetAction { port: IntOrString::Int(port.into()), ..HTTPGetAction::default() };
        let id = ContainerId { sandbox: String::new(), id: String::new() };
        let target = Target { id, address: "127.0.0.1".parse().ok(), container: Container::default() };
        let result = http_get(&target, &get).await;
        served.await.expect("it served");
        result
    }

    #[tokio::test]
    async fn who_leads_to_another_host_is_well_and_told_of() {
        let answer = |head: &str| format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        assert_eq!(check(&answer("200 OK")).await, Ok(None));
        let warning = check(&answer("302 Found\r\nlocation: http://192.0.2.1/elsewhere")).await.expect("it is well").expect("a warning");
        assert!(warning.contains("http://192.0.2.1/elsewhere"), "{warning}");
        assert!(check(&answer("500 Broken")).await.is_err());
    }
}
