//! Candidates around one scripted Lease, on a clock that waits for nobody.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::*;

/// An API server that knows one Lease: creation once, replacement at its resourceVersion.
#[derive(Clone, Default)]
struct House {
    lease: Arc<Mutex<Option<Value>>>,
    down: Arc<AtomicBool>,
    /// For the next replacement.
    slow: Arc<Mutex<Option<Arc<Slow>>>>,
}

/// A replacement that takes its time.
#[derive(Default)]
struct Slow {
    /// It is written when it comes, not when it is answered.
    at_once: bool,
    arrived: Notify,
    go: Notify,
}

impl House {
    fn client(&self) -> Client {
        let house = self.clone();
        crate::in_process(tower::service_fn(move |request: Request<kube::client::Body>| {
            let house = house.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let slow = if head.method == Method::PUT { house.slow.lock().unwrap().take() } else { None };
                let written = slow.as_ref().filter(|slow| slow.at_once).map(|_| house.answer(&head.method, head.uri.path(), &body));
                if let Some(slow) = slow {
                    slow.arrived.notify_one();
                    slow.go.notified().await;
                }
                Ok::<_, Infallible>(written.unwrap_or_else(|| house.answer(&head.method, head.uri.path(), &body)))
            }
        }))
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<bytes::Bytes>> {
        if self.down.load(Ordering::Relaxed) {
            return status(503);
        }
        if !path.contains("/leases") {
            return status(404);
        }
        let mut lease = self.lease.lock().unwrap();
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let revision = lease.as_ref().map_or(0, |l| l["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
        match (method, lease.as_ref()) {
            (&Method::GET, None) => return status(404),
            (&Method::GET, Some(_)) => {}
            (&Method::POST, Some(_)) => return status(409),
            (&Method::PUT, now) if now.map(|l| &l["metadata"]["resourceVersion"]) != Some(&sent["metadata"]["resourceVersion"]) => {
                return status(409);
            }
            _ => {
                let mut stored = sent;
                stored["metadata"]["resourceVersion"] = json!((revision + 1).to_string());
                *lease = Some(stored);
            }
        }
        Response::new(Full::new(lease.as_ref().unwrap().to_string().into()))
    }

    fn holder(&self) -> Value {
        self.lease.lock().unwrap().as_ref().map_or(Value::Null, |l| l["spec"]["holderIdentity"].clone())
    }
}

fn status(code: u16) -> Response<Full<bytes::Bytes>> {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": reason});
    let mut response = Response::new(Full::new(body.to_string().into()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn seat(identity: &str) -> Seat {
    Seat { namespace: "kube-system", name: "kube-scheduler", identity: identity.to_owned(), terms: Terms::default() }
}

/// Work that counts who works; more than one at a time is a failure of the test.
#[derive(Clone, Default)]
struct Work {
    now: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Work {
    fn candidate(&self, house: &House, identity: &str) -> (CancellationToken, tokio::task::JoinHandle<()>) {
        let (work, stop) = (self.clone(), CancellationToken::new());
        let running = lead(house.client(), seat(identity), stop.clone(), move |ended| {
            let work = work.clone();
            async move {
                assert_eq!(work.now.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
                work.begun.fetch_add(1, Ordering::SeqCst);
                work.changed.notify_waiters();
                ended.cancelled().await;
                work.now.fetch_sub(1, Ordering::SeqCst);
                work.changed.notify_waiters();
            }
        });
        (stop, tokio::spawn(running))
    }

    async fn until(&self, what: &str, good: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                if good(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_freed_seat_is_taken_within_a_retry() {
    let (house, work) = (House::default(), Work::default());
    let (stop_a, a) = work.candidate(&house, "a");
    work.until("a leads", |w| w.begun.load(Ordering::SeqCst) == 1).await;
    let (stop_b, b) = work.candidate(&house, "b");
    // Between two renewals.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((house.holder(), work.begun.load(Ordering::SeqCst)), (json!("a"), 1), "a renews, b waits");
    stop_a.cancel();
    a.await.unwrap();
    let freed = Instant::now();
    work.until("b leads", |w| w.begun.load(Ordering::SeqCst) == 2).await;
    // Timers end at whole milliseconds.
    assert!(freed.elapsed() <= Terms::default().retry + Duration::from_millis(10), "{:?}", freed.elapsed());
    stop_b.cancel();
    b.await.unwrap();
}

/// The end may come while a renewal is on its way: before the server wrote it, or before its answer was read.
#[tokio::test(start_paused = true)]
async fn a_seat_left_in_the_middle_of_a_renewal_is_free_all_the_same() {
    for at_once in [false, true] {
        let (house, work) = (House::default(), Work::default());
        let (stop_a, a) = work.candidate(&house, "a");
        work.until("a leads", |w| w.begun.load(Ordering::SeqCst) == 1).await;
        let slow = Arc::new(Slow { at_once, ..Slow::default() });
        *house.slow.lock().unwrap() = Some(slow.clone());
        slow.arrived.notified().await;
        stop_a.cancel();
        a.await.unwrap();
        assert_eq!(house.holder(), json!(""), "the renewal was written at once: {at_once}");
        slow.go.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_renew_ends_before_another_begins() {
    let (house, work) = (House::default(), Work::default());
    let (stop_a, a) = work.candidate(&house, "a");
    work.until("a leads", |w| w.begun.load(Ordering::SeqCst) == 1).await;
    let outage = Instant::now();
    house.down.store(true, Ordering::Relaxed);
    work.until("a ends", |w| w.now.load(Ordering::SeqCst) == 0).await;
    let terms = Terms::default();
    assert!(
        outage.elapsed() <= terms.renew_deadline + Duration::from_millis(10) && terms.renew_deadline < terms.lease,
        "{:?}",
        outage.elapsed()
    );
    house.down.store(false, Ordering::Relaxed);
    work.until("a leads again: the Lease is still its own", |w| w.begun.load(Ordering::SeqCst) == 2).await;
    stop_a.cancel();
    a.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_followed_by_itself_at_once_and_by_others_after_its_lease() {
    let (house, work) = (House::default(), Work::default());
    for (identity, at_once) in [("a", true), ("a", true), ("b", false)] {
        let (begin, before) = (Instant::now(), work.begun.load(Ordering::SeqCst));
        let (_stop, running) = work.candidate(&house, identity);
        work.until("it leads", |w| w.begun.load(Ordering::SeqCst) == before + 1).await;
        assert_eq!(begin.elapsed() < Duration::from_secs(1), at_once, "{identity}: {:?}", begin.elapsed());
        running.abort();
        let _ = running.await;
        work.now.store(0, Ordering::SeqCst);
    }
}
