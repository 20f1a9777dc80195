//! Field selectors: the text of `?fieldSelector=`, over the few fields that a kind declares selectable.

use std::fmt;

/// All requirements must hold; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// In the order they were written.
    pub requirements: Vec<FieldRequirement>,
}

/// What one field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// `metadata.name`, `spec.nodeName`, ...
    pub field: String,
    /// The value.
    pub value: String,
    /// `!=` instead of `=`.
    pub negated: bool,
}

/// Why a text is no field selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// invalid selector: '{0}'; can't understand '{1}'
    #[error("invalid selector: '{0}'; can't understand '{1}'")]
    Syntax(String, String),
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; `\\`, `\,` and `\=` stand for themselves in values.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let bad = || FieldSelectorError::Syntax(text.to_owned(), term.to_owned());
            let at = term.find('=').ok_or_else(bad)?;
            let (field, negated) = match term[..at].strip_suffix('!') {
                Some(field) => (field, true),
                None => (&term[..at], false),
            };
            let value = &term[at + 1..];
            let value = if negated { value } else { value.strip_prefix('=').unwrap_or(value) };
            let value = unescape(value).ok_or_else(bad)?;
            requirements.push(FieldRequirement { field: field.to_owned(), value, negated });
        }
        Ok(Self { requirements })
    }

    /// Whether nothing is excluded.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that the field must equal, if one is demanded: lets a list by name or node take an index.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.field == field && !r.negated).map(|r| r.value.as_str())
    }

    /// Whether an object whose fields `get` tells is meant; a field that is not there is empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (get(&r.field).unwrap_or_default() == r.value) != r.negated)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", r.field, if r.negated { "!=" } else { "=" })?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            '=' | ',' => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_means_fields() {
        let get = |field: &str| match field {
            "metadata.name" => Some("web"),
            "spec.nodeName" => Some("a,b=c\\d"),
            _ => None,
        };
        for (text, want) in [
            ("", true),
            ("metadata.name=web", true),
            ("metadata.name==web", true),
            ("metadata.name!=web", false),
            ("metadata.name=web,status.phase=", true),
            ("metadata.name=web,status.phase=Running", false),
            (r"spec.nodeName=a\,b\=c\\d", true),
            ("spec.nodeName!=", true),
        ] {
            let selector = FieldSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(get), want, "{text}");
            assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector), "{text} prints as it reads");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a", "a=b=c", r"a=\b", "a,b=c", r"a=b\"] {
            assert!(FieldSelector::parse(text).is_err(), "{text:?}");
        }
    }
}
