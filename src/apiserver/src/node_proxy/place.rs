//! Where a proxied server is seen by its clients: below `.../proxy/`, of which it knows nothing.

use http::{Method, Uri};

/// `.../services/web/proxy`, from a request's path and what is asked of the server itself.
pub(super) fn prefix<'a>(path: &'a str, rest: &str) -> &'a str {
    path.strip_suffix(rest).unwrap_or(path).trim_end_matches('/')
}

/// A reader of the root is led to the path with a slash at its end: relative links of the page there would miss the server otherwise.
pub(super) fn root(method: &Method, uri: &Uri, rest: &str) -> Option<String> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let root = rest.is_empty() && !uri.path().ends_with('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    (reads && root).then(|| format!("{}/{query}", uri.path()))
}

/// Where a `Location` of the server leads as its clients must ask for it; `None` for one that is right as it is.
pub(super) fn location(location: &str, authority: &str, prefix: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let own = uri.authority().is_none_or(|other| other.as_str() == authority);
    let path = uri.path_and_query()?.as_str();
    let below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    // `//host/path` names another host.
    (own && path.starts_with('/') && !location.starts_with("//") && !below).then(|| format!("{prefix}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for (path, rest, expected) in [
            ("/api/v1/nodes/n/proxy/stats/summary", "stats/summary", "/api/v1/nodes/n/proxy"),
            ("/api/v1/nodes/n/proxy/", "", "/api/v1/nodes/n/proxy"),
            ("/api/v1/nodes/n/proxy", "", "/api/v1/nodes/n/proxy"),
        ] {
            assert_eq!(prefix(path, rest), expected, "{path}");
        }
    }

    #[test]
    fn roots() {
        for (method, uri, rest, expected) in [
            (Method::GET, "/p/proxy", "", Some("/p/proxy/")),
            (Method::HEAD, "/p/proxy?a=b", "", Some("/p/proxy/?a=b")),
            (Method::POST, "/p/proxy", "", None),
            (Method::GET, "/p/proxy/", "", None),
            (Method::GET, "/p/proxy/x", "x", None),
        ] {
            assert_eq!(root(&method, &uri.parse().unwrap(), rest).as_deref(), expected, "{method} {uri}");
        }
    }

    #[test]
    fn locations() {
        for (from, expected) in [
            ("/login?next=%2F", Some("/p/proxy/login?next=%2F")),
            ("http://10.0.0.1:80/x", Some("/p/proxy/x")),
            ("https://other.test/x", None),
            ("/p/proxy/x", None),
            ("/p/proxyx", Some("/p/proxy/p/proxyx")),
            ("next/page", None),
            ("//other.test/x", None),
            ("not a uri", None),
        ] {
            assert_eq!(location(from, "10.0.0.1:80", "/p/proxy").as_deref(), expected, "{from}");
        }
    }
}
