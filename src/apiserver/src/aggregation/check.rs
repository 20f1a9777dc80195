//! Is an extension API server there, and what does it serve? Asked when something about it changes, soon again while it fails, and now and
//! then while it does not; the APIService says what was found.

use std::{cmp, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_api::{openapi::merge, status::Status};
use futures::future::select_ok;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::{
    Aggregation,
    locate::Place,
    register,
    remote::{Answer, AskError, Known, Remote, State, told},
    service::{GROUP, PLURAL},
};
use crate::registry::Registry;

/// Addresses that are asked at once; one that answers is enough.
const ATTEMPTS: usize = 5;
/// Between two questions to a server that answers: requests that cannot reach it ask at once.
const RECHECK: Duration = Duration::from_secs(30);
/// Before the second question to a server that does not; doubled each time, up to [`RECHECK`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How old what is known of its OpenAPI documents may be.
const DOCUMENTS_AGE: Duration = Duration::from_secs(60);
/// Bytes of an APIResourceList: a resource takes some 200.
const MAX_LIST_BYTES: usize = 4 << 20;
/// Bytes of a list of OpenAPI v3 documents, and of an OpenAPI v2 document: that of all of Kubernetes has 4 MiB.
const MAX_DOCUMENT_BYTES: usize = 16 << 20;

/// What a check has found, as the condition says it.
struct Found {
    status: &'static str,
    reason: &'static str,
    message: String,
}

/// Checks for ever.
pub async fn keep(remote: Arc<Remote>, aggregation: Arc<Aggregation>, registry: Registry) {
    let mut pause = FIRST_PAUSE;
    let mut read_at: Option<Instant> = None;
    loop {
        let found = look(&remote).await;
        let good = found.status == "True";
        let told = tell(&remote, &registry, &found).await;
        if let Err(status) = &told {
            tracing::warn!(apiservice = remote.name, error = status.message, "the status of an APIService was not written");
        }
        if good && read_at.is_none_or(|at| at.elapsed() >= DOCUMENTS_AGE) {
            documents(&remote, &aggregation).await;
            read_at = Some(Instant::now());
        } else if !good {
            // What comes back may be a newer one.
            read_at = None;
        }
        let until = if good && told.is_ok() { RECHECK } else { pause };
        pause = if timeout(until, remote.wake.notified()).await.is_ok() || good { FIRST_PAUSE } else { cmp::min(pause * 2, RECHECK) };
    }
}

/// Asks whoever answers for the Service what is served there, and remembers it.
async fn look(remote: &Remote) -> Found {
    let failed = |reason, message| Found { status: "False", reason, message };
    let places = remote.places();
    let answered = match &*places {
        Err(missing) => Err(failed(missing.reason(), missing.to_string())),
        Ok(places) => {
            let root = remote.root();
            let asked = places.iter().take(ATTEMPTS).map(|place| Box::pin(remote.ask(place, &root, None, MAX_LIST_BYTES)));
            select_ok(asked).await.map(|(answer, _)| answer).map_err(|error| failed("FailedDiscoveryCheck", told(&error)))
        }
    };
    let old = remote.state();
    match answered {
        Ok(answer) => {
            let list = serde_json::from_slice::<Value>(&answer.body).ok().filter(|list| list["resources"].is_array());
            let (fresh, resources) = (list.is_some(), list.map_or_else(|| Arc::clone(&old.resources), Arc::new));
            remote.saw(State { available: true, fresh, resources, ..State::clone(&old) });
            Found { status: "True", reason: "Passed", message: "all checks passed".into() }
        }
        Err(found) => {
            remote.saw(State { available: false, fresh: false, ..State::clone(&old) });
            found
        }
    }
}

/// Writes the condition, if it is another one.
async fn tell(remote: &Remote, registry: &Registry, found: &Found) -> Result<(), Status> {
    let wanted = |service: &Value| register::with_condition(service, found.status, found.reason, &found.message, Timestamp::now());
    let ours = |service: &Value| service["metadata"]["uid"] == remote.uid.as_str();
    let Some(there) = registry.get(GROUP, PLURAL, "", &remote.name).map(|held| held.value()).filter(ours) else { return Ok(()) };
    if wanted(&there)["status"] == there["status"] {
        return Ok(());
    }
    let of_before = |part: &str| {
        let conditions = there["status"]["conditions"].as_array().into_iter().flatten();
        conditions.clone().find(|condition| condition["type"] == "Available").map(|condition| condition[part].clone())
    };
    let was = (of_before("status"), of_before("reason"));
    if found.status == "False" && was != (Some(found.status.into()), Some(found.reason.into())) {
        registry.metrics().callers.unavailable(&remote.name, found.reason);
    }
    tracing::info!(
        apiservice = remote.name,
        available = found.status,
        reason = found.reason,
        message = found.message,
        "an extension API server"
    );
    let mut make = |old: &Value| if ours(old) { wanted(old) } else { old.clone() };
    match registry.change_status(GROUP, PLURAL, "", &remote.name, &mut make).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// Reads its OpenAPI documents where they are others than before.
async fn documents(remote: &Remote, aggregation: &Aggregation) {
    let Some(place) = remote.next_place() else { return };
    let old = remote.state();
    let path = remote.root();
    let index = |body: Bytes| {
        let index: Value = serde_json::from_slice(&body).ok()?;
        Some(index["paths"][path.trim_start_matches('/')]["serverRelativeURL"].as_str()?.to_owned())
    };
    let v3 = read(remote, &place, "/openapi/v3", old.v3.as_ref(), async |body| index(body)).await;
    let prefix = format!("{path}/");
    let own_part = async |body: Bytes| {
        // A document of megabytes takes a while to read.
        let part = tokio::task::spawn_blocking(move || {
            let whole: Value = serde_json::from_slice(&body).ok()?;
            Some(Bytes::from(merge::confine(whole, &prefix).to_string()))
        });
        part.await.ok().flatten()
    };
    let v2 = read(remote, &place, "/openapi/v2", old.v2.as_ref(), own_part).await;
    let content = |state: &State| (state.v3.clone().map(|v3| v3.content), state.v2.clone().map(|v2| v2.content));
    let new = State { v3, v2, ..State::clone(&remote.state()) };
    let changed = content(&new) != content(&old);
    remote.saw(new);
    if changed {
        aggregation.documents_changed();
    }
}

/// What is known of a document after a look at it. A server that has none has none; one that does not answer has the one it had.
async fn read<T: Clone>(
    remote: &Remote,
    place: &Place,
    path: &str,
    old: Option<&Known<T>>,
    take: impl AsyncFnOnce(Bytes) -> Option<T>,
) -> Option<Known<T>> {
    let tag: Option<&HeaderValue> = old.and_then(|known| known.etag.as_ref());
    match remote.ask(place, path, tag, MAX_DOCUMENT_BYTES).await {
        Ok(Answer { code: StatusCode::NOT_MODIFIED, .. }) => old.cloned(),
        Ok(Answer { etag, body, .. }) => take(body).await.map(|content| Known { content, etag }),
        Err(AskError::Code { .. }) => None,
        Err(error) => {
            tracing::debug!(apiservice = remote.name, %error, "a document of an extension API server was not read");
            old.cloned()
        }
    }
}
