//! Texts of `kubectl explain`, decompressed for one document at a time.

use std::collections::HashMap;
use std::io::Read;

use flate2::read::GzDecoder;

const COMPRESSED: &[u8] = include_bytes!("../../catalogue/descriptions-1.36.tsv.gz");

/// All texts, by message and field.
pub(super) struct Descriptions {
    text: String,
    /// Where the lines of a message begin and end.
    messages: HashMap<String, (usize, usize)>,
}

impl Descriptions {
    pub(super) fn read() -> Self {
        let mut text = String::new();
        if GzDecoder::new(COMPRESSED).read_to_string(&mut text).is_err() {
            text.clear(); // documents without texts are better than none
        }
        let mut messages = HashMap::new();
        let (mut at, mut open) = (0, None);
        for line in text.split_inclusive('\n') {
            if let Some(rest) = line.strip_prefix("M\t") {
                if let Some((name, start)) = open.take() {
                    messages.insert(name, (start, at));
                }
                open = Some((rest.split('\t').next().unwrap_or_default().to_owned(), at));
            }
            at += line.len();
        }
        if let Some((name, start)) = open {
            messages.insert(name, (start, at));
        }
        Self { text, messages }
    }

    fn lines(&self, message: &str) -> impl Iterator<Item = (&str, &str, &str)> {
        let (start, end) = self.messages.get(message).copied().unwrap_or_default();
        self.text[start..end].lines().filter_map(|line| {
            let mut cells = line.splitn(3, '\t');
            Some((cells.next()?, cells.next()?, cells.next()?))
        })
    }

    /// What a message is.
    pub(super) fn message(&self, message: &str) -> Option<String> {
        self.lines(message).find(|l| l.0 == "M" && !l.2.is_empty()).map(|l| unescaped(l.2))
    }

    /// What a field is.
    pub(super) fn fields(&self, message: &str) -> HashMap<&str, String> {
        self.lines(message).filter(|l| l.0 == "F").map(|l| (l.1, unescaped(l.2))).collect()
    }
}

fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n")
}
