//! Port-forward over the channels of a WebSocket, two for each port (data, errors): what the Python client and kube-rs speak.

use std::path::PathBuf;

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Message;

use super::{channels::Coding, port_forward, query::Query, websocket};

/// Ports of one request; a channel's number is a byte, and nobody needs the half of them.
const PORTS: usize = 64;
/// Messages that wait for a slow pod or a slow client.
const QUEUE_MESSAGES: usize = 8;

/// The ports that a request names; they come in one list or one by one.
pub fn ports(query: &Query) -> Result<Vec<u16>, String> {
    let named = query.all("port");
    let mut ports = Vec::new();
    for text in named.iter().flat_map(|list| list.split(',')) {
        match text.parse() {
            Ok(0) | Err(_) => return Err(format!("a port must be a number from 1 to 65535, not {text:?}")),
            Ok(port) => ports.push(port),
        }
    }
    match ports.len() {
        0 => Err("query parameter \"port\" is required".to_owned()),
        1..=PORTS => Ok(ports),
        more => Err(format!("{more} ports are asked for, {PORTS} can be had at once")),
    }
}

/// Serves a connection until all its ports are done or the client goes.
pub async fn serve<S>(io: S, coding: Coding, ports: Vec<u16>, netns: Option<PathBuf>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut stream) = websocket::accept(io).await.split();
    let (sender, mut messages) = mpsc::channel(QUEUE_MESSAGES);
    let mut forwards = JoinSet::new();
    let mut typed = Vec::with_capacity(ports.len());
    for (index, port) in (0u8..).step_by(2).zip(ports) {
        let (to, data) = mpsc::channel(QUEUE_MESSAGES);
        typed.push(to);
        forwards.spawn(forward(port, data, Client { data: index, coding, sender: sender.clone() }, netns.clone()));
    }
    drop(sender);
    let reading = async {
        while let Some(Ok(message)) = stream.next().await {
            if matches!(message, Message::Close(_)) {
                return;
            }
            let Some((channel, data)) = coding.read(message) else { continue };
            // The errors' channels are the odd ones; nobody reads them here.
            if channel % 2 == 0
                && let Some(to) = typed.get(usize::from(channel / 2))
            {
                // A port that is done takes no more; the others go on.
                let _ = to.send(data).await;
            }
        }
    };
    let writing = async {
        while let Some(message) = messages.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(websocket::goodbye()).await;
    };
    tokio::select! {
        () = reading => {}
        () = writing => {}
    }
    forwards.shutdown().await;
}

/// The client's side of one port.
struct Client {
    /// The channel of its data; that of its errors is the next.
    data: u8,
    coding: Coding,
    sender: mpsc::Sender<Message>,
}

impl Client {
    async fn data(&self, bytes: &[u8]) -> bool {
        self.sender.send(self.coding.message(self.data, bytes)).await.is_ok()
    }

    async fn error(&self, bytes: &[u8]) -> bool {
        self.sender.send(self.coding.message(self.data.saturating_add(1), bytes)).await.is_ok()
    }
}

async fn forward(port: u16, data: mpsc::Receiver<Bytes>, client: Client, netns: Option<PathBuf>) {
    // Each channel begins with its port, so that the client knows which is which.
    let named = port.to_le_bytes();
    if !(client.data(&named).await && client.error(&named).await) {
        return;
    }
    match port_forward::dial(netns, port).await {
        Ok(socket) => {
            let send = |bytes: Bytes| {
                let (message, sender) = (client.coding.message(client.data, &bytes), client.sender.clone());
                async move { sender.send(message).await.is_ok() }
            };
            port_forward::carry(socket, data, send).await;
        }
        Err(error) => {
            client.error(port_forward::unreachable(port, &error).as_bytes()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };
    use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

    use super::*;

    #[test]
    fn ports_are_read() {
        for (query, expected) in [
            ("port=80", Ok(vec![80])),
            ("port=80,81&port=82", Ok(vec![80, 81, 82])),
            ("ports=80", Err("is required")),
            ("port=", Err("not \"\"")),
            ("port=0", Err("not \"0\"")),
            ("port=65536", Err("not \"65536\"")),
            (&format!("port={}", vec!["1"; PORTS + 1].join(",")), Err("can be had at once")),
        ] {
            match (ports(&Query::parse(query)), expected) {
                (Ok(ports), Ok(expected)) => assert_eq!(ports, expected),
                (Err(message), Err(expected)) => assert!(message.contains(expected), "{query}: {message}"),
                (got, _) => panic!("{query}: {got:?}"),
            }
        }
    }

    async fn check(coding: Coding) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let open = listener.local_addr().expect("an address").port();
        let closed = {
            let gone = TcpListener::bind("127.0.0.1:0").await.expect("bound");
            gone.local_addr().expect("an address").port()
        };
        let (near, far) = tokio::io::duplex(4096);
        let serving = tokio::spawn(serve(near, coding, vec![open, closed], None));
        let mut socket = WebSocketStream::from_raw_socket(far, Role::Client, None).await;
        socket.send(coding.message(0, b"ping")).await.expect("sent");
        let pod = async {
            let (mut pod, _) = listener.accept().await.expect("a connection");
            let mut heard = [0; 4];
            pod.read_exact(&mut heard).await.expect("read");
            assert_eq!(&heard, b"ping");
            pod.write_all(b"pong").await.expect("written");
        };
        let client = async {
            let mut shown = vec![Vec::new(); 4];
            while let Some(Ok(message)) = socket.next().await {
                if matches!(message, Message::Close(_)) {
                    assert_eq!(message, websocket::goodbye());
                    break;
                }
                let (channel, data) = coding.read(message).expect("a channel");
                shown[usize::from(channel)].extend_from_slice(&data);
            }
            shown
        };
        let ((), shown) = tokio::join!(pod, client);
        assert_eq!(shown[0], [&open.to_le_bytes()[..], b"pong"].concat());
        assert_eq!(shown[1], open.to_le_bytes());
        assert_eq!(shown[2], closed.to_le_bytes());
        assert_eq!(shown[3][..2], closed.to_le_bytes());
        assert!(String::from_utf8_lossy(&shown[3][2..]).contains("cannot connect"), "{shown:?}");
        serving.await.expect("joined");
    }

    #[tokio::test]
    async fn two_ports_in_binary_messages() {
        check(Coding::Binary).await;
    }

    #[tokio::test]
    async fn two_ports_in_base64() {
        check(Coding::Base64).await;
    }

    #[tokio::test]
    async fn a_client_that_goes_ends_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let (near, far) = tokio::io::duplex(4096);
        let serving = tokio::spawn(serve(near, Coding::Binary, vec![port], None));
        let (mut pod, _) = listener.accept().await.expect("a connection");
        drop(far);
        serving.await.expect("joined");
        assert_eq!(pod.read(&mut [0]).await.ok(), Some(0), "the pod's connection is closed");
    }
}
