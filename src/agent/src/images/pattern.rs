//! Which images a pattern covers: `*.registry.io:8080/path`, as credentials and their providers are keyed. Pure.

/// What Docker Hub is called in keys of its credentials.
const HUB: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "docker.io"];

/// Whether `pattern` covers `image` (a full name without tag): as many parts of the host, each fitting, the same port, and a path that begins so.
pub fn covers(pattern: &str, image: &str) -> bool {
    let (pattern, path) = split(pattern);
    let (host, rest) = split(image);
    let ((pattern, port), (host, other_port)) = (with_port(pattern), with_port(host));
    port == other_port
        && rest.starts_with(path)
        && pattern.split('.').count() == host.split('.').count()
        && pattern.split('.').zip(host.split('.')).all(|(pattern, part)| fits(pattern.as_bytes(), part.as_bytes()))
}

/// A key of a `config.json` as a pattern: without scheme, and without the version that old keys end with.
pub fn of_key(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://");
    let (host, path) = split(key);
    let path =
        path.strip_prefix("/v1/").or_else(|| path.strip_prefix("/v2/")).map_or(path, |rest| if rest.is_empty() { "" } else { &path[3..] });
    let host = if HUB.contains(&host) { "docker.io" } else { host };
    format!("{host}{}", path.trim_end_matches('/'))
}

/// Why a pattern cannot be one.
pub fn check(pattern: &str) -> Result<(), &'static str> {
    let (host, _) = split(pattern);
    let (name, port) = with_port(host);
    if pattern.contains("://") {
        Err("has a scheme, and is to have none")
    } else if name.is_empty() || pattern.contains([' ', '?', '#']) || pattern.chars().any(char::is_control) {
        Err("is not of the form host[:port][/path]")
    } else if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        Err("has a port that is none")
    } else {
        Ok(())
    }
}

/// Host and path, which keeps its slash.
fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find('/').unwrap_or(text.len()))
}

fn with_port(host: &str) -> (&str, Option<&str>) {
    host.rsplit_once(':').map_or((host, None), |(host, port)| (host, Some(port)))
}

/// `*` is any letters, `?` any one, in linear steps.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(b) if *b == b'?' || *b == text[t] => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((from, at)) = star else { return false };
                star = Some((from, at + 1));
                (p, t) = (from + 1, at + 1);
            }
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_what_they_cover_upstream() {
        for (pattern, image, want) in [
            ("r.example", "r.example/a", true),
            ("r.example", "q.example/a", false),
            ("*.example", "r.example/a", true),
            ("*.example", "a.r.example/a", false),
            ("*.*.example", "a.r.example/a", true),
            ("r*.example", "registry.example/a", true),
            ("*r*y.example", "registry.example/a", true),
            ("*r*x.example", "registry.example/a", false),
            ("r.example:5000", "r.example/a", false),
            ("r.example:5000/team", "r.example:5000/team/a", true),
            ("r.example:5000/team", "r.example:5000/other/a", false),
            ("r.example/te", "r.example/team/a", true),
            ("docker.io", "docker.io/library/busybox", true),
        ] {
            assert_eq!(covers(pattern, image), want, "{pattern} {image}");
        }
    }

    #[test]
    fn keys_of_config_json_become_patterns() {
        for (key, want) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("https://r.example/v2/", "r.example"),
            ("http://r.example/v2/team", "r.example/team"),
            ("r.example/v1x/team/", "r.example/v1x/team"),
            ("r.example:5000/", "r.example:5000"),
        ] {
            assert_eq!(of_key(key), want, "{key}");
        }
        for bad in ["", "/path", "https://r.example", "r.example:port", "r .example"] {
            assert!(check(bad).is_err(), "{bad}");
        }
        for good in ["*.*.example:80/a", "r.example"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }
}
