//! What a node says instead of a log becomes a Status: clients show nobody a plain text.

use coracle_api::status::Status;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

/// A node's word is as long at most: upstream's figure.
const WORD_BYTES: usize = 50_000;

/// The answer to who asked for the log of this pod.
pub(super) async fn log(pod: &str, reply: http::Response<Incoming>) -> Status {
    let code = reply.status().as_u16();
    match Limited::new(reply.into_body(), WORD_BYTES).collect().await {
        Ok(body) => status(pod, code, &String::from_utf8_lossy(&body.to_bytes())),
        Err(error) => Status::internal(format!("the node's answer cannot be read: {error}")),
    }
}

fn status(pod: &str, code: u16, word: &str) -> Status {
    let about = |code, reason, message: &str| Status::new(code, reason, format!("{message} ( pods/log {pod})")).about("", "pods/log", pod);
    match code {
        400 => Status::bad_request(word),
        500 => Status::internal(format!("Internal error occurred: {word}")),
        401 => about(code, "Unauthorized", "the server has asked for the client to provide credentials"),
        403 => about(code, "Forbidden", word),
        404 => about(code, "NotFound", "the server could not find the requested resource"),
        503 => about(code, "ServiceUnavailable", "the server is currently unable to handle the request"),
        429 => about(code, "TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        _ if code > 500 => {
            about(code, "InternalError", &format!("an error on the server ({word:?}) has prevented the request from succeeding"))
        }
        _ => about(code, "", &format!("the server responded with the status code {code} but did not return more information")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_word_reaches_who_asked() {
        for (code, word, reason, message) in [
            (
                400,
                "container \"c\" is waiting to start: ContainerCreating",
                "BadRequest",
                "container \"c\" is waiting to start: ContainerCreating",
            ),
            (404, "pod \"p\" is not on this node", "NotFound", "the server could not find the requested resource ( pods/log p)"),
            (403, "no", "Forbidden", "no ( pods/log p)"),
            (502, "x", "InternalError", "an error on the server (\"x\") has prevented the request from succeeding ( pods/log p)"),
        ] {
            let got = status("p", code, word);
            assert_eq!((got.code, got.reason, got.message.as_str()), (code, reason, message));
        }
    }
}
