//! Requests that become streams: exec, attach and port-forward, over WebSocket or SPDY, by what the client asks for.

use std::{path::PathBuf, sync::Arc};

use coracle_runtime::{AttachRequest, ContainerId, ExecRequest, RuntimeError, Streams};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{
    port_forward,
    query::Query,
    route::{Body, text},
    session::{self, Client, Output},
    spdy_session::{self, Expected},
    websocket,
};
use crate::{
    context::{Context, chain},
    pod::spec,
    pods::Pods,
};

/// Protocols of exec and attach over SPDY, the newest first.
const SPDY_SESSIONS: [&str; 4] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
/// Port-forward's protocol over SPDY.
const SPDY_FORWARD: &str = "portforward.k8s.io";

/// Which container is meant.
#[derive(Debug)]
pub struct Name<'a> {
    namespace: &'a str,
    pod: &'a str,
    uid: Option<&'a str>,
    container: &'a str,
}

impl<'a> Name<'a> {
    /// As the path says.
    pub fn new(namespace: &'a str, pod: &'a str, uid: Option<&'a str>, container: &'a str) -> Self {
        Self { namespace, pod, uid, container }
    }
}

/// How the client wants to go on.
enum Upgrade {
    WebSocket,
    Spdy,
}

/// Runs a command.
pub fn exec(ctx: Context, pods: Pods, name: &Name<'_>, query: &Query, request: Request<Incoming>) -> Response<Body> {
    let command = query.all("command");
    if command.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least one command to exec");
    }
    let expected = expected(query);
    let exec = ExecRequest { command, stdin: expected.stdin, stdout: expected.stdout, stderr: expected.stderr, tty: expected.tty };
    run(ctx, pods, name, expected, request, move |ctx, id| async move { ctx.runtime.exec(&id, &exec).await })
}

/// Joins the container's own streams.
pub fn attach(ctx: Context, pods: Pods, name: &Name<'_>, query: &Query, request: Request<Incoming>) -> Response<Body> {
    let mut expected = expected(query);
    let found = pods.find(name.namespace, name.pod, name.uid);
    let parts = found.map(|(pod, _)| spec::parts(&pod)).unwrap_or_default();
    expected.tty = spec::part(&parts, name.container).is_some_and(|p| p.spec.tty == Some(true));
    expected.stderr &= !expected.tty;
    let attach = AttachRequest { stdin: expected.stdin, stdout: expected.stdout, stderr: expected.stderr };
    run(ctx, pods, name, expected, request, move |ctx, id| async move { ctx.runtime.attach(&id, &attach).await })
}

fn expected(query: &Query) -> Expected {
    let tty = query.flag(&["tty"]);
    Expected {
        stdin: query.flag(&["input", "stdin"]),
        stdout: query.flag(&["output", "stdout"]),
        stderr: query.flag(&["error", "stderr"]) && !tty,
        tty,
    }
}

fn run<W, F>(ctx: Context, pods: Pods, name: &Name<'_>, expected: Expected, mut request: Request<Incoming>, work: W) -> Response<Body>
where
    W: FnOnce(Context, ContainerId) -> F + Send + 'static,
    F: Future<Output = Result<Streams, RuntimeError>> + Send + 'static,
{
    if !(expected.stdin || expected.stdout || expected.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let Some((_, facts)) = pods.find(name.namespace, name.pod, name.uid) else {
        return text(StatusCode::NOT_FOUND, format!("pod {:?} is not on this node\n", name.pod));
    };
    let id = facts.borrow().runs.get(name.container).filter(|r| r.2).map(|r| r.0.clone());
    let Some(id) = id else { return text(StatusCode::NOT_FOUND, format!("container not found ({:?})", name.container)) };
    let (upgrade, response) = match upgrade(request.headers(), &websocket::CHANNELS, &SPDY_SESSIONS) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let io = TokioIo::new(io);
        let session = move |client: Client| async move {
            match work(ctx, id).await {
                Ok(streams) => session::run(streams, client).await,
                Err(error) => drop(client.output.send(Output::Ended(session::failed(&chain(&error)))).await),
            }
        };
        match upgrade {
            Upgrade::WebSocket => {
                let (client, carry) = websocket::session(io, expected.stdin, expected.tty);
                let session = tokio::spawn(session(client));
                carry.await;
                session.abort();
            }
            Upgrade::Spdy => spdy_session::serve(io, expected, session).await,
        }
    });
    response
}

/// Forwards ports.
pub async fn port_forward(ctx: Context, pods: Pods, name: &Name<'_>, mut request: Request<Incoming>) -> Response<Body> {
    let Some((pod, facts)) = pods.find(name.namespace, name.pod, name.uid) else {
        return text(StatusCode::NOT_FOUND, format!("pod {:?} is not on this node\n", name.pod));
    };
    let sandbox = facts.borrow().sandbox.clone();
    let Some(sandbox) = sandbox else { return text(StatusCode::BAD_REQUEST, format!("pod {:?} does not run\n", name.pod)) };
    let netns = match netns(&ctx, &pod, &sandbox.id).await {
        Ok(netns) => netns,
        Err(message) => return text(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let (upgrade, response) = match upgrade(request.headers(), &[websocket::TUNNEL], &[SPDY_FORWARD]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal,
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let io = TokioIo::new(io);
        match upgrade {
            Upgrade::WebSocket => {
                let (io, carry) = websocket::tunnel(io);
                tokio::join!(port_forward::serve(io, netns), carry);
            }
            Upgrade::Spdy => port_forward::serve(io, netns).await,
        }
    });
    response
}

async fn netns(ctx: &Context, pod: &Arc<Pod>, sandbox: &str) -> Result<Option<PathBuf>, String> {
    if spec::host_network(pod) {
        return Ok(None);
    }
    let attachments = ctx.network.attachments().await.map_err(|e| chain(&e))?;
    let own = attachments.into_iter().find(|a| a.sandbox == sandbox);
    own.map(|a| Some(a.netns)).ok_or_else(|| "the pod has no network".to_owned())
}

/// Reads how the client wants to go on, and makes the answer that switches to it.
fn upgrade(headers: &HeaderMap, sockets: &[&str], spdys: &[&'static str]) -> Result<(Upgrade, Response<Body>), Response<Body>> {
    let wanted = headers.get("upgrade").and_then(|u| u.to_str().ok()).unwrap_or_default();
    let listed = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty()).collect()
    };
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let answer = response.headers_mut();
    answer.remove("content-type");
    answer.insert("connection", HeaderValue::from_static("Upgrade"));
    if wanted.eq_ignore_ascii_case("websocket") {
        let asked = listed("sec-websocket-protocol");
        let protocol = sockets.iter().find(|p| asked.iter().any(|a| a == *p));
        let (Some(protocol), Some(key)) = (protocol, headers.get("sec-websocket-key")) else {
            return Err(text(
                StatusCode::BAD_REQUEST,
                format!("unable to upgrade: none of the protocols {asked:?} is spoken here, but {sockets:?}"),
            ));
        };
        answer.insert("upgrade", HeaderValue::from_static("websocket"));
        if let (Ok(accept), Ok(name)) = (HeaderValue::from_str(&derive_accept_key(key.as_bytes())), HeaderValue::from_str(protocol)) {
            answer.insert("sec-websocket-accept", accept);
            answer.insert("sec-websocket-protocol", name);
        }
        return Ok((Upgrade::WebSocket, response));
    }
    if wanted.eq_ignore_ascii_case("SPDY/3.1") {
        let asked = listed("x-stream-protocol-version");
        let Some(protocol) = spdys.iter().find(|p| asked.iter().any(|a| a == *p)) else {
            let mut refusal =
                text(StatusCode::FORBIDDEN, format!("unable to upgrade: none of the protocols {asked:?} is spoken here, but {spdys:?}"));
            for protocol in spdys {
                refusal.headers_mut().append("x-accepted-stream-protocol-versions", HeaderValue::from_static(protocol));
            }
            return Err(refusal);
        };
        answer.insert("upgrade", HeaderValue::from_static("SPDY/3.1"));
        answer.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
        return Ok((Upgrade::Spdy, response));
    }
    Err(text(StatusCode::BAD_REQUEST, "unable to upgrade: the request must ask for WebSocket or SPDY/3.1"))
}
