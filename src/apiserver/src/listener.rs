//! The listener: accepts connections, speaks TLS and both versions of HTTP on them, hands requests to the router.

use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Layer as _;

use crate::{
    authentication::{Caller, certificate::Presented},
    pipeline::Peer,
};

/// Connections at once: each costs some 50 KiB with TLS; a hundred nodes with their clients need a fraction.
const CONNECTIONS: usize = 4096;
/// How long a client may take for its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of the head of a request: a token, a long selector, and room.
const HEAD_BYTES: usize = 64 * 1024;
/// Header fields of a request.
const HEADERS: usize = 200;
/// Requests at once on one HTTP/2 connection; upstream's default.
const STREAMS: u32 = 250;
/// How often an idle HTTP/2 connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes that a request's body may run ahead of us on one stream: bodies are bounded by 3 MiB and most have a few KiB.
const WINDOW_BYTES: u32 = 256 * 1024;
/// How long to wait after the system had no descriptor for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop`, then waits for the connections, which end their streams themselves.
pub(crate) async fn run(listener: TcpListener, tls: ServerConfig, router: Router, stop: CancellationToken, connections: TaskTracker) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some((stream, peer)) = next(&listener, &stop).await {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, bound = CONNECTIONS, "too many connections, one is refused");
            continue;
        };
        let (acceptor, router, stop) = (acceptor.clone(), router.clone(), stop.clone());
        connections.spawn(async move {
            serve(stream, peer, &acceptor, router, &stop).await;
            drop(place);
        });
    }
}

/// The next connection; `None` at the end.
async fn next(listener: &TcpListener, stop: &CancellationToken) -> Option<(TcpStream, SocketAddr)> {
    loop {
        match stop.run_until_cancelled(listener.accept()).await? {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                stop.run_until_cancelled(tokio::time::sleep(EXHAUSTED_PAUSE)).await?;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, acceptor: &TlsAcceptor, router: Router, stop: &CancellationToken) {
    // Answers are small; waiting to fill a packet would only delay them.
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
    };
    let caller = Caller::Connection(Presented::of(stream.get_ref().1).map(Arc::new));
    let service = TowerToHyperService::new(Extension(Peer(peer.ip())).layer(Extension(caller).layer(router)));
    let builder = builder();
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            poll_fn(|cx| connection.as_mut().poll(cx)).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "a connection broke");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES).max_headers(HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(4 * WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}
