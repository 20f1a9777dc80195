//! Reads a run's log as `kubectl logs` asks for it, and follows it by inotify until the container is over.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use inotify::{Inotify, WatchMask};
use jiff::Timestamp;
use tokio::{io::unix::AsyncFd, sync::mpsc};

use super::{files_of, line};

/// Bytes that are read or sent at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Longest line of the format: 16 KiB of text and its head; more is no such line.
const LINE_BYTES: usize = 64 << 10;
/// Chunks that wait for a slow reader.
pub const QUEUE_CHUNKS: usize = 4;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogRequest {
    /// Only the last so many lines.
    pub tail_lines: Option<u64>,
    /// Only what is not older.
    pub since: Option<Timestamp>,
    /// With the time before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Go on until the container is over.
    pub follow: bool,
    /// Only this stream: true is stderr.
    pub stderr: Option<bool>,
}

/// Sends the log at `current` (and its rotated files) to `out`. `over` resolves when the container writes no more.
pub async fn send(current: PathBuf, request: LogRequest, out: mpsc::Sender<Bytes>, over: impl Future<Output = ()>) -> io::Result<()> {
    let mut writer = Writer { out, request: request.clone(), left: request.limit_bytes, buffer: Vec::new(), mid_line: false };
    let mut events = if request.follow { Some(Watch::new(&current)?) } else { None };
    let files = files_of(&current);
    let mut last = match request.tail_lines {
        Some(lines) => tail(&files, lines, &mut writer).await?,
        None => {
            let mut last = None;
            for file in &files {
                match File::open(file) {
                    Ok(file) => last = Some(drain(Follower::new(file), &mut writer).await?),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e),
                }
            }
            last
        }
    };
    writer.flush().await?;
    let Some(events) = &mut events else { return Ok(()) };
    tokio::pin!(over);
    let mut ended = false;
    loop {
        if writer.done() {
            return Ok(());
        }
        // The old file to its end, then the one that took its name.
        if let Some(mut follower) = last.take() {
            follower = drain(follower, &mut writer).await?;
            writer.flush().await?;
            let renamed = std::fs::metadata(&current).is_ok_and(|m| m.ino() != follower.inode);
            if !renamed {
                last = Some(follower);
            }
        }
        if last.is_none() {
            match File::open(&current) {
                Ok(file) => {
                    last = Some(Follower::new(file));
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        if ended {
            return Ok(());
        }
        tokio::select! {
            () = &mut over => ended = true,
            waited = events.wait() => waited?,
            () = writer.out.closed() => return Ok(()),
        }
    }
}

/// A file that is read to its end, and again when it grew; a line without its end waits for it.
struct Follower {
    reader: BufReader<File>,
    inode: u64,
    half: Vec<u8>,
}

impl Follower {
    fn new(file: File) -> Self {
        let inode = file.metadata().map_or(0, |m| m.ino());
        Self { reader: BufReader::with_capacity(CHUNK_BYTES, file), inode, half: Vec::new() }
    }
}

async fn drain(mut follower: Follower, writer: &mut Writer) -> io::Result<Follower> {
    loop {
        let room = LINE_BYTES.saturating_sub(follower.half.len()).max(1);
        let read = (&mut follower.reader).take(room as u64).read_until(b'\n', &mut follower.half)?;
        if read == 0 {
            return Ok(follower);
        }
        if follower.half.ends_with(b"\n") {
            writer.line(&follower.half).await?;
            follower.half.clear();
        } else if follower.half.len() >= LINE_BYTES {
            follower.half.clear();
        }
        if writer.done() {
            return Ok(follower);
        }
    }
}

/// Sends the last lines, and gives back the newest file, read to its end.
async fn tail(files: &[PathBuf], lines: u64, writer: &mut Writer) -> io::Result<Option<Follower>> {
    let wanted = usize::try_from(lines).unwrap_or(usize::MAX);
    let mut start = Vec::new();
    let mut missing = wanted;
    for file in files.iter().rev() {
        let Ok(mut opened) = File::open(file) else { continue };
        let (offset, found) = last_lines(&mut opened, missing)?;
        missing -= found;
        start.push((file.clone(), offset));
        if missing == 0 {
            break;
        }
    }
    let mut last = None;
    for (path, offset) in start.into_iter().rev() {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        last = Some(drain(Follower::new(file), writer).await?);
    }
    Ok(last)
}

/// Where the last `wanted` lines of a file begin, and how many there are. Reads backwards.
fn last_lines(file: &mut File, wanted: usize) -> io::Result<(u64, usize)> {
    let mut at = file.metadata()?.len();
    if wanted == 0 {
        return Ok((at, 0));
    }
    let mut starts: VecDeque<u64> = VecDeque::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let end = at;
    while at > 0 {
        let size = CHUNK_BYTES.min(usize::try_from(at).unwrap_or(CHUNK_BYTES));
        at -= size as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..size])?;
        for (index, byte) in buffer[..size].iter().enumerate().rev() {
            let start = at + index as u64 + 1;
            if *byte == b'\n' && start < end {
                starts.push_front(start);
                if starts.len() == wanted {
                    return Ok((start, wanted));
                }
            }
        }
    }
    Ok((0, starts.len() + usize::from(end > 0)))
}

struct Writer {
    out: mpsc::Sender<Bytes>,
    request: LogRequest,
    left: Option<u64>,
    buffer: Vec<u8>,
    mid_line: bool,
}

impl Writer {
    fn done(&self) -> bool {
        self.left == Some(0) || self.out.is_closed()
    }

    async fn line(&mut self, raw: &[u8]) -> io::Result<()> {
        let Some(line) = line::parse(raw) else { return Ok(()) };
        if self.request.stderr.is_some_and(|wanted| wanted != line.stderr) {
            return Ok(());
        }
        if let (Some(since), Some(at)) = (self.request.since, line.at())
            && at < since
        {
            return Ok(());
        }
        let mut text = Vec::with_capacity(raw.len());
        if self.request.timestamps && !self.mid_line {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&line.text());
        self.mid_line = line.partial;
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
        }
        self.buffer.extend_from_slice(&text);
        if self.buffer.len() >= CHUNK_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.out.send(chunk).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// Wakes when the log's directory or the log changes.
struct Watch {
    inotify: AsyncFd<Inotify>,
}

impl Watch {
    fn new(current: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        if let Some(dir) = current.parent() {
            inotify.watches().add(dir, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_FROM | WatchMask::MOVED_TO)?;
        }
        // SAFETY: an `Inotify` has one descriptor, which it owns until it is dropped, after the `AsyncFd` around it.
        let inotify = unsafe { AsyncFd::register(inotify) }?;
        Ok(Self { inotify })
    }

    async fn wait(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let mut ready = self.inotify.readable_mut().await?;
            match ready.try_io(|fd| fd.get_mut().read_events(&mut buffer).map(drop)) {
                Ok(read) => return read,
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
