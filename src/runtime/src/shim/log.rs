//! Container logs in the format that the kubelet and all collectors read: `<time> <stream> <F|P> <text>`.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// Bytes after which a line without an end is written as a part (`P`).
pub(crate) const LINE_BYTES: usize = 16 * 1024;

/// A log file that is written by name: rotation moves it away and asks for a new one.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    /// The last write broke off, perhaps within a line.
    torn: bool,
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = File::options().create(true).append(true).mode(0o640).open(path)?;
        Ok(Self { path: path.to_owned(), file, torn: false })
    }

    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    /// A full disk loses lines of the log; it stops neither the container nor its shim. What comes after that begins a line of its own.
    pub(crate) fn write(&mut self, entries: &[u8]) {
        let file = &mut self.file;
        let ended = if self.torn { file.write_all(b"\n") } else { Ok(()) };
        self.torn = ended.and_then(|()| file.write_all(entries)).is_err();
    }
}

/// Makes entries of what a stream brings, piece by piece.
#[derive(Debug)]
pub(crate) struct Lines {
    stream: &'static str,
    rest: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: &'static str) -> Self {
        Self { stream, rest: Vec::new() }
    }

    /// Entries for the lines that `piece` ends, and for parts of LINE_BYTES.
    pub(crate) fn push(&mut self, mut piece: &[u8], now: Timestamp, into: &mut Vec<u8>) {
        while !piece.is_empty() {
            let room = LINE_BYTES - self.rest.len();
            match piece.iter().take(room + 1).position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.rest.extend_from_slice(&piece[..end]);
                    self.entry('F', now, into);
                    piece = &piece[end + 1..];
                }
                None if piece.len() <= room => {
                    self.rest.extend_from_slice(piece);
                    break;
                }
                None => {
                    self.rest.extend_from_slice(&piece[..room]);
                    self.entry('P', now, into);
                    piece = &piece[room..];
                }
            }
        }
        // An idle stream keeps no buffer.
        if self.rest.is_empty() {
            self.rest = Vec::new();
        }
    }

    /// What the stream ended with is a part too: its line never ended.
    pub(crate) fn finish(&mut self, now: Timestamp, into: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.entry('P', now, into);
        }
    }

    fn entry(&mut self, tag: char, now: Timestamp, into: &mut Vec<u8>) {
        // Into a vector this cannot fail.
        let _ = write!(into, "{now} {} {tag} ", self.stream);
        into.append(&mut self.rest);
        into.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut out) = (Lines::new("stdout"), Vec::new());
        for piece in pieces {
            lines.push(piece, Timestamp::UNIX_EPOCH, &mut out);
        }
        lines.finish(Timestamp::UNIX_EPOCH, &mut out);
        String::from_utf8_lossy(&out).lines().map(|line| line.strip_prefix("1970-01-01T00:00:00Z stdout ").unwrap().to_owned()).collect()
    }

    #[test]
    fn lines_are_full_and_long_ones_come_in_parts() {
        assert_eq!(lines(&[b"one\ntw", b"o\n\nthree"]), ["F one", "F two", "F ", "P three"]);
        let long = vec![b'x'; LINE_BYTES + 1];
        assert_eq!(lines(&[&long]), [format!("P {}", "x".repeat(LINE_BYTES)), "P x".to_owned()]);
        let exact = [vec![b'x'; LINE_BYTES], b"\n".to_vec()].concat();
        assert_eq!(lines(&[&exact]), [format!("F {}", "x".repeat(LINE_BYTES))]);
        assert_eq!(lines(&[]), [""; 0]);
    }

    proptest! {
        #[test]
        fn pieces_change_nothing_and_nothing_is_lost(data in prop::collection::vec(prop_oneof![9 => Just(b'a'), 1 => Just(b'\n')], 0..40_000), cut in 1usize..9_000) {
            let whole = lines(&[&data]);
            let pieces: Vec<&[u8]> = data.chunks(cut).collect();
            prop_assert_eq!(&lines(&pieces), &whole);
            let mut text = String::new();
            for entry in &whole {
                prop_assert!(entry.len() <= LINE_BYTES + 2);
                text.push_str(&entry[2..]);
                if entry.starts_with('F') { text.push('\n'); }
            }
            prop_assert_eq!(text, String::from_utf8(data).unwrap());
        }
    }
}
