//! `/containerLogs`: which run's log is asked for, and its stream.

use std::convert::Infallible;

use axum::{body::Body, extract::State, response::Response};
use bytes::Bytes;
use futures::StreamExt as _;
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    answer::{streamed, text},
    query::Query,
    route::{Name, Node},
};
use crate::logs::read::{self, LogRequest, QUEUE_CHUNKS};

/// Why a container waits whose status nobody has written yet.
const NOT_WRITTEN: &str = "ContainerCreating";

/// Answers a request for logs.
pub async fn answer(State(Node { ctx, pods }): State<Node>, name: Name, query: Query) -> Response {
    let Name { namespace, pod: name, uid, container } = name;
    let Some((pod, mut facts)) = pods.find(&namespace, &name, uid.as_deref()) else {
        return text(StatusCode::NOT_FOUND, format!("pod {name:?} is not on this node\n"));
    };
    let request = match request(&query, Timestamp::now()) {
        Ok(request) => request,
        Err(message) => return text(StatusCode::BAD_REQUEST, message),
    };
    let newest = facts.borrow().runs.get(&container).map(|(_, attempt, alive)| (*attempt, *alive)).or_else(|| of_status(&pod, &container));
    let previous = query.flag(&["previous"]);
    let Some((attempt, alive)) = run(newest, previous) else {
        return text(StatusCode::BAD_REQUEST, no_run(&pod, &name, &container, previous));
    };
    let log = ctx.log_dir(&pod).join(&container).join(format!("{attempt}.log"));
    let (sender, chunks) = mpsc::channel::<Bytes>(QUEUE_CHUNKS);
    tokio::spawn(async move {
        let over = async move {
            if alive {
                let ended = |f: &crate::pod::worker::Facts| f.over || f.runs.get(&container).is_none_or(|r| r.1 != attempt || !r.2);
                let _ = facts.wait_for(ended).await;
            }
        };
        if let Err(error) = read::send(log, request, sender, over).await {
            tracing::debug!(%error, "a log is not read to its end");
        }
    });
    streamed(Body::from_stream(ReceiverStream::new(chunks).map(Ok::<_, Infallible>)))
}

/// Which run's log is meant, and whether it still writes.
fn run(newest: Option<(u32, bool)>, previous: bool) -> Option<(u32, bool)> {
    match newest {
        Some((attempt, _)) if previous => attempt.checked_sub(1).map(|a| (a, false)),
        other => other,
    }
}

/// Why there is none. One that runs for the first time waits for nothing.
fn no_run(pod: &Pod, name: &str, container: &str, previous: bool) -> String {
    if previous {
        return format!("previous terminated container {container:?} in pod {name:?} not found");
    }
    let reason = waiting(pod, container).unwrap_or_else(|| NOT_WRITTEN.to_owned());
    format!("container {container:?} in pod {name:?} is waiting to start: {reason}")
}

fn request(query: &Query, now: Timestamp) -> Result<LogRequest, String> {
    let since = match (query.number("sinceSeconds")?, query.get("sinceTime").filter(|t| !t.is_empty())) {
        (Some(seconds), _) => Some(ago(now, seconds)),
        (None, Some(time)) => Some(time.parse().map_err(|_| format!("sinceTime must be a time as in RFC 3339, not {time:?}"))?),
        (None, None) => None,
    };
    Ok(LogRequest {
        tail_lines: query.number("tailLines")?,
        since,
        timestamps: query.flag(&["timestamps"]),
        limit_bytes: query.number("limitBytes")?,
        follow: query.flag(&["follow"]),
        stderr: match query.get("stream") {
            Some("Stdout") => Some(false),
            Some("Stderr") => Some(true),
            _ => None,
        },
    })
}

fn ago(now: Timestamp, seconds: u64) -> Timestamp {
    i64::try_from(seconds).ok().and_then(|s| now.checked_sub(jiff::SignedDuration::from_secs(s)).ok()).unwrap_or(Timestamp::MIN)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| {
        [&s.init_container_statuses, &s.container_statuses, &s.ephemeral_container_statuses].into_iter().flat_map(|l| l.iter().flatten())
    })
}

fn of_status(pod: &Pod, container: &str) -> Option<(u32, bool)> {
    let status = statuses(pod).find(|s| s.name == container && s.container_id.is_some())?;
    Some((u32::try_from(status.restart_count).ok()?, false))
}

fn waiting(pod: &Pod, container: &str) -> Option<String> {
    let status = statuses(pod).find(|s| s.name == container)?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_before_is_the_one_that_ended() {
        assert_eq!(run(Some((2, true)), false), Some((2, true)));
        assert_eq!(run(Some((2, true)), true), Some((1, false)));
        assert_eq!(run(Some((0, true)), true), None);
        assert_eq!(run(None, true), None);
    }

    #[test]
    fn a_first_run_has_none_before_it_and_waits_for_nothing() {
        let pod = Pod::default();
        assert_eq!(no_run(&pod, "p", "c", true), "previous terminated container \"c\" in pod \"p\" not found");
        assert_eq!(no_run(&pod, "p", "c", false), "container \"c\" in pod \"p\" is waiting to start: ContainerCreating");
    }
}
