//! The node's own HTTPS server with the kubelet's paths: logs, exec, attach, port-forward, health, pods, stats.

mod caller;
mod log;
mod port_forward;
mod query;
mod route;
mod session;
pub mod spdy;
mod spdy_session;
mod stats;
mod stream;
mod websocket;

use std::{sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, pods::Pods};

/// Connections at once; the API server is the only caller.
const CONNECTIONS: usize = 1_000;
/// A TLS handshake or the head of a request takes no longer.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves until the agent stops.
pub async fn serve(ctx: Context, pods: Pods, listener: TcpListener, stop: CancellationToken) {
    let tls = TlsAcceptor::from(ctx.config.tls.clone());
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((socket, _)) = accepted else {
            // Out of descriptors, most likely: some time may help.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (tls, ctx, pods) = (tls.clone(), ctx.clone(), pods.clone());
        let served = async move {
            connection(tls, ctx, pods, socket).await;
            drop(permit);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(served));
    }
}

async fn connection(tls: TlsAcceptor, ctx: Context, pods: Pods, socket: TcpStream) {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a caller of the node has no TLS that holds"),
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let allowed = certificates.and_then(|c| c.first()).is_some_and(caller::may_call);
    let service = service_fn(move |request| route::answer(ctx.clone(), pods.clone(), allowed, request));
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE);
    if let Err(error) = server.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the node broke");
    }
}
