//! Port-forward: pairs of SPDY streams (data, error), each a connection to a port in the pod's network.

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use coracle_runtime::spdy::connection::{self, Stream};
use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

/// Streams that wait to be taken.
const QUEUE_STREAMS: usize = 16;
/// Bytes that are read at once.
const READ_BYTES: usize = 32 << 10;

/// Serves a connection; `netns` is the pod's network namespace, `None` the node's own.
pub async fn serve<S>(io: S, netns: Option<PathBuf>)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (sender, mut opened) = mpsc::channel(QUEUE_STREAMS);
    let serving = tokio::spawn(connection::serve(io, sender));
    let mut waiting: HashMap<String, Stream> = HashMap::new();
    let mut forwards = JoinSet::new();
    while let Some(stream) = opened.recv().await {
        while forwards.try_join_next().is_some() {}
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let Some(other) = waiting.remove(&id) else {
            waiting.insert(id, stream);
            continue;
        };
        let is_data = |s: &Stream| s.header("streamtype") == Some("data");
        let (data, error) = if is_data(&stream) { (stream, other) } else { (other, stream) };
        forwards.spawn(forward(data, error, netns.clone()));
    }
    forwards.shutdown().await;
    if let Ok(Err(error)) = serving.await {
        tracing::debug!(%error, "a SPDY connection broke");
    }
}

async fn forward(data: Stream, error: Stream, netns: Option<PathBuf>) {
    let port = data.header("port").and_then(|p| p.parse::<u16>().ok()).filter(|p| *p > 0);
    let connected = match port {
        Some(port) => dial(netns, port).await.map_err(|e| unreachable(port, &e)),
        None => Err("the stream names no port".to_owned()),
    };
    let socket = match connected {
        Ok(socket) => socket,
        Err(message) => {
            let _ = error.sender.send(Bytes::from(message)).await;
            let _ = tokio::join!(error.sender.finish(), data.sender.finish());
            return;
        }
    };
    let sender = data.sender.clone();
    let send = move |bytes| {
        let sender = sender.clone();
        async move { sender.send(bytes).await.is_ok() }
    };
    carry(socket, data.data, send).await;
    let _ = tokio::join!(error.sender.finish(), data.sender.finish());
}

/// What a client is told of a port that nobody listens on.
pub fn unreachable(port: u16, error: &io::Error) -> String {
    format!("cannot connect to port {port} of the pod: {error}")
}

/// Carries bytes both ways until the pod is done; `send` says whether the client still listens.
pub async fn carry<F>(mut socket: TcpStream, mut data: mpsc::Receiver<Bytes>, send: impl Fn(Bytes) -> F)
where
    F: Future<Output = bool>,
{
    let (mut from, mut to) = socket.split();
    let reading = async {
        while let Some(more) = data.recv().await {
            if to.write_all(&more).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let writing = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(READ_BYTES);
            match from.read_buf(&mut buffer).await {
                Ok(read) if read > 0 => {
                    if !send(buffer.split().freeze()).await {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    // The pod may answer after the client's last word; when the pod is done there is nobody to listen.
    tokio::pin!(writing);
    tokio::select! {
        () = &mut writing => {}
        () = reading => writing.await,
    }
}

/// Connects to the loopback of a network namespace. The namespace is entered by a thread of its own, which ends with it.
pub async fn dial(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    let Some(netns) = netns else { return connect_local(port).await };
    let (sender, answer) = oneshot::channel();
    std::thread::Builder::new().name("netns-dial".to_owned()).spawn(move || drop(sender.send(dial_in(&netns, port))))?;
    let stream = answer.await.map_err(io::Error::other)??;
    TcpStream::from_std(stream)
}

async fn connect_local(port: u16) -> io::Result<TcpStream> {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(first) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| first),
        connected => connected,
    }
}

fn dial_in(netns: &Path, port: u16) -> io::Result<std::net::TcpStream> {
    setns(File::open(netns)?, CloneFlags::CLONE_NEWNET)?;
    let timeout = std::time::Duration::from_secs(30);
    let connect = |address: SocketAddr| std::net::TcpStream::connect_timeout(&address, timeout);
    let stream = match connect((Ipv4Addr::LOCALHOST, port).into()) {
        Err(first) => connect((Ipv6Addr::LOCALHOST, port).into()).map_err(|_| first),
        connected => connected,
    }?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
