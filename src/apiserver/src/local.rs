//! The API server as a service inside the process: the same pipeline, without TLS and sockets, for a user that is given.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use axum::{Extension, Router, middleware::AddExtension, routing::future::RouteFuture};
use bytes::Bytes;
use http::{Request, Response};
use tower::Layer as _;

use crate::{
    authentication::Caller,
    body::{Body, BodyError},
    request::User,
};

/// A [`tower::Service`] that answers as the server does, for one user; `kube::Client::new` takes it.
#[derive(Clone, Debug)]
pub struct Local(AddExtension<Router, Caller>);

impl Local {
    pub(crate) fn new(router: Router, user: User) -> Self {
        Self(Extension(Caller::Process(user)).layer(router))
    }
}

impl<B> tower::Service<Request<B>> for Local
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        tower::Service::<Request<B>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.0.call(request)
    }
}
