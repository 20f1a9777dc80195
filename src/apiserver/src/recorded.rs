//! An answer on its way out: it is counted, and told to the audit. Of a stream that is done when it ends.

use std::time::{Duration, Instant};

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::{StatusCode, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, BodyStream, StreamBody};

use crate::{
    audit::Annotations,
    body::{Body, BodyError},
    flow,
    metrics::{Ended, Long, Running},
    socket::Socket,
};

/// Bytes of an answer that the audit takes; of a longer one it says that it was cut.
const AUDITED_BYTES: usize = 3 << 20;

/// What is known of a request when its answer is there.
#[derive(Debug, Default)]
pub struct Trail {
    /// What is told to the audit.
    pub audit: Annotations,
    /// Where it is counted; `None` when its path could not be read.
    pub running: Option<Running>,
    /// It lives on until one side ends it.
    pub stream: bool,
    /// By what it was judged when it had to get its turn.
    pub flow: Option<flow::Headers>,
    /// Until it was its turn.
    pub waited: Duration,
    /// It did not get its turn or its time.
    pub terminated: bool,
    /// What a failed authentication tried.
    pub attempted: Option<String>,
    /// Whom the stream goes to in messages.
    pub socket: Option<Socket>,
}

/// Tells of the answer.
pub async fn record(mut answer: Response, trail: Trail, since: Instant) -> Response {
    let Trail { audit, running, stream, flow: _, waited, terminated, attempted, socket: _ } = trail;
    let (code, size) = (answer.status(), answer.body().size_hint().exact());
    let open = stream && size.is_none();
    if audit.wanted() {
        if let Some(attempted) = attempted {
            audit.answered(code.as_u16(), &attempted, None, true);
            audit.forget();
        } else {
            let body;
            (answer, body) = audited(answer, &audit, open).await;
            audit.answered(code.as_u16(), "", body, stream);
        }
        // Who speaks through an upgraded connection holds on to the audit until it ends.
        if !open && code != StatusCode::SWITCHING_PROTOCOLS {
            audit.complete();
        }
    }
    let Some(running) = running else { return answer };
    let ended = Ended { code, took: since.elapsed(), waited, size, terminated };
    if !open {
        running.end(ended);
        return answer;
    }
    let guard = Streaming { long: running.long(), running, ended, since, audit };
    answer.map(|body| {
        let frames = BodyStream::new(body).inspect(move |_| {
            let _held_as_long_as_the_stream = &guard;
        });
        Body::new(StreamBody::new(frames))
    })
}

/// A stream that is answered.
struct Streaming {
    #[expect(dead_code, reason = "counted as long as it is held")]
    long: Long,
    running: Running,
    ended: Ended,
    since: Instant,
    audit: Annotations,
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.running.end(Ended { took: self.since.elapsed(), ..self.ended });
        self.audit.complete();
    }
}

/// The answer again, with its body if the audit takes that.
async fn audited(answer: Response, audit: &Annotations, open: bool) -> (Response, Option<(String, Bytes)>) {
    // A deletion answers with a Status too.
    let status = answer.status().is_client_error() || answer.status().is_server_error() || audit.deletes();
    if open || answer.status() == StatusCode::SWITCHING_PROTOCOLS || !audit.wants_body(status) {
        return (answer, None);
    }
    let media = answer.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (parts, mut body) = answer.into_parts();
    let mut taken = BytesMut::new();
    loop {
        match body.frame().await {
            None => {
                let whole = taken.freeze();
                return (Response::from_parts(parts, Body::from(whole.clone())), Some((media, whole)));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    taken.extend_from_slice(&data);
                }
            }
            Some(Err(error)) => {
                let broken = stream::iter([Ok::<_, BodyError>(Frame::data(taken.freeze())), Err(error.into())]);
                return (Response::from_parts(parts, Body::new(StreamBody::new(broken))), None);
            }
        }
        if taken.len() > AUDITED_BYTES {
            audit.add("audit.k8s.io/truncated", "true");
            let start = stream::iter([Ok(Frame::data(taken.freeze()))]);
            let whole = start.chain(BodyStream::new(body));
            return (Response::from_parts(parts, Body::new(StreamBody::new(whole))), None);
        }
    }
}
