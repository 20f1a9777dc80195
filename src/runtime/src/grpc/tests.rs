//! Both sides against each other over a real socket.

use std::{path::PathBuf, time::Duration};

use futures::{StreamExt as _, stream};
use tokio::{net::UnixListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Channel, Code, Router, Status};

/// A number and a name: enough to see that fields arrive.
#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(int64, tag = "1")]
    number: i64,
    #[prost(string, tag = "2")]
    name: String,
}

fn router() -> Router {
    Router::default()
        .unary("/test.Items/Double", |item: Item| async move {
            match item.number {
                0 => Err(Status::invalid_argument("nothing to double")),
                number => Ok(Item { number: number * 2, ..item }),
            }
        })
        .unary("/test.Items/Never", |_: Item| std::future::pending::<Result<Item, Status>>())
        .streaming("/test.Items/Count", |item: Item| async move {
            let up_to = item.number;
            let numbers = stream::iter((1..=up_to).map(|number| Ok(Item { number, name: String::new() })));
            Ok(numbers.chain(stream::once(async { Err(Status::aborted("counted")) })))
        })
        .streaming("/test.Items/Follow", |item: Item| async move { Ok(stream::once(async move { Ok(item) }).chain(stream::pending())) })
}

struct Served {
    _dir: tempfile::TempDir,
    path: PathBuf,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn serve() -> Served {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let stop = CancellationToken::new();
    let task = tokio::spawn(router().serve(UnixListener::bind(&path).unwrap(), stop.clone()));
    Served { _dir: dir, path, stop, task }
}

fn item(number: i64) -> Item {
    Item { number, name: "n".repeat(100_000) }
}

#[tokio::test]
async fn a_call_is_answered_with_a_message_or_a_status() {
    let served = serve();
    let channel = Channel::new(&served.path);
    let answer: Item = channel.unary("/test.Items/Double", item(21), None).await.unwrap();
    assert_eq!(answer, item(42));
    let refused = channel.unary::<Item, Item>("/test.Items/Double", item(0), Some(Duration::from_secs(5))).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "nothing to double"));
    let unknown = channel.unary::<Item, Item>("/test.Items/Triple", item(1), None).await.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let served = serve();
    let channel = Channel::new(&served.path);
    let calls = (1..=50).map(|n| {
        let channel = channel.clone();
        async move { channel.unary::<Item, Item>("/test.Items/Double", item(n), None).await.unwrap().number }
    });
    let answers = futures::future::join_all(calls).await;
    assert_eq!(answers, (1..=50).map(|n| n * 2).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stream_brings_its_messages_then_its_status() {
    let served = serve();
    let mut counted = Channel::new(&served.path).streaming::<Item, Item>("/test.Items/Count", item(3)).await.unwrap();
    let mut numbers = Vec::new();
    let end = loop {
        match counted.message().await {
            Ok(Some(item)) => numbers.push(item.number),
            Ok(None) => panic!("the stream ended without its status"),
            Err(status) => break status,
        }
    };
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!((end.code(), end.message()), (Code::Aborted, "counted"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_a_deadline() {
    let served = serve();
    let channel = Channel::new(&served.path);
    let status = channel.unary::<Item, Item>("/test.Items/Never", item(1), Some(Duration::from_millis(50))).await.unwrap_err();
    // Whoever notices first, the server (which is told of the deadline) or the caller.
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status:?}");
    // The connection goes on.
    assert_eq!(channel.unary::<Item, Item>("/test.Items/Double", item(2), None).await.unwrap().number, 4);
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_a_restart_is_not_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let channel = Channel::new(&path);
    let status = channel.unary::<Item, Item>("/test.Items/Double", item(1), None).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains(path.to_str().unwrap()), "{status:?}");
    for _ in 0..2 {
        let stop = CancellationToken::new();
        let task = tokio::spawn(router().serve(UnixListener::bind(&path).unwrap(), stop.clone()));
        assert_eq!(channel.unary::<Item, Item>("/test.Items/Double", item(4), None).await.unwrap().number, 8);
        stop.cancel();
        task.await.unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_call_that_the_end_of_its_server_cuts_off_is_unavailable() {
    let served = serve();
    let channel = Channel::new(&served.path);
    let call = channel.unary::<Item, Item>("/test.Items/Never", item(1), None);
    let cut = async {
        served.stop.cancel();
        served.task.await.unwrap();
    };
    // The call is on its way before the server is told to end.
    let mut call = Box::pin(call);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut call).await.is_err());
    let (status, ()) = tokio::join!(call, cut);
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_server_ends_though_a_stream_goes_on() {
    let served = serve();
    let mut followed = Channel::new(&served.path).streaming::<Item, Item>("/test.Items/Follow", item(7)).await.unwrap();
    assert_eq!(followed.message().await.unwrap().unwrap().number, 7);
    served.stop.cancel();
    served.task.await.unwrap();
    assert!(followed.message().await.is_err());
}

#[tokio::test]
async fn a_caller_that_names_the_sockets_path_is_served() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let served = serve();
    let mut stream = tokio::net::UnixStream::connect(&served.path).await.unwrap();
    // As grpc-go sends it: POST, http, the method, the path as authority, content-type and te; then an empty message.
    let path = b"%2Frun%2Fkubelet.sock";
    let literal = |index: u8, text: &[u8]| [&[0x40 | index, text.len() as u8], text].concat();
    let te = [&b"\x40\x02te\x08trailers"[..]].concat();
    let block = [vec![0x83, 0x86], literal(4, b"/test.Items/Double"), literal(1, path), literal(31, b"application/grpc"), te].concat();
    let head = |length: usize, kind: u8, flags: u8, id: u8| [0, 0, length as u8, kind, flags, 0, 0, 0, id];
    let message = [0, 0, 0, 0, 2, 8, 21];
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for part in [&head(0, 4, 0, 0)[..], &head(block.len(), 1, 4, 1), &block, &head(message.len(), 0, 1, 1), &message] {
        request.extend_from_slice(part);
    }
    stream.write_all(&request).await.unwrap();
    let mut seen = Vec::new();
    let answer = [0, 0, 0, 0, 2, 8, 42];
    while !seen.windows(answer.len()).any(|part| part == answer) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "{seen:?}");
    }
}
