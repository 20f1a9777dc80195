//! gRPC over unix sockets, both sides: how a node speaks with container runtimes, device plugins and monitors.
//!
//! Messages are `prost` structs; a method is its path, as in `/runtime.v1.RuntimeService/Version`.
//!
//! ```no_run
//! # use coracle_runtime::grpc::{Channel, Router, Status};
//! # #[derive(Clone, PartialEq, prost::Message)] struct Empty {}
//! # async fn f(listener: tokio::net::UnixListener, stop: tokio_util::sync::CancellationToken) -> Result<(), Status> {
//! let router = Router::default().unary("/demo.Echo/Ping", |ping: Empty| async move { Ok::<Empty, Status>(ping) });
//! tokio::spawn(router.serve(listener, stop));
//! let channel = Channel::new("/run/demo.sock");
//! let pong: Empty = channel.unary("/demo.Echo/Ping", Empty {}, None).await?;
//! # Ok(()) }
//! ```

mod authority;
mod client;
mod server;
#[cfg(test)]
mod tests;

pub use client::Channel;
pub use server::Router;
pub use tonic::{Code, Status, Streaming};

/// Bytes of one message, either way: what kubelets and container runtimes allow each other.
pub const MESSAGE_BYTES: usize = 16 << 20;
