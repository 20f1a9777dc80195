//! Who asks, as an extension API server is told: in headers that it believes because of the front-proxy certificate. Pure.

use coracle_api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::request::User;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA_PREFIX: &str = "x-remote-extra-";
/// What a header's name cannot hold (RFC 9110, tokens), and the sign of an escape.
const ESCAPED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'(')
    .add(b')')
    .add(b',')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'<')
    .add(b'=')
    .add(b'>')
    .add(b'?')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'{')
    .add(b'}');

/// Puts the user into the headers; what the client has said there itself is taken off.
pub fn put(headers: &mut HeaderMap, user: &User) -> Result<(), Status> {
    let claimed = |name: &&HeaderName| [USER, UID, GROUP].contains(name) || name.as_str().starts_with(EXTRA_PREFIX);
    let claimed: Vec<HeaderName> = headers.keys().filter(claimed).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    headers.insert(USER, value(&user.name)?);
    if !user.uid.is_empty() {
        headers.insert(UID, value(&user.uid)?);
    }
    for group in &user.groups {
        headers.append(GROUP, value(group)?);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA_PREFIX}{}", utf8_percent_encode(key, ESCAPED));
        let name = HeaderName::try_from(&name).map_err(|_| unspeakable(key))?;
        for one in values {
            headers.append(name.clone(), value(one)?);
        }
    }
    Ok(())
}

fn value(text: &str) -> Result<HeaderValue, Status> {
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unspeakable(text))
}

fn unspeakable(text: &str) -> Status {
    Status::internal(format!("the user's attribute {text:?} cannot be told to an extension API server: no HTTP header can hold it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_headers() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("x-remote-user", "admin"), ("x-remote-extra-a", "b"), ("x-remote-group", "system:masters"), ("accept", "a")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let extra = [("example.com/Pod name".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
        let user = User { name: "zoë".into(), uid: "7".into(), groups: vec!["g1".into(), "g2".into()], extra };
        put(&mut headers, &user).expect("it can be told");
        let all = |name: &str| headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["zoë"]);
        assert_eq!(all("x-remote-uid"), ["7"]);
        assert_eq!(all("x-remote-group"), ["g1", "g2"]);
        assert_eq!(all("x-remote-extra-example.com%2fpod%20name"), ["a", "b"]);
        assert!(all("x-remote-extra-a").is_empty());
        assert_eq!(all("accept"), ["a"]);
        let broken = User { name: "a\nb".into(), ..User::default() };
        assert_eq!(put(&mut headers, &broken).map_err(|status| status.code), Err(500));
    }
}
