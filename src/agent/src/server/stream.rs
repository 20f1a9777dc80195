//! Requests that become streams: exec, attach and port-forward, over WebSocket or SPDY, by what the client asks for.

use std::{path::PathBuf, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use coracle_runtime::{AttachRequest, ContainerId, ExecRequest, RuntimeError, Streams};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;

use super::{
    answer::text,
    channels::Coding,
    port_channels, port_forward,
    query::Query,
    route::{Name, Node},
    session::{self, Client, Output},
    spdy_session::{self, Expected},
    upgrade::{self, Carrier, Upgrade},
    websocket,
};
use crate::{
    context::{Context, chain},
    pod::spec,
};

/// Protocols of exec and attach over SPDY, the newest first.
const SPDY_SESSIONS: [&str; 4] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io"];
/// Port-forward's protocol over SPDY.
const SPDY_FORWARD: &str = "portforward.k8s.io";

/// Runs a command.
pub async fn exec(State(node): State<Node>, name: Name, query: Query, request: Request) -> Response {
    let command = query.all("command");
    if command.is_empty() {
        return text(StatusCode::BAD_REQUEST, "you must specify at least one command to exec");
    }
    let expected = expected(&query);
    let exec = ExecRequest { command, stdin: expected.stdin, stdout: expected.stdout, stderr: expected.stderr, tty: expected.tty };
    run(node, &name, expected, request, move |ctx, id| async move { ctx.runtime.exec(&id, &exec).await })
}

/// Joins the container's own streams.
pub async fn attach(State(node): State<Node>, name: Name, query: Query, request: Request) -> Response {
    let mut expected = expected(&query);
    let found = node.pods.find(&name.namespace, &name.pod, name.uid.as_deref());
    let parts = found.map(|(pod, _)| spec::parts(&pod)).unwrap_or_default();
    expected.tty = spec::part(&parts, &name.container).is_some_and(|p| p.spec.tty == Some(true));
    expected.stderr &= !expected.tty;
    let attach = AttachRequest { stdin: expected.stdin, stdout: expected.stdout, stderr: expected.stderr };
    run(node, &name, expected, request, move |ctx, id| async move { ctx.runtime.attach(&id, &attach).await })
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

fn run<W, F>(node: Node, name: &Name, expected: Expected, mut request: Request, work: W) -> Response
where
    W: FnOnce(Context, ContainerId) -> F + Send + 'static,
    F: Future<Output = Result<Streams, RuntimeError>> + Send + 'static,
{
    if !(expected.stdin || expected.stdout || expected.stderr) {
        return text(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr");
    }
    let Node { ctx, pods } = node;
    let Some((_, facts)) = pods.find(&name.namespace, &name.pod, name.uid.as_deref()) else {
        return text(StatusCode::NOT_FOUND, format!("pod {:?} is not on this node\n", name.pod));
    };
    let id = facts.borrow().runs.get(&name.container).filter(|r| r.2).map(|r| r.0.clone());
    let Some(id) = id else { return text(StatusCode::NOT_FOUND, format!("container not found ({:?})", name.container)) };
    let Upgrade { carrier, protocol, answer } = match upgrade::choose(request.headers(), &websocket::CHANNELS, &SPDY_SESSIONS) {
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
        match carrier {
            Carrier::WebSocket => {
                let (client, carry) = websocket::session(io, protocol, expected.stdin, expected.tty);
                let session = tokio::spawn(session(client));
                carry.await;
                session.abort();
            }
            Carrier::Spdy => spdy_session::serve(io, expected, session).await,
        }
    });
    answer
}

/// Forwards ports.
pub async fn port_forward(State(Node { ctx, pods }): State<Node>, name: Name, query: Query, mut request: Request) -> Response {
    let Some((pod, facts)) = pods.find(&name.namespace, &name.pod, name.uid.as_deref()) else {
        return text(StatusCode::NOT_FOUND, format!("pod {:?} is not on this node\n", name.pod));
    };
    let sandbox = facts.borrow().sandbox.clone();
    let Some(sandbox) = sandbox else { return text(StatusCode::BAD_REQUEST, format!("pod {:?} does not run\n", name.pod)) };
    let netns = match netns(&ctx, &pod, &sandbox.id).await {
        Ok(netns) => netns,
        Err(message) => return text(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let Upgrade { carrier, protocol, answer } = match upgrade::choose(request.headers(), &websocket::FORWARDS, &[SPDY_FORWARD]) {
        Ok(upgrade) => upgrade,
        Err(refusal) => return refusal,
    };
    let in_channels = carrier == Carrier::WebSocket && protocol != websocket::TUNNEL;
    // Streams of SPDY name their port themselves.
    let ports = match port_channels::ports(&query) {
        Err(message) if in_channels => return text(StatusCode::BAD_REQUEST, message),
        ports => ports.unwrap_or_default(),
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let io = TokioIo::new(io);
        match carrier {
            Carrier::WebSocket if in_channels => port_channels::serve(io, Coding::of(protocol), ports, netns).await,
            Carrier::WebSocket => {
                let (io, carry) = websocket::tunnel(io);
                tokio::join!(port_forward::serve(io, netns), carry);
            }
            Carrier::Spdy => port_forward::serve(io, netns).await,
        }
    });
    answer
}

async fn netns(ctx: &Context, pod: &Arc<Pod>, sandbox: &str) -> Result<Option<PathBuf>, String> {
    if spec::host_network(pod) {
        return Ok(None);
    }
    let attachments = ctx.network.attachments().await.map_err(|e| chain(&e))?;
    let own = attachments.into_iter().find(|a| a.sandbox == sandbox);
    own.map(|a| Some(a.netns)).ok_or_else(|| "the pod has no network".to_owned())
}
