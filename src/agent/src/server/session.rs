//! One exec or attach session, whatever carries it: pumps the runtime's streams and says how it ended.

use std::time::Duration;

use bytes::Bytes;
use coracle_runtime::{Streams, TerminalSize};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

/// Bytes that are read of an output at once.
const READ_BYTES: usize = 32 << 10;
/// Outputs that wait for a slow client.
pub const QUEUE_OUTPUTS: usize = 8;
/// What a process's children may still write after its end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The client's side.
#[derive(Debug)]
pub struct Client {
    /// Its stdin; ends with it.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// Sizes of its terminal.
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
    /// What it is sent.
    pub output: mpsc::Sender<Output>,
}

/// What a client is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Of the process.
    Stdout(Bytes),
    /// Of the process.
    Stderr(Bytes),
    /// How it ended: a Status object, the last word.
    Ended(Bytes),
}

/// Runs a session to its end. A client that goes away ends it.
pub async fn run(streams: Streams, client: Client) {
    let Streams { stdin, stdout, stderr, resize, exit } = streams;
    let input = async {
        let (Some(mut to), Some(mut from)) = (stdin, client.stdin) else { return };
        while let Some(data) = from.recv().await {
            if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let sizes = async {
        let (Some(to), Some(mut from)) = (resize, client.resize) else { return };
        while let Some(size) = from.recv().await {
            if to.send(size).await.is_err() {
                return;
            }
        }
    };
    let outputs = async {
        tokio::join!(pump(stdout, &client.output, Output::Stdout), pump(stderr, &client.output, Output::Stderr));
    };
    let aside = async {
        tokio::join!(input, sizes);
        std::future::pending::<()>().await;
    };
    tokio::pin!(outputs);
    let exit = async {
        tokio::pin!(exit);
        tokio::select! {
            code = &mut exit => {
                let _ = tokio::time::timeout(LAST_WORDS, &mut outputs).await;
                code.ok()
            }
            () = &mut outputs => exit.await.ok(),
        }
    };
    let code = tokio::select! {
        code = exit => code,
        () = aside => None,
        () = client.output.closed() => return,
    };
    let _ = client.output.send(Output::Ended(ended(code))).await;
}

async fn pump(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: &mpsc::Sender<Output>, wrap: fn(Bytes) -> Output) {
    let Some(mut from) = from else { return };
    let mut buffer = bytes::BytesMut::with_capacity(READ_BYTES);
    loop {
        buffer.reserve(READ_BYTES);
        match from.read_buf(&mut buffer).await {
            Ok(read) if read > 0 => {
                if to.send(wrap(buffer.split().freeze())).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}

/// The Status of an exit code; `None`: nobody knows it.
pub fn ended(code: Option<i32>) -> Bytes {
    let status = match code {
        Some(0) => json!({ "metadata": {}, "status": "Success" }),
        Some(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
        }),
        None => failure("the container runtime does not know how the command ended"),
    };
    Bytes::from(status.to_string())
}

/// The Status of a session that could not be.
pub fn failed(message: &str) -> Bytes {
    Bytes::from(failure(message).to_string())
}

fn failure(message: &str) -> Value {
    json!({
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "InternalError",
        // Clients look here for why, as they do for an exit code: the Python client falls over without.
        "details": { "causes": [{ "message": message }] },
        "code": 500,
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn every_failure_has_a_cause() {
        for (status, cause) in [(ended(Some(7)), "7"), (failed("no such program"), "no such program")] {
            let status: Value = serde_json::from_slice(&status).expect("a Status");
            assert_eq!(status["details"]["causes"][0]["message"], cause, "{status}");
        }
    }

    #[tokio::test]
    async fn outputs_come_before_the_end_and_stdin_is_closed() {
        let (exited, exit) = oneshot::channel();
        let (process_in, stdin) = tokio::io::duplex(64);
        let (process_out, stdout) = tokio::io::duplex(64);
        let streams = Streams { stdin: Some(Box::new(stdin)), stdout: Some(Box::new(stdout)), stderr: None, resize: None, exit };
        let (typed, stdin) = mpsc::channel(1);
        let (output, mut shown) = mpsc::channel(QUEUE_OUTPUTS);
        let session = tokio::spawn(run(streams, Client { stdin: Some(stdin), resize: None, output }));
        typed.send(Bytes::from_static(b"hello")).await.expect("typed");
        drop(typed);
        let (mut process_in, mut process_out) = (process_in, process_out);
        let mut read = String::new();
        process_in.read_to_string(&mut read).await.expect("stdin ends");
        process_out.write_all(read.to_uppercase().as_bytes()).await.expect("written");
        exited.send(3).expect("told");
        drop(process_out);
        assert_eq!(shown.recv().await, Some(Output::Stdout(Bytes::from_static(b"HELLO"))));
        assert_eq!(shown.recv().await, Some(Output::Ended(ended(Some(3)))));
        assert_eq!(shown.recv().await, None);
        session.await.expect("joined");
    }
}
