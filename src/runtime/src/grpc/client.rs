//! The calling side: one connection per socket, made at the first call and again after it has ended.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Uri, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{net::UnixStream, sync::Mutex};
use tonic::{Request, Status, Streaming, body::Body, client::Grpc};
use tonic_prost::ProstCodec;
use tower::Service;

use super::MESSAGE_BYTES;

/// How long a socket may take to accept, when the call has no deadline of its own.
const CONNECT: Duration = Duration::from_secs(10);

/// A gRPC server at a unix socket. Clones share the connection.
#[derive(Clone)]
pub struct Channel {
    path: Arc<Path>,
    connection: Arc<Mutex<Option<http2::SendRequest<Body>>>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Channel {
    /// Connects to nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into(), connection: Arc::default() }
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Calls a method that answers once. The deadline covers the connection, too, and the server is told of it.
    pub async fn unary<Q, A>(&self, method: &'static str, message: Q, deadline: Option<Duration>) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(message);
        let Some(deadline) = deadline else {
            let answer = self.wire().await?.unary(request, PathAndQuery::from_static(method), codec()).await;
            return Ok(answer.map_err(|status| self.broken(status))?.into_inner());
        };
        request.set_timeout(deadline);
        let call = async { self.wire().await?.unary(request, PathAndQuery::from_static(method), codec()).await };
        let answer = tokio::time::timeout(deadline, call).await;
        let answer = answer.map_err(|_| Status::deadline_exceeded(format!("{method} did not answer in {deadline:?}")))?;
        Ok(answer.map_err(|status| self.broken(status))?.into_inner())
    }

    /// Calls a method that answers with a stream, which ends with the connection at the latest.
    pub async fn streaming<Q, A>(&self, method: &'static str, message: Q) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut wire = self.wire().await?;
        let answer = wire.server_streaming(Request::new(message), PathAndQuery::from_static(method), codec()).await;
        Ok(answer.map_err(|status| self.broken(status))?.into_inner())
    }

    /// A status that the server did not send is of the connection: it broke.
    fn broken(&self, status: Status) -> Status {
        match std::error::Error::source(&status) {
            Some(cause) => Status::unavailable(format!("the connection to {} broke: {cause}", self.path.display())),
            None => status,
        }
    }

    async fn wire(&self) -> Result<Grpc<Wire>, Status> {
        let sender = tokio::time::timeout(CONNECT, self.sender());
        let unavailable = |error: io::Error| Status::unavailable(format!("cannot connect to {}: {error}", self.path.display()));
        let sender = sender.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unavailable)?;
        // The name in the request is for the log of the server, at most.
        let mut wire = Grpc::with_origin(Wire(sender), Uri::from_static("http://localhost")).max_decoding_message_size(MESSAGE_BYTES);
        wire.ready().await.map_err(|error| Status::unavailable(format!("the connection to {} has ended: {error}", self.path.display())))?;
        Ok(wire)
    }

    async fn sender(&self) -> io::Result<http2::SendRequest<Body>> {
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_mut()
            // Not only closed, but about to be: a server that restarts says so before it goes.
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        let stream = UnixStream::connect(&*self.path).await?;
        let (sender, driver) = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let path = self.path.clone();
        tokio::spawn(async move {
            // Ends when the last clone of the sender and every answer is gone, or the other side is.
            if let Err(error) = driver.await {
                tracing::debug!(path = %path.display(), %error, "a connection has ended");
            }
        });
        *connection = Some(sender.clone());
        Ok(sender)
    }
}

fn codec<Q: Message + 'static, A: Message + Default + 'static>() -> ProstCodec<Q, A> {
    ProstCodec::default()
}

/// A connection as tonic wants it.
struct Wire(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
