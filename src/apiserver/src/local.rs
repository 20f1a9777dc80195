//! The API server as a service inside the process: the same pipeline from authorization on, without TLS and sockets.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use crate::{
    body::{Body, BodyError},
    pipeline,
    request::User,
    server::Shared,
};

/// A [`tower::Service`] that answers as the server does, for one user; `kube::Client::new` takes it.
#[derive(Clone, Debug)]
pub struct Local {
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: User,
}

impl<B> tower::Service<Request<B>> for Local
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (shared, user) = (Arc::clone(&self.shared), self.user.clone());
        Box::pin(async move { Ok(pipeline::local(&shared, user, request).await) })
    }
}
