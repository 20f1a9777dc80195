//! Links of proxied HTML pages: a server that knows nothing of the path it is seen at links to its own root, which would miss it.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{
    HeaderMap,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG},
};

use super::place;
use crate::body::{Body, BodyError};

/// A tag that is longer is passed on as it is: nothing is held back for longer.
const MAX_TAG_BYTES: usize = 64 << 10;

/// Where URLs stand (HTML 4 and 5), `(element, attributes)`.
const URLS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is no markup, and how it ends.
const RAW: [(&str, &str); 4] = [("script", "</script"), ("style", "</style"), ("textarea", "</textarea"), ("title", "</title")];

/// Whether an answer is a page that can be read.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    let html = media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("text/html"));
    html && headers.get(CONTENT_ENCODING).is_none_or(|coding| coding == "identity")
}

/// The page with the links of its server's own root moved below `prefix`.
pub(super) fn moved(headers: &mut HeaderMap, body: Body, authority: String, prefix: String) -> Body {
    // They are about other bytes.
    headers.remove(CONTENT_LENGTH);
    headers.remove(ETAG);
    let page = Page { authority, prefix, held: Vec::new(), until: None };
    let pieces = stream::unfold(Some((body.into_data_stream(), page)), |state| async move {
        let (mut body, mut page) = state?;
        match body.next().await {
            Some(Ok(piece)) => Some((Ok::<_, BodyError>(page.read(&piece)), Some((body, page)))),
            Some(Err(error)) => Some((Err(error.into()), None)),
            None => Some((Ok(Bytes::from(page.held)), None)),
        }
    });
    Body::from_stream(pieces)
}

/// Reads a page piece by piece.
struct Page {
    authority: String,
    prefix: String,
    /// The beginning of a tag.
    held: Vec<u8>,
    /// What ends the content that is no markup.
    until: Option<&'static str>,
}

impl Page {
    fn read(&mut self, piece: &[u8]) -> Bytes {
        self.held.extend_from_slice(piece);
        let held = std::mem::take(&mut self.held);
        let mut out = Vec::with_capacity(held.len());
        let mut rest = &held[..];
        loop {
            rest = match self.until {
                Some(end) => match find(rest, end.as_bytes()) {
                    Some(at) => {
                        out.extend_from_slice(&rest[..at]);
                        self.until = None;
                        &rest[at..]
                    }
                    None => {
                        // Its end may have begun.
                        let sure = rest.len().saturating_sub(end.len() - 1);
                        out.extend_from_slice(&rest[..sure]);
                        rest = &rest[sure..];
                        break;
                    }
                },
                None => {
                    let at = rest.iter().position(|byte| *byte == b'<').unwrap_or(rest.len());
                    out.extend_from_slice(&rest[..at]);
                    match self.tag(&rest[at..], &mut out) {
                        Some(read) => &rest[at + read..],
                        None => {
                            rest = &rest[at..];
                            break;
                        }
                    }
                }
            };
        }
        self.held = rest.to_vec();
        out.into()
    }

    /// Passes on what begins at a `<`, and says how long it is; `None`: its end is not there yet.
    fn tag(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        const COMMENT: &[u8] = b"<!--";
        if rest.len() < COMMENT.len() && COMMENT.starts_with(rest) {
            return None;
        }
        if rest.starts_with(COMMENT) {
            out.extend_from_slice(COMMENT);
            self.until = Some("-->");
            return Some(COMMENT.len());
        }
        if !rest.get(1)?.is_ascii_alphabetic() {
            out.push(b'<');
            return Some(1);
        }
        let Some(end) = end(rest) else {
            let long = rest.len() > MAX_TAG_BYTES;
            return long.then(|| {
                out.extend_from_slice(rest);
                rest.len()
            });
        };
        let name = rest[1..end].iter().position(|byte| !byte.is_ascii_alphanumeric()).map_or(end, |at| at + 1);
        let element = String::from_utf8_lossy(&rest[1..name]).to_ascii_lowercase();
        let known = URLS.iter().find(|(known, _)| *known == element).map(|(_, attributes)| *attributes);
        match known {
            Some(attributes) => self.attributes(&rest[..=end], name, attributes, out),
            None => out.extend_from_slice(&rest[..=end]),
        }
        self.until = RAW.iter().find(|(raw, _)| *raw == element).map(|(_, until)| *until);
        Some(end + 1)
    }

    /// Passes on a tag whose attributes begin at `at`.
    fn attributes(&self, tag: &[u8], mut at: usize, urls: &[&str], out: &mut Vec<u8>) {
        let mut done = 0;
        let skip = |mut at: usize, stop: &dyn Fn(u8) -> bool| {
            while at < tag.len() && !stop(tag[at]) {
                at += 1;
            }
            at
        };
        while at < tag.len() {
            let name = skip(at, &|byte| !byte.is_ascii_whitespace() && byte != b'/');
            let name_end = skip(name, &|byte| byte.is_ascii_whitespace() || matches!(byte, b'=' | b'>' | b'/'));
            let equals = skip(name_end, &|byte| !byte.is_ascii_whitespace());
            at = equals.max(at + 1);
            if tag.get(equals) != Some(&b'=') {
                continue;
            }
            let value = skip(equals + 1, &|byte| !byte.is_ascii_whitespace());
            let (start, end) = match tag.get(value) {
                Some(quote @ (b'"' | b'\'')) => (value + 1, skip(value + 1, &|byte| byte == *quote)),
                _ => (value, skip(value, &|byte| byte.is_ascii_whitespace() || byte == b'>')),
            };
            at = end.max(at) + usize::from(start > value);
            let attribute = String::from_utf8_lossy(&tag[name..name_end]).to_ascii_lowercase();
            let url = std::str::from_utf8(&tag[start..end]).ok().filter(|_| urls.contains(&&*attribute));
            if let Some(url) = url.and_then(|url| self.moved(url)) {
                out.extend_from_slice(&tag[done..start]);
                out.extend_from_slice(url.as_bytes());
                done = end;
            }
        }
        out.extend_from_slice(&tag[done..]);
    }

    fn moved(&self, url: &str) -> Option<String> {
        let (place, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
        Some(place::location(place.trim(), &self.authority, &self.prefix)? + fragment)
    }
}

/// Where the tag at the front ends: at the first `>` outside of quotes.
fn end(tag: &[u8]) -> Option<usize> {
    let mut quote = None;
    let mut before = b' ';
    for (at, byte) in tag.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if *byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'>') => return Some(at),
            // A quote in the middle of a word quotes nothing.
            (None, b'"' | b'\'') if before == b'=' => quote = Some(*byte),
            (None, _) => {}
        }
        if !byte.is_ascii_whitespace() {
            before = *byte;
        }
    }
    None
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> String {
        let mut page = Page { authority: "10.0.0.1:80".into(), prefix: "/p/proxy".into(), held: Vec::new(), until: None };
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| page.read(piece)).collect();
        out.extend(page.held);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn links_are_moved() {
        for (page, expected) in [
            (r#"<a href="/rewriteme">test</a>"#, r#"<a href="/p/proxy/rewriteme">test</a>"#),
            (r#"<A HREF = '/x?a=1&amp;b#top' id=y>"#, r#"<A HREF = '/p/proxy/x?a=1&amp;b#top' id=y>"#),
            ("<img alt='a>b' src=/i.png><p>", "<img alt='a>b' src=/p/proxy/i.png><p>"),
            (r#"<img longdesc="/l" src="/s"/>"#, r#"<img longdesc="/p/proxy/l" src="/p/proxy/s"/>"#),
            (r#"<a href="http://10.0.0.1:80/x">"#, r#"<a href="/p/proxy/x">"#),
            (r##"<a href="https://other.test/x"><a href="//other.test/x"><a href="rel"><a href="#h"><a href>"##, ""),
            (r#"<a href="/p/proxy/x"><p href="/x"><a title="/x">1 < 2 </a>"#, ""),
            (r#"<!-- <a href="/x"> --><a href="/y">"#, r#"<!-- <a href="/x"> --><a href="/p/proxy/y">"#),
            (
                r#"<script src="/s.js">if (a<b) '<a href="/x">'</script><a href="/y">"#,
                r#"<script src="/p/proxy/s.js">if (a<b) '<a href="/x">'</script><a href="/p/proxy/y">"#,
            ),
            (r#"<a href="/unfinished"#, ""),
        ] {
            let expected = if expected.is_empty() { page } else { expected };
            assert_eq!(read(&[page.as_bytes()]), expected, "{page}");
            let bytes: Vec<&[u8]> = page.as_bytes().chunks(1).collect();
            assert_eq!(read(&bytes), expected, "byte by byte: {page}");
        }
    }

    #[test]
    fn an_endless_tag_is_not_held() {
        let mut page = Page { authority: String::new(), prefix: "/p".into(), held: Vec::new(), until: None };
        let long = format!("<a href=\"{}", "x".repeat(2 * MAX_TAG_BYTES));
        assert_eq!((page.read(long.as_bytes()).len(), page.held.len()), (long.len(), 0));
    }

    proptest! {
        #[test]
        fn no_page_panics_and_pieces_do_not_matter(page in "[-<>!/a='\" scrip#]{0,60}", cut in 0usize..60) {
            let cut = cut.min(page.len());
            let (one, two) = page.as_bytes().split_at(cut);
            prop_assert_eq!(read(&[page.as_bytes()]), read(&[one, two]));
        }
    }
}
