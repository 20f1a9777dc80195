//! Bearer tokens of browsers, whose WebSockets cannot carry headers: one of the protocols that they ask for is the token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};

/// What such a protocol begins with; the rest is the token in base64url without padding.
const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Moves the token of a WebSocket's protocols to where tokens are, unless there is one. The protocol is taken off: nobody is to choose it.
pub fn bearer(headers: &mut HeaderMap) {
    let names = |header, wanted: &str| {
        let value: Option<&HeaderValue> = headers.get(header);
        value.and_then(|value| value.to_str().ok()).is_some_and(|value| value.to_ascii_lowercase().contains(wanted))
    };
    if headers.contains_key(AUTHORIZATION) || !names(CONNECTION, "upgrade") || !names(UPGRADE, "websocket") {
        return;
    }
    let Some((token, rest)) = split(headers) else { return };
    let (Ok(token), Ok(rest)) = (HeaderValue::try_from(format!("Bearer {token}")), HeaderValue::try_from(rest)) else { return };
    headers.insert(AUTHORIZATION, token);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
}

/// The token and the other protocols. One token, and something to speak besides: upstream refuses all else.
fn split(headers: &HeaderMap) -> Option<(String, String)> {
    let all = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let all = all.flat_map(|value| value.split(',')).map(str::trim).filter(|protocol| !protocol.is_empty());
    let (tokens, others): (Vec<&str>, Vec<&str>) = all.partition(|protocol| protocol.starts_with(PREFIX));
    let [token] = tokens[..] else { return None };
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?).ok()?;
    (!others.is_empty() && !token.is_empty()).then(|| (token, others.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(protocols: &[&str], expected: Option<(&str, &str)>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::try_from(*protocol).expect("a header"));
        }
        bearer(&mut headers);
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().expect("text").to_owned());
        let found = text(AUTHORIZATION).zip(text(SEC_WEBSOCKET_PROTOCOL));
        assert_eq!(found.as_ref().map(|(token, rest)| (token.as_str(), rest.as_str())), expected, "{protocols:?}");
    }

    #[test]
    fn a_protocol_may_be_a_token() {
        // "abc.def"
        let token = "base64url.bearer.authorization.k8s.io.YWJjLmRlZg";
        check(&[token, "v4.channel.k8s.io"], Some(("Bearer abc.def", "v4.channel.k8s.io")));
        check(
            &[&format!("v5.channel.k8s.io, {token}, v4.channel.k8s.io")],
            Some(("Bearer abc.def", "v5.channel.k8s.io, v4.channel.k8s.io")),
        );
        check(&[token], None);
        check(&[token, token, "v4.channel.k8s.io"], None);
        check(&["base64url.bearer.authorization.k8s.io.%%", "v4.channel.k8s.io"], None);
        check(&["v4.channel.k8s.io"], None);
    }
}
