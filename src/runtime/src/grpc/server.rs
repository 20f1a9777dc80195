//! The serving side: methods by path, on a listener that the caller made.

use std::{collections::HashMap, convert::Infallible, fmt, sync::Arc, time::Duration};

use futures::{Stream, future::BoxFuture};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

use super::{
    MESSAGE_BYTES,
    authority::{Local, TABLE_BYTES},
};

/// Connections at a time. Callers are programs of this node, each with one; more wait in the listener's queue.
const CONNECTIONS: usize = 64;
/// Calls at a time on one connection.
const CALLS: u32 = 128;
/// How long calls may go on after the end was asked for.
const DRAIN: Duration = Duration::from_secs(1);
/// Until the next attempt to accept, when the process has no file descriptor left.
const NOT_ACCEPTED: Duration = Duration::from_millis(100);

type Method = Box<dyn Fn(Request<Incoming>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// What a server answers: methods by their paths.
#[derive(Default)]
pub struct Router {
    methods: HashMap<&'static str, Method>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.methods.keys()).finish()
    }
}

impl Router {
    /// With a method that answers once.
    pub fn unary<Q, A, F, R>(mut self, method: &'static str, answer: F) -> Self
    where
        Q: Message + Default + Send + 'static,
        A: Message + 'static,
        F: Fn(Q) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<A, Status>> + Send + 'static,
    {
        let serve = move |request: Request<Incoming>| {
            let answer = answer.clone();
            let service = tower::service_fn(move |request: tonic::Request<Q>| {
                let answer = answer(request.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            });
            Box::pin(async move { grpc::<A, Q>().unary(service, request).await }) as BoxFuture<'static, _>
        };
        self.methods.insert(method, Box::new(serve));
        self
    }

    /// With a method that answers with a stream. The stream is dropped when its caller goes away.
    pub fn streaming<Q, A, F, R, S>(mut self, method: &'static str, answer: F) -> Self
    where
        Q: Message + Default + Send + 'static,
        A: Message + 'static,
        F: Fn(Q) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<S, Status>> + Send + 'static,
        S: Stream<Item = Result<A, Status>> + Send + 'static,
    {
        let serve = move |request: Request<Incoming>| {
            let answer = answer.clone();
            let service = tower::service_fn(move |request: tonic::Request<Q>| {
                let answer = answer(request.into_inner());
                async move { answer.await.map(tonic::Response::new) }
            });
            Box::pin(async move { grpc::<A, Q>().server_streaming(service, request).await }) as BoxFuture<'static, _>
        };
        self.methods.insert(method, Box::new(serve));
        self
    }

    /// Serves until `stop`, then ends what still goes on. The socket's file stays: it is the caller's.
    pub async fn serve(self, listener: UnixListener, stop: CancellationToken) {
        let (router, places, connections) = (Arc::new(self), Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
        let end = CancellationToken::new();
        while let Some(Ok(place)) = stop.run_until_cancelled(places.clone().acquire_owned()).await {
            let stream = match stop.run_until_cancelled(listener.accept()).await {
                None => break,
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(NOT_ACCEPTED).await;
                    continue;
                }
            };
            let (router, stop, end) = (router.clone(), stop.clone(), end.clone());
            connections.spawn(async move {
                let service = hyper::service::service_fn(move |request| {
                    let router = router.clone();
                    async move { Ok::<_, Infallible>(router.call(request).await) }
                });
                let mut builder = http2::Builder::new(TokioExecutor::new());
                builder.max_concurrent_streams(CALLS).header_table_size(TABLE_BYTES);
                let connection = builder.serve_connection(TokioIo::new(Local::new(stream)), service);
                tokio::pin!(connection);
                let served = tokio::select! {
                    served = connection.as_mut() => served,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        tokio::select! { served = connection => served, () = end.cancelled() => Ok(()) }
                    }
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection has ended");
                }
                drop(place);
            });
        }
        drop(listener);
        connections.close();
        if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
            end.cancel();
            connections.wait().await;
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        match self.methods.get(request.uri().path()) {
            Some(method) => method(request).await,
            None => Status::unimplemented(format!("unknown method {}", request.uri().path())).into_http(),
        }
    }
}

fn grpc<A: Message + 'static, Q: Message + Default + 'static>() -> Grpc<ProstCodec<A, Q>> {
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MESSAGE_BYTES)
}
