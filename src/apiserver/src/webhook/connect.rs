//! New connections to a webhook's server: a Service's endpoint is chosen anew for each.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::Service;

use super::{
    place::{Host, Place},
    resolve,
};
use crate::{link::Link, objects::Objects};

/// Dials one place, whatever the URI says.
#[derive(Clone)]
pub(super) struct Dial {
    place: Arc<Place>,
    objects: Arc<dyn Objects>,
}

impl Dial {
    pub fn new(place: Place, objects: Arc<dyn Objects>) -> Self {
        Self { place: Arc::new(place), objects }
    }

    async fn dial(self) -> io::Result<TokioIo<Link>> {
        let Place { address, server_name, tls } = &*self.place;
        let (host, port) = match &address.host {
            Host::Direct(host) => (host.clone(), address.port),
            Host::Service { namespace, name } => {
                resolve::endpoint(&*self.objects, namespace, name, address.port).map_err(io::Error::other)?
            }
        };
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(server_name.clone(), stream).await?;
        Ok(TokioIo::new(Link(stream)))
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Link>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Link>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}
