//! Names and label syntax: what may be a name, a label's key, a label's value (RFC 1123, RFC 1035).

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

/// Why a text is not a valid name; the sentence ends a message that starts with the text.
pub type NameError = String;

/// RFC 1123 label: lower case letters, digits and `-`, at most 63.
pub fn dns_label(text: &str) -> Result<(), NameError> {
    if text.len() > LABEL_MAX {
        return Err(too_long(LABEL_MAX));
    }
    if is_label(text) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character".into())
}

/// RFC 1035 label: as [`dns_label`], and starts with a letter. Names of Services.
pub fn dns_1035_label(text: &str) -> Result<(), NameError> {
    if text.len() > LABEL_MAX {
        return Err(too_long(LABEL_MAX));
    }
    if is_label(text) && text.as_bytes()[0].is_ascii_lowercase() {
        return Ok(());
    }
    Err("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character".into())
}

/// RFC 1123 subdomain: labels joined by `.`, at most 253. Names of most kinds.
pub fn dns_subdomain(text: &str) -> Result<(), NameError> {
    if text.len() > SUBDOMAIN_MAX {
        return Err(too_long(SUBDOMAIN_MAX));
    }
    if text.split('.').all(is_label) {
        return Ok(());
    }
    Err("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character".into())
}

/// A path segment: anything but `.`, `..`, and what holds `/` or `%`. Names of RBAC kinds.
pub fn path_segment(text: &str) -> Result<(), NameError> {
    match text {
        "." | ".." => Err(format!("may not be '{text}'")),
        _ => match text.chars().find(|c| matches!(c, '/' | '%')) {
            Some(c) => Err(format!("may not contain '{c}'")),
            None => Ok(()),
        },
    }
}

/// A label's or annotation's key: an optional subdomain and `/`, then a name of at most 63.
pub fn qualified(text: &str) -> Result<(), NameError> {
    let (prefix, name) = match text.split_once('/') {
        Some((_, rest)) if rest.contains('/') => return Err("a qualified name must have at most one '/'".into()),
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Err("prefix part must be non-empty".into());
        }
        dns_subdomain(prefix).map_err(|e| format!("prefix part {e}"))?;
    }
    if name.is_empty() {
        return Err("name part must be non-empty".into());
    }
    if name.len() > LABEL_MAX {
        return Err(format!("name part {}", too_long(LABEL_MAX)));
    }
    if !is_word(name) {
        return Err(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
                .into(),
        );
    }
    Ok(())
}

/// A label's value: empty, or a word of at most 63.
pub fn label_value(text: &str) -> Result<(), NameError> {
    if text.len() > LABEL_MAX {
        return Err(too_long(LABEL_MAX));
    }
    if text.is_empty() || is_word(text) {
        return Ok(());
    }
    Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character".into())
}

fn too_long(max: usize) -> NameError {
    format!("must be no more than {max} characters")
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric) && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        type Rule = fn(&str) -> Result<(), NameError>;
        let long = "a".repeat(64);
        let cases: &[(&str, Rule, &[&str], &[&str])] = &[
            ("label", dns_label, &["a", "0", "a-b", "web-1"], &["", "-a", "a-", "A", "a.b", "a_b", &long]),
            ("1035", dns_1035_label, &["a", "a-1"], &["1a", "", "a-", &long]),
            ("subdomain", dns_subdomain, &["a.b", "1.2.3", "a-b.c"], &["a..b", ".a", "a.", "A.b", ""]),
            ("segment", path_segment, &["system:node", "a.b", "ä"], &[".", "..", "a/b", "a%b"]),
            ("qualified", qualified, &["a", "A_b.c", "example.com/x"], &["/a", "a/", "a/b/c", "-a", "Ex.com/a", "", &long]),
            ("value", label_value, &["", "a", "A_b.c-1"], &["-a", "a b", "ä", &long]),
        ];
        for (name, rule, good, bad) in cases {
            good.iter().for_each(|t| assert!(rule(t).is_ok(), "{name}: {t:?} is valid"));
            bad.iter().for_each(|t| assert!(rule(t).is_err(), "{name}: {t:?} is not valid"));
        }
    }
}
