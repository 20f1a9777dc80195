//! A stream that is made by one thread and used by another, hashed on its way.

use std::{
    io::{self, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use super::digest::{Digest, Hashed};

/// Bytes of a piece.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces on their way: half a megabyte evens out what both sides do in between.
const PIECES: usize = 4;

/// How a stream ended.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Of all that was made.
    pub(crate) digest: Digest,
    /// It was longer than allowed.
    pub(crate) cut: bool,
}

/// Gives what `source` makes, up to `limit` bytes, to `user`, which reads it to the end or fails.
pub(crate) fn through<'a, T, S: FnOnce() -> io::Result<Box<dyn Read + 'a>> + Send>(
    source: S,
    limit: u64,
    user: impl FnOnce(&mut Piped) -> T,
) -> (T, Flow) {
    let (full, pieces) = sync_channel(PIECES);
    let (empty, used) = sync_channel(PIECES + 2);
    std::thread::scope(|scope| {
        let maker = scope.spawn(move || make(source, limit, &full, &used));
        let mut piped = Piped { pieces, empty, piece: Vec::new(), at: 0 };
        let result = user(&mut piped);
        // A user that failed waits for nothing more.
        drop(piped);
        let flow = maker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, flow)
    })
}

fn make<'a>(
    source: impl FnOnce() -> io::Result<Box<dyn Read + 'a>>,
    limit: u64,
    full: &SyncSender<io::Result<Vec<u8>>>,
    used: &Receiver<Vec<u8>>,
) -> Flow {
    let mut hash = Hashed::new(());
    let mut left = limit;
    let cut = match source() {
        Err(error) => {
            // Who does not listen any more has failed already.
            let _ = full.send(Err(error));
            false
        }
        Ok(mut source) => loop {
            let mut piece = used.try_recv().unwrap_or_default();
            piece.resize(PIECE_BYTES, 0);
            match fill(&mut source, &mut piece) {
                Ok(0) => break false,
                Ok(n) if n as u64 > left => {
                    let _ = full.send(Err(io::Error::other("more bytes than it may have")));
                    break true;
                }
                Ok(n) => {
                    left -= n as u64;
                    hash.update(&piece[..n]);
                    piece.truncate(n);
                    if full.send(Ok(piece)).is_err() {
                        break false;
                    }
                }
                Err(error) => {
                    let _ = full.send(Err(error));
                    break false;
                }
            }
        },
    };
    Flow { digest: hash.finish().0, cut }
}

/// Reads until the piece is full or the source ends.
fn fill(source: &mut dyn Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < piece.len() {
        match source.read(&mut piece[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// The user's end.
pub(crate) struct Piped {
    pieces: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Piped {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            let Ok(next) = self.pieces.recv() else { return Ok(0) };
            let old = std::mem::replace(&mut self.piece, next?);
            self.at = 0;
            // Without room for it, it is dropped.
            let _ = self.empty.try_send(old);
        }
        let n = buffer.len().min(self.piece.len() - self.at);
        buffer[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(bytes: &[u8], limit: u64) -> (io::Result<Vec<u8>>, Flow) {
        through(
            || Ok(Box::new(bytes)),
            limit,
            |piped| {
                let mut out = Vec::new();
                piped.read_to_end(&mut out).map(|_| out)
            },
        )
    }

    #[test]
    fn what_goes_in_comes_out_and_is_hashed() {
        for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES * 9 + 7] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let (out, flow) = passed(&bytes, length as u64);
            assert!(out.unwrap() == bytes && flow.digest == Digest::of(&bytes) && !flow.cut, "{length}");
        }
    }

    #[test]
    fn more_than_allowed_is_cut() {
        let (out, flow) = passed(&[7; 10], 9);
        assert!(out.is_err() && flow.cut);
    }

    #[test]
    fn a_user_that_gives_up_ends_the_stream() {
        let endless = || Ok(Box::new(io::repeat(1)) as Box<dyn Read>);
        let (first, flow) = through(endless, u64::MAX, |piped| {
            let mut byte = [0];
            piped.read_exact(&mut byte).map(|()| byte[0])
        });
        assert!(matches!(first, Ok(1)) && !flow.cut);
    }

    #[test]
    fn a_source_that_fails_is_told() {
        let (out, _) = through(|| Err(io::ErrorKind::InvalidData.into()), 1, |piped| piped.read(&mut [0]));
        assert_eq!(out.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
