//! Names of images: `[registry/]repository[:tag][@digest]`, as the distribution project reads them, with what they leave out filled in.

use std::fmt;

use super::digest::Digest;

/// Bytes of registry and repository together.
const NAME_BYTES: usize = 255;
/// Bytes of a tag.
const TAG_BYTES: usize = 128;
/// Where images come from whose name says nothing.
pub(crate) const DEFAULT_REGISTRY: &str = "docker.io";

/// A full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// `docker.io`, `host:port`.
    pub(crate) registry: String,
    /// `library/busybox`.
    pub(crate) repository: String,
    /// Which of it.
    pub(crate) version: Version,
}

/// Which image of a repository: a digest counts more than a tag beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `:latest`
    Tag(String),
    /// `@sha256:...`
    Digest(Digest),
}

impl Version {
    /// As paths of the distribution protocol have it.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Tag(tag) => tag,
            Self::Digest(digest) => digest.as_str(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if matches!(self.version, Version::Tag(_)) { ':' } else { '@' };
        write!(f, "{}/{}{mark}{}", self.registry, self.repository, self.version.as_str())
    }
}

impl Reference {
    /// `docker.io/library/busybox`.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Reads a name; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| "what follows its @ is no sha256 digest")?)),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; one before it, a port.
        let after_slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[after_slash..].rfind(':') {
            Some(at) => (&rest[..after_slash + at], Some(&rest[after_slash + at + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("its tag is none: up to 128 letters, digits, '_', '.' and '-', the first no '.' or '-'");
        }
        if name.is_empty() {
            return Err("it has no repository");
        }
        if name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err("64 hex digits are an id, not a name");
        }
        let (registry, repository) = match name.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) => {
                (first, rest)
            }
            _ => (DEFAULT_REGISTRY, name),
        };
        if !is_host(registry) {
            return Err("its registry is no host name or address with a port");
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let official = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if official { format!("library/{repository}") } else { repository.to_owned() };
        if !repository.split('/').all(is_component) {
            return Err(
                "its repository has other than lower case letters, digits and single separators ('.', '_', '__', '-') between them",
            );
        }
        if registry.len() + 1 + repository.len() > NAME_BYTES {
            return Err("it is longer than 255 bytes");
        }
        let version = digest.map_or_else(|| Version::Tag(tag.unwrap_or("latest").to_owned()), Version::Digest);
        Ok(Self { registry: registry.to_owned(), repository, version })
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=TAG_BYTES).contains(&tag.len()) && tag.bytes().enumerate().all(|(n, b)| word(b) || (n > 0 && matches!(b, b'.' | b'-')))
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok());
    port.is_none_or(|p| p.parse::<u16>().is_ok()) && (v6 || host.split('.').all(label))
}

fn is_component(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    let mut separator = String::new();
    for b in text.bytes() {
        if alnum(b) {
            let fits = separator.is_empty() || matches!(&*separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
            if !fits {
                return false;
            }
            separator.clear();
        } else if matches!(b, b'.' | b'_' | b'-') {
            separator.push(char::from(b));
        } else {
            return false;
        }
    }
    separator.is_empty() && text.bytes().next().is_some_and(alnum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_completed() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, full) in [
            ("busybox", "docker.io/library/busybox:latest".to_owned()),
            ("busybox:1", "docker.io/library/busybox:1".to_owned()),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            ("index.docker.io/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("localhost:5000/a:b", "localhost:5000/a:b".to_owned()),
            ("127.0.0.1:5000/a/b__c.d--e", "127.0.0.1:5000/a/b__c.d--e:latest".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            ("UPPER/a", "UPPER/a:latest".to_owned()),
            (&format!("r.example/a:1@{digest}"), format!("r.example/a@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).map(|r| r.to_string()), Ok(full), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let id = "0a".repeat(32);
        let long = format!("r.example/{}", "a".repeat(250));
        for text in [
            "",
            ":",
            "/",
            "a/",
            "A",
            "a//b",
            "r.example/A",
            "a b",
            "a:",
            "a:.b",
            "a:b c",
            "a@",
            "a@sha256:0",
            "-a",
            "a-",
            "a.-b",
            "a___b",
            "http://a/b",
            "r.example:port/a",
            "..",
            "../a",
            "r..example/a",
            &id,
            &long,
        ] {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_full_name_is_its_own_full_name(text in "[a-zA-Z0-9.:/@_-]{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                let full = reference.to_string();
                prop_assert_eq!(Reference::parse(&full), Ok(reference));
            }
        }
    }
}
