//! The resident's control socket: JSON lines, one role at a time; every connection is greeted with who we are.

use std::{
    io::{self, BufRead as _, Read as _},
    net::SocketAddr,
    os::unix::net,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    time::Instant,
};

use super::state::State;
use crate::records::{Change, Records};

/// A line is no longer: ten thousand Services with their endpoints fit.
const MAX_LINE_BYTES: u64 = 64 << 20;
/// Records are kept on disk at most this long after they changed.
const KEEP_AFTER: Duration = Duration::from_millis(500);

/// A line that the resident says is no longer.
pub const MAX_HELLO_BYTES: u64 = 4096;

/// The first line that the resident says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Of the program.
    pub version: String,
    /// Its process.
    pub pid: i32,
    /// Where it answers.
    pub address: SocketAddr,
    /// Services that it knows.
    pub services: usize,
}

/// What the resident is told, a line each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Records change; answered with a line when they have.
    Changes(Vec<Change>),
    /// Become this program, keeping the sockets.
    Become(PathBuf),
}

/// What a resident says that is asked from outside of any runtime.
pub fn greeting(directory: &Path, patience: Duration) -> io::Result<Hello> {
    let stream = net::UnixStream::connect(super::state::control(directory))?;
    stream.set_read_timeout(Some(patience))?;
    let mut line = Vec::new();
    io::BufReader::new(stream.take(MAX_HELLO_BYTES)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

/// Serves the control socket until it is told to become another program: that one.
pub async fn obey(state: &State, records: &Arc<RwLock<Records>>, listener: UnixListener, address: SocketAddr) -> io::Result<PathBuf> {
    loop {
        let (stream, _) = listener.accept().await?;
        // The newest role wins: one that died may leave a connection that says nothing any more.
        let mut next = Some(stream);
        while let Some(stream) = next.take() {
            let mut dirty = None;
            tokio::select! {
                // What was said comes before who else wants to say something.
                biased;
                program = talk(state, records, address, stream, &mut dirty) => if let Some(program) = program {
                    state.keep(&read(records))?;
                    return Ok(program);
                },
                newer = listener.accept() => next = newer.ok().map(|(stream, _)| stream),
            }
            if dirty.is_some() {
                keep(state, records);
            }
        }
    }
}

/// One connection; returns the program to become, if that was said. `dirty`: when records that are not kept yet have to be.
async fn talk(
    state: &State,
    records: &Arc<RwLock<Records>>,
    address: SocketAddr,
    stream: UnixStream,
    dirty: &mut Option<Instant>,
) -> Option<PathBuf> {
    let (input, mut output) = stream.into_split();
    let hello = Hello { version: env!("CARGO_PKG_VERSION").into(), pid: super::state::own_pid(), address, services: read(records).len() };
    let mut line = serde_json::to_vec(&hello).ok()?;
    line.push(b'\n');
    output.write_all(&line).await.ok()?;
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    loop {
        let due = dirty.unwrap_or_else(Instant::now);
        tokio::select! {
            () = tokio::time::sleep_until(due), if dirty.is_some() => {
                *dirty = None;
                keep(state, records);
            }
            got = read_line(&mut input, &mut line) => {
                if !got.ok()? {
                    return None;
                }
                match serde_json::from_slice(&line) {
                    Ok(Command::Changes(changes)) => {
                        {
                            let mut records = records.write().unwrap_or_else(std::sync::PoisonError::into_inner);
                            changes.into_iter().for_each(|change| records.apply(change));
                        }
                        dirty.get_or_insert_with(|| Instant::now() + KEEP_AFTER);
                        output.write_all(b"ok\n").await.ok()?;
                    }
                    Ok(Command::Become(program)) => return Some(program),
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

fn keep(state: &State, records: &RwLock<Records>) {
    if let Err(error) = state.keep(&read(records)) {
        eprintln!("coracle dns: the records are not kept: {error}");
    }
}

fn read(records: &RwLock<Records>) -> std::sync::RwLockReadGuard<'_, Records> {
    records.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
