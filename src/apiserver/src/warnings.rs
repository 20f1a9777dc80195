//! What the author of a request is told besides the answer: texts for its `Warning` headers.

use std::sync::{Arc, Mutex, PoisonError};

/// Texts of one request; no person reads more.
const MAX_TEXTS: usize = 128;
/// Characters of all texts together: proxies refuse answers with long headers. Upstream's bound.
const MAX_TOTAL_CHARS: usize = 4096;
/// Characters of each text once they are too many together. Upstream's bound.
const MAX_TEXT_CHARS: usize = 256;

/// The warnings of a request, gathered on its way; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Adds a text, once.
    pub fn add(&self, text: impl Into<String>) {
        let text = text.into();
        let mut texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if texts.len() < MAX_TEXTS && !text.is_empty() && !texts.contains(&text) {
            texts.push(text);
        }
    }

    /// Adds each of them.
    pub fn extend(&self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.add(text));
    }

    /// What is said in the answer: everything, or as much as fits of the beginnings.
    pub fn told(&self) -> Vec<String> {
        let texts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let length = |text: &str| text.chars().count();
        if texts.iter().map(|text| length(text)).sum::<usize>() <= MAX_TOTAL_CHARS {
            return texts.clone();
        }
        let mut room = MAX_TOTAL_CHARS;
        let mut out = Vec::new();
        for text in texts.iter() {
            let short: String = text.chars().take(MAX_TEXT_CHARS.min(room)).collect();
            room -= length(&short);
            if !short.is_empty() {
                out.push(short);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_once() {
        let warnings = Warnings::default();
        warnings.extend(["a".to_owned(), "b".to_owned(), "a".to_owned(), String::new()]);
        assert_eq!(warnings.clone().told(), ["a", "b"]);
    }

    #[test]
    fn too_much_is_cut() {
        let warnings = Warnings::default();
        warnings.add("ä".repeat(MAX_TOTAL_CHARS));
        assert_eq!(warnings.told()[0].chars().count(), MAX_TOTAL_CHARS);
        warnings.extend((0..2 * MAX_TEXTS).map(|n| format!("{n} {}", "x".repeat(300))));
        let told = warnings.told();
        assert_eq!(told.len(), MAX_TOTAL_CHARS / MAX_TEXT_CHARS);
        assert!(told.iter().all(|text| text.chars().count() == MAX_TEXT_CHARS));
    }
}
