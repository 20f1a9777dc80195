//! One line of a container log: `2006-01-02T15:04:05.999999999Z stdout F text`.

use jiff::Timestamp;

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When, as written.
    pub time: &'a str,
    /// From stderr, not stdout.
    pub stderr: bool,
    /// The text goes on in the next line.
    pub partial: bool,
    /// The text, without the newline.
    pub content: &'a [u8],
}

impl Line<'_> {
    /// What the container wrote.
    pub fn text(&self) -> Vec<u8> {
        let mut out = self.content.to_vec();
        if !self.partial {
            out.push(b'\n');
        }
        out
    }

    /// When.
    pub fn at(&self) -> Option<Timestamp> {
        self.time.parse().ok()
    }
}

/// Takes a line (with its newline) apart; what is no such line is nothing.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n")?;
    let mut fields = line.splitn(4, |b| *b == b' ');
    let time = std::str::from_utf8(fields.next()?).ok()?;
    let stderr = match fields.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tags = fields.next()?;
    // Tags may be joined with colons; the first says whether the line is whole.
    let partial = tags.split(|b| *b == b':').next() == Some(b"P");
    Some(Line { time, stderr, partial, content: fields.next().unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = parse(b"2026-01-02T03:04:05.000000006Z stderr P a b\n").expect("a line");
        assert_eq!((line.stderr, line.partial, line.content), (true, true, &b"a b"[..]));
        assert_eq!(line.at().map(|t| t.subsec_nanosecond()), Some(6));
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F \n").expect("a line").text(), b"\n");
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F half"), None, "a line without its end is not there yet");
        assert_eq!(parse(b"what\n"), None);
    }
}
