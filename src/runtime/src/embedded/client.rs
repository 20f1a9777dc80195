//! The main process's side of a shim's socket.

use std::{
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;
use tokio::io::AsyncReadExt;

use crate::{
    RuntimeError,
    process::pass,
    shim::protocol::{self, Failure, MESSAGE_BYTES, Reply, Request},
};

/// A request that is not answered in this time has failed: making a container takes milliseconds, on a disk that hangs it takes long.
const ANSWER: Duration = Duration::from_secs(120);

/// An open connection after its first answer.
pub(super) struct Open {
    pub(super) socket: tokio::net::UnixStream,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// One question, one answer.
pub(super) async fn ask(dir: &Path, request: Request) -> Result<Reply, RuntimeError> {
    Ok(open(dir, request, Vec::new()).await?.0)
}

/// A question whose connection stays.
pub(super) async fn open(dir: &Path, request: Request, descriptors: Vec<OwnedFd>) -> Result<(Reply, Open), RuntimeError> {
    let dir = dir.to_owned();
    let talk = move || -> io::Result<(Reply, UnixStream, Vec<OwnedFd>)> {
        let socket = connect(&dir)?;
        socket.set_read_timeout(Some(ANSWER))?;
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        pass::send(socket.as_fd(), &protocol::encode(&request)?, &borrowed)?;
        drop(descriptors);
        let mut given = Vec::new();
        let reply = protocol::receive(socket.as_fd(), &mut given)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        socket.set_nonblocking(true)?;
        Ok((reply, socket, given))
    };
    let failed = |source| RuntimeError::System { what: "could not talk to the pod's shim".to_owned(), source };
    let (reply, socket, descriptors) = tokio::task::spawn_blocking(talk).await.map_err(|e| failed(io::Error::other(e)))?.map_err(failed)?;
    if let Reply::Failed(failure) = reply {
        return Err(failure.into());
    }
    Ok((reply, Open { socket: tokio::net::UnixStream::from_std(socket).map_err(failed)?, descriptors }))
}

/// By a descriptor of the directory: a path of a socket has no more than 107 bytes.
fn connect(dir: &Path) -> io::Result<UnixStream> {
    let dir = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), crate::shim::state::SOCKET))
}

/// The next message of an open connection; `None` at its end. What is not understood comes from a newer shim and is passed over.
pub(super) async fn next<T: DeserializeOwned>(socket: &mut tokio::net::UnixStream) -> io::Result<Option<T>> {
    loop {
        let length = match socket.read_u32_le().await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            length => length? as usize,
        };
        if length > MESSAGE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
        }
        let mut bytes = vec![0; length];
        socket.read_exact(&mut bytes).await?;
        match serde_json::from_slice(&bytes) {
            Ok(message) => return Ok(Some(message)),
            Err(error) => tracing::debug!(%error, "a message of a shim that is not understood"),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound => Self::NotFound("container"),
            Failure::Invalid(text) => Self::Invalid(text),
            Failure::Start(text) => Self::Start(text),
            Failure::System(text) => Self::System { what: "the pod's shim could not do it".to_owned(), source: io::Error::other(text) },
        }
    }
}
