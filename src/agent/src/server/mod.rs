//! The node's own HTTPS server with the kubelet's paths: logs, exec, attach, port-forward, health, pods, stats.

mod answer;
mod authorize;
mod caller;
mod channels;
mod configz;
mod files;
mod log;
mod port_channels;
mod port_forward;
mod query;
mod route;
mod session;
mod spdy_session;
mod stats;
mod stream;
mod upgrade;
mod websocket;

use std::{sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

use crate::{context::Context, pods::Pods};
use caller::Caller;
use route::Node;

/// Connections at once; the API server is the only caller.
const CONNECTIONS: usize = 1_000;
/// A TLS handshake or the head of a request takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for the system to find descriptors again when it is out of them.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the agent stops.
pub async fn serve(ctx: Context, pods: Pods, listener: TcpListener, stop: CancellationToken) {
    let tls = TlsAcceptor::from(ctx.config.tls.clone());
    let router = route::router(Node { ctx, pods });
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the node");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
                continue;
            }
        };
        let (tls, router) = (tls.clone(), router.clone());
        let served = async move {
            connection(tls, router, socket).await;
            drop(permit);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(served));
    }
}

async fn connection(tls: TlsAcceptor, router: Router, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a caller of the node has no TLS that holds"),
        Err(_) => return,
    };
    let caller = Caller::of(stream.get_ref().1.peer_certificates());
    let service = TowerToHyperService::new(Extension(caller).layer(router));
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the node broke");
    }
}
