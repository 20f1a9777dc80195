//! A container's output on its way to the log and to whoever is attached.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::{Errno, retry_on_intr},
};

use super::log::{Lines, Log};

/// Bytes read at once.
const READ_BYTES: usize = 16 * 1024;
/// Pieces read from a stream at a time before other streams have their turn.
const PIECES: usize = 16;

/// What those who hold a container's output get to let go of it after its end; the kernel needs a millisecond or two to end them.
const LET_GO: Duration = Duration::from_millis(500);

/// Moves all that is left of streams whose writers have been killed: a last line without an end is known to be the last only when nobody holds the
/// stream any more.
pub(super) fn drain(outputs: &mut Vec<Output>, log: &mut Log) {
    let until = Instant::now() + LET_GO;
    loop {
        outputs.retain_mut(|output| output.pump(log));
        // Whoever is attached and slow is not waited for.
        let streams = outputs.iter().map(Output::waits).filter(|(_, write)| !write);
        let mut open: Vec<PollFd<'_>> = streams.map(|(stream, _)| PollFd::from_borrowed_fd(stream, PollFlags::IN)).collect();
        let left = until.saturating_duration_since(Instant::now());
        let time = Timespec::try_from(left).unwrap_or_default();
        if open.is_empty() || left.is_zero() || !matches!(retry_on_intr(|| rustix::event::poll(&mut open, Some(&time))), Ok(1..)) {
            return;
        }
    }
}

/// One of stdout and stderr.
pub(super) struct Output {
    from: OwnedFd,
    lines: Lines,
    /// By connection.
    to: Vec<Reader>,
}

/// Somebody attached. What they do not take at once waits here, and the stream waits with it.
struct Reader {
    connection: u64,
    pipe: OwnedFd,
    waiting: Vec<u8>,
}

impl Output {
    pub(super) fn new(from: OwnedFd, stream: &'static str) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&from, true)?;
        Ok(Self { from, lines: Lines::new(stream), to: Vec::new() })
    }

    pub(super) fn attach(&mut self, connection: u64, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.to.push(Reader { connection, pipe, waiting: Vec::new() });
        Ok(())
    }

    pub(super) fn detach(&mut self, connection: u64) {
        self.to.retain(|reader| reader.connection != connection);
    }

    /// What to wait for: first that every reader takes the last piece, then the next one.
    pub(super) fn waits(&self) -> (BorrowedFd<'_>, bool) {
        match self.to.iter().find(|reader| !reader.waiting.is_empty()) {
            Some(slow) => (slow.pipe.as_fd(), true),
            None => (self.from.as_fd(), false),
        }
    }

    /// Moves what can be moved; `false` when the stream has ended.
    pub(super) fn pump(&mut self, log: &mut Log) -> bool {
        for reader in &mut self.to {
            reader.flush();
        }
        self.to.retain(|reader| !reader.is_gone());
        let mut entries = Vec::new();
        let mut buffer = [0; READ_BYTES];
        let mut open = true;
        for _ in 0..PIECES {
            if self.to.iter().any(|reader| !reader.waiting.is_empty()) {
                break;
            }
            match rustix::io::read(&self.from, &mut buffer) {
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // EIO is how a terminal whose last program has ended says so.
                Ok(0) | Err(_) => {
                    self.lines.finish(Timestamp::now(), &mut entries);
                    open = false;
                    break;
                }
                Ok(n) => {
                    self.lines.push(&buffer[..n], Timestamp::now(), &mut entries);
                    for reader in &mut self.to {
                        reader.waiting.extend_from_slice(&buffer[..n]);
                        reader.flush();
                    }
                }
            }
        }
        if !entries.is_empty() {
            log.write(&entries);
        }
        open
    }
}

impl Reader {
    fn flush(&mut self) {
        while !self.waiting.is_empty() {
            match rustix::io::write(&self.pipe, &self.waiting) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // They have left: what is waiting is for nobody. The connection says so too, and takes the reader away.
                Err(_) => self.waiting.clear(),
            }
        }
        self.waiting = Vec::new();
    }

    fn is_gone(&self) -> bool {
        let mut poll = [rustix::event::PollFd::new(&self.pipe, rustix::event::PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut poll, Some(&now)).is_ok() && poll[0].revents().contains(rustix::event::PollFlags::ERR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_line_without_an_end_is_there_when_its_writer_lets_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log");
        let mut log = Log::open(&path).expect("a log");
        let (from, to) = rustix::pipe::pipe().expect("a pipe");
        let mut outputs = vec![Output::new(from, "stdout").expect("an output")];
        // More than a pipe holds: its writer is done, and lets go, while the rest is read.
        let holder = std::thread::spawn(move || {
            let text = "x".repeat(200_000) + "no end";
            let mut left = text.as_bytes();
            while !left.is_empty() {
                left = &left[rustix::io::write(&to, left).expect("written")..];
            }
        });
        drain(&mut outputs, &mut log);
        holder.join().expect("joined");
        assert!(outputs.is_empty() && std::fs::read_to_string(&path).expect("a log").contains("no end"));
        // Somebody who never lets go is not waited for.
        let (from, _to) = rustix::pipe::pipe().expect("a pipe");
        let mut outputs = vec![Output::new(from, "stderr").expect("an output")];
        drain(&mut outputs, &mut log);
        assert_eq!(outputs.len(), 1);
    }
}
