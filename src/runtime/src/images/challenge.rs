//! What a registry asks of who is not let in (RFC 7235, and the token protocol of the distribution project). Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// A way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password in every request.
    Basic,
    /// A token that a service gives.
    Bearer {
        /// Its address.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what; the repository when it says nothing.
        scope: Option<String>,
    },
}

/// The challenges of one `WWW-Authenticate` header that are understood, the token service first: it is the narrower key.
pub(crate) fn challenges(header: &str) -> Vec<Challenge> {
    let mut out: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',']).unwrap_or(rest.len());
        let scheme = &rest[..end];
        rest = rest[end..].trim_start_matches(' ');
        let mut pairs = Vec::new();
        while let Some((name, value, after)) = pair(rest) {
            pairs.push((name, value));
            rest = after.trim_start_matches([' ', ',']);
        }
        rest = rest.trim_start_matches([' ', ',']);
        let get = |name: &str| pairs.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).filter(|v| !v.is_empty());
        if scheme.eq_ignore_ascii_case("basic") {
            out.push(Challenge::Basic);
        } else if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), get("realm")) {
            out.insert(0, Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
        }
    }
    out
}

/// `name=value` or `name="value"` at the beginning, and what follows it.
fn pair(text: &str) -> Option<(String, String, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))?;
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start_matches(' ').strip_prefix('=')?.trim_start_matches(' ');
    if name.is_empty() {
        return None;
    }
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ']).unwrap_or(rest.len());
        return Some((name.to_owned(), rest[..end].to_owned(), &rest[end..]));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((name.to_owned(), value, &quoted[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// The value of `Authorization` for a name and a password.
pub(crate) fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_read_in_the_shapes_that_registries_give_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        for (header, want) in [
            ("Basic realm=\"x\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://a/token\",service=\"s\",scope=\"repository:a/b:pull,push\"",
                vec![bearer("https://a/token", Some("s"), Some("repository:a/b:pull,push"))],
            ),
            ("Bearer realm = https://a/token , service=s", vec![bearer("https://a/token", Some("s"), None)]),
            ("Basic realm=\"a, b\", Bearer realm=\"r\"", vec![bearer("r", None, None), Challenge::Basic]),
            ("Bearer realm=\"a \\\"b\"", vec![bearer("a \"b", None, None)]),
            ("Bearer service=\"s\"", vec![]),
            ("Negotiate, Digest realm=\"x\"", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(challenges(header), want, "{header}");
        }
    }

    #[test]
    fn a_name_and_a_password_are_one_word() {
        assert_eq!(basic("me", "secret"), "Basic bWU6c2VjcmV0");
        assert_eq!(basic("u", "p:q"), "Basic dTpwOnE=");
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(header in "[ -~]{0,60}") {
            challenges(&header);
        }
    }
}
