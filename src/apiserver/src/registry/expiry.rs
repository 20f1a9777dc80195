//! Events are kept for an hour, and never more than a bounded number of them.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use coracle_store::{Expect, Store};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;

use crate::cache::{
    Cache, PREFIX,
    object::{Action, Object},
    stored,
    watcher::Watcher,
};

/// How long an Event is kept after its last write. Upstream's default.
const KEEP: Duration = Duration::from_secs(3600);
/// Events beyond this number go before their time, the oldest first: a pod that fails in a loop shall not fill the disk.
const MAX_EVENTS: usize = 20_000;

/// An Event that was written and will be deleted, unless it is written again.
#[derive(Debug)]
struct Due {
    at: Instant,
    key: Box<str>,
    revision: u64,
}

/// Deletes Events that are due, for ever.
pub(super) async fn run(cache: Cache, store: Arc<dyn Store>) {
    loop {
        let mut changes = cache.subscribe("", "events");
        let mut due = present(&cache, Timestamp::now());
        // Ends when the feed was too fast for it: then what is there is read again.
        follow(&cache, &*store, &mut changes, &mut due).await;
    }
}

/// What is there at the start, by the time of its last sighting.
fn present(cache: &Cache, now: Timestamp) -> VecDeque<Due> {
    let start = Instant::now();
    let mut all: Vec<Due> = cache.list("", "events", "").objects.iter().map(|event| due(event, start, age(event, now))).collect();
    all.sort_by_key(|due| due.at);
    all.into()
}

fn due(event: &Object, now: Instant, age: Duration) -> Due {
    Due { at: now + KEEP.saturating_sub(age), key: event.key().into(), revision: event.revision() }
}

/// How long ago an Event last happened, as far as it says.
fn age(event: &Object, now: Timestamp) -> Duration {
    let value = event.value();
    let times =
        [&value["series"]["lastObservedTime"], &value["lastTimestamp"], &value["eventTime"], &value["metadata"]["creationTimestamp"]];
    let last = times.into_iter().filter_map(|time| time.as_str()?.parse::<Timestamp>().ok()).max().unwrap_or(now);
    now.duration_since(last).try_into().unwrap_or(Duration::ZERO)
}

async fn follow(cache: &Cache, store: &dyn Store, changes: &mut Watcher, due: &mut VecDeque<Due>) {
    loop {
        let next = due.front().map_or_else(|| Instant::now() + KEEP, |due| due.at);
        tokio::select! {
            changed = changes.next() => {
                let Ok(changed) = changed else { return };
                let now = Instant::now();
                due.extend(changed.iter().filter(|c| c.action != Action::Deleted).map(|c| self::due(&c.object, now, Duration::ZERO)));
            }
            () = tokio::time::sleep_until(next) => {}
        }
        let collection = cache.collection("events");
        while due.front().is_some_and(|due| due.at <= Instant::now() || collection.len() > MAX_EVENTS) {
            let Some(event) = due.pop_front() else { break };
            // Written again since: a later entry of the queue stands for it.
            if collection.get(&event.key).is_none_or(|held| held.revision() != event.revision) {
                continue;
            }
            let key = format!("{PREFIX}{}/{}", stored("", "events"), event.key);
            match store.delete(&key, Expect::Revision(event.revision)).await {
                Ok(revision) => cache.wait(revision).await,
                Err(error) => debug!(%error, key, "an expired Event stays"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coracle_store::Entry;
    use serde_json::json;

    use super::*;
    use crate::cache::{object::encode, view::View};

    #[test]
    fn an_event_is_as_old_as_its_last_sighting() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (event, minutes) in [
            (json!({"lastTimestamp": "2026-01-01T00:50:00Z", "firstTimestamp": "2026-01-01T00:00:00Z"}), 10),
            (json!({"eventTime": "2026-01-01T00:10:00.000000Z", "lastTimestamp": null}), 50),
            (json!({"eventTime": "2026-01-01T00:10:00.000000Z", "series": {"lastObservedTime": "2026-01-01T00:59:00.000000Z"}}), 1),
            (json!({}), 0),
        ] {
            let mut event = event;
            event["kind"] = "Event".into();
            event["apiVersion"] = "v1".into();
            event["metadata"] = json!({"name": "e"});
            let entry = Entry { key: "/registry/events/a/e".into(), value: encode(&event, None).unwrap(), created: 1, modified: 1 };
            let held = Object::take_in(&entry, "a/e", 1, Action::Added, &View::of("events")).unwrap();
            assert_eq!(age(&held, now), Duration::from_secs(minutes * 60), "{event}");
        }
    }
}
