//! The resident's control socket: JSON lines, one role at a time; every connection is greeted with who we are.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::Instant,
};

use super::state::{Kept, State};
use crate::records::{Change, Records};

/// A line is no longer: ten thousand Services with their endpoints fit.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Records are kept on disk at most this long after they changed.
const KEEP_AFTER: Duration = Duration::from_millis(500);

/// The first line that the resident says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of the program.
    pub version: String,
    /// Where it answers.
    pub address: SocketAddr,
    /// Services that it knows.
    pub services: usize,
}

/// What the resident is told, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Records change.
    Change(Change),
    /// Become this program, keeping the sockets.
    Become(PathBuf),
    /// End.
    Stop,
}

/// Serves the control socket until it is told to stop.
pub async fn obey(state: &State, records: &Arc<RwLock<Records>>, address: SocketAddr, kept: Kept) -> io::Result<()> {
    let path = state.control();
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    loop {
        let (stream, _) = listener.accept().await?;
        // The newest role wins: one that died may leave a connection that says nothing any more.
        let mut next = Some(stream);
        while let Some(stream) = next.take() {
            tokio::select! {
                end = talk(state, records, address, stream) => match end {
                    Some(Command::Stop) => return state.keep(&read(records)),
                    Some(Command::Become(program)) => return become_program(state, records, &program, &kept),
                    _ => {}
                },
                newer = listener.accept() => next = newer.ok().map(|(stream, _)| stream),
            }
        }
        state.keep(&read(records))?;
    }
}

/// One connection; returns the command that ends the resident, if one came.
async fn talk(state: &State, records: &Arc<RwLock<Records>>, address: SocketAddr, stream: UnixStream) -> Option<Command> {
    let (input, mut output) = stream.into_split();
    let hello = Hello { version: env!("CARGO_PKG_VERSION").into(), address, services: read(records).len() };
    let mut line = serde_json::to_vec(&hello).ok()?;
    line.push(b'\n');
    output.write_all(&line).await.ok()?;
    let mut input = BufReader::new(input);
    let mut dirty: Option<Instant> = None;
    let mut line = Vec::new();
    loop {
        let due = dirty.unwrap_or_else(Instant::now);
        tokio::select! {
            () = tokio::time::sleep_until(due), if dirty.is_some() => {
                dirty = None;
                if let Err(error) = state.keep(&read(records)) {
                    eprintln!("coracle dns: the records are not kept: {error}");
                }
            }
            got = read_line(&mut input, &mut line) => {
                if !got.ok()? {
                    return None;
                }
                match serde_json::from_slice(&line) {
                    Ok(Command::Change(change)) => {
                        records.write().unwrap_or_else(std::sync::PoisonError::into_inner).apply(change);
                        dirty.get_or_insert_with(|| Instant::now() + KEEP_AFTER);
                        output.write_all(b"ok\n").await.ok()?;
                    }
                    Ok(command) => return Some(command),
                    Err(error) => {
                        eprintln!("coracle dns: a command was not understood: {error}");
                        return None;
                    }
                }
                line.clear();
            }
        }
    }
}

/// Reads on into `line` until it is whole; false at the end. Cancelling loses nothing: what was read stays in `line`.
async fn read_line(input: &mut (impl tokio::io::AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<bool> {
    let room = MAX_LINE_BYTES.saturating_sub(line.len() as u64);
    input.take(room).read_until(b'\n', line).await?;
    Ok(line.last() == Some(&b'\n'))
}

fn become_program(state: &State, records: &Arc<RwLock<Records>>, program: &std::path::Path, kept: &Kept) -> io::Result<()> {
    state.keep(&read(records))?;
    let [udp, tcp] = kept.arguments()?;
    #[expect(clippy::disallowed_methods, reason = "it does not start a process, it becomes another program")]
    let mut command = std::process::Command::new(program);
    Err(command.arg(super::SUBCOMMAND).arg(state.directory()).args([udp, tcp]).exec())
}

fn read(records: &RwLock<Records>) -> std::sync::RwLockReadGuard<'_, Records> {
    records.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
