//! Watches against a scripted API server in the same process: each request is told, and answered with what comes next in the script.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

/// A client of a server that answers with these in turn, and what it was asked for. After the script every answer is a refusal.
fn server(script: Vec<(u16, String)>) -> (Client, mpsc::UnboundedReceiver<String>) {
    let (asked, asks) = mpsc::unbounded_channel();
    let script = Arc::new(Mutex::new(VecDeque::from(script)));
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let _ = asked.send(request.uri().to_string());
        let (code, body) = script.lock().unwrap().pop_front().unwrap_or((503, status(503)));
        let response = Response::builder().status(code).body(Full::new(bytes::Bytes::from(body))).unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    (crate::in_process(service), asks)
}

fn map(name: &str, revision: u64) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d", "resourceVersion": revision.to_string()}})
}

fn page(items: &[Value], revision: u64, next: &str) -> (u16, String) {
    (200, json!({"metadata": {"resourceVersion": revision.to_string(), "continue": next}, "items": items}).to_string())
}

fn events(all: &[(&str, Value)]) -> (u16, String) {
    (200, all.iter().map(|(kind, object)| format!("{}\n", json!({"type": kind, "object": object}))).collect())
}

fn status(code: u16) -> String {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "no", "reason": "Because"})
        .to_string()
}

/// What a watch tells, in few words.
async fn told(steps: &mut (impl Stream<Item = Result<Step<ConfigMap>, WatchError>> + Unpin), count: usize) -> Vec<String> {
    let name = |map: ConfigMap| map.metadata.name.unwrap_or_default();
    let mut out = Vec::new();
    while out.len() < count {
        out.push(match steps.next().await.unwrap() {
            Ok(Step::Begin) => "begin".into(),
            Ok(Step::Complete) => "complete".into(),
            Ok(Step::Listed(map)) => format!("listed {}", name(map)),
            Ok(Step::Put(map)) => format!("put {}", name(map)),
            Ok(Step::Deleted(map)) => format!("deleted {}", name(map)),
            Err(WatchError::List { .. }) => "not listed".into(),
            Err(WatchError::Open { .. }) => "not watched".into(),
            Err(WatchError::Broken { .. }) => "broken".into(),
            Err(WatchError::Ended { code, .. }) => format!("ended {code}"),
            Err(WatchError::Decode { .. }) => "unreadable".into(),
        });
    }
    out
}

fn asked(asks: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| asks.try_recv().ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn pages_come_first_then_events_and_a_watch_goes_on_where_it_ended() {
    let bookmark = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "9"}});
    let (client, mut asks) = server(vec![
        page(&[map("a", 2), map("b", 3)], 5, "more/="),
        page(&[map("c", 4)], 5, ""),
        events(&[("ADDED", map("d", 6)), ("MODIFIED", map("a", 7)), ("DELETED", map("b", 8)), ("BOOKMARK", bookmark)]),
        events(&[("MODIFIED", map("c", 10))]),
        events(&[]),
    ]);
    let mut steps = watch::<ConfigMap>(&client, Some("d"), Scope { fields: Some("x=1".into()), labels: Some("l in (a,b)".into()) });
    assert_eq!(
        told(&mut steps, 10).await,
        ["begin", "listed a", "listed b", "listed c", "complete", "put d", "put a", "deleted b", "put c", "not watched"]
    );
    let asks = asked(&mut asks);
    let selectors = "fieldSelector=x%3D1&labelSelector=l+in+%28a%2Cb%29";
    assert!(
        asks[0].starts_with("/api/v1/namespaces/d/configmaps?") && asks[0].contains("limit=250") && asks[0].contains(selectors),
        "{}",
        asks[0]
    );
    assert!(asks[1].contains("continue=more%2F%3D") && asks[1].contains(selectors), "{}", asks[1]);
    for (at, revision) in [(2, 5), (3, 9), (4, 10), (5, 10)] {
        let ask = &asks[at];
        assert!(ask.contains("watch=true") && ask.contains("allowWatchBookmarks=true") && ask.contains(selectors), "{ask}");
        assert!(ask.ends_with(&format!("resourceVersion={revision}")), "{at}: {ask}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_expired_is_listed_anew() {
    let expired: Value = serde_json::from_str(&status(410)).unwrap();
    let (client, mut asks) = server(vec![
        page(&[map("a", 2)], 5, ""),
        events(&[("ADDED", map("b", 6)), ("ERROR", expired)]),
        page(&[map("b", 6)], 7, "next"),
        (410, status(410)),
        page(&[map("b", 6)], 8, ""),
        (410, status(410)),
        page(&[], 9, ""),
    ]);
    let mut steps = watch::<ConfigMap>(&client, None, Scope::default());
    assert_eq!(told(&mut steps, 5).await, ["begin", "listed a", "complete", "put b", "ended 410"]);
    assert_eq!(told(&mut steps, 3).await, ["begin", "listed b", "not listed"]);
    assert_eq!(told(&mut steps, 4).await, ["begin", "listed b", "complete", "not watched"]);
    assert_eq!(told(&mut steps, 2).await, ["begin", "complete"]);
    assert_eq!(asked(&mut asks).len(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_told_and_takes_nothing_else_with_it() {
    let wrong = json!({"metadata": {"name": 7, "resourceVersion": "4"}});
    let cut = events(&[("ADDED", map("b", 6)), ("ADDED", map("c", 7))]).1;
    let (client, mut asks) = server(vec![
        (503, status(503)),
        page(&[map("a", 2), wrong, map("z", 3)], 5, ""),
        (200, cut[..cut.len() - 5].to_owned()),
        (200, "{}\n".to_owned() + &events(&[("ADDED", map("d", 8))]).1),
    ]);
    let mut steps = watch::<ConfigMap>(&client, None, Scope::default());
    assert_eq!(told(&mut steps, 6).await, ["begin", "not listed", "begin", "listed a", "unreadable", "listed z"]);
    assert_eq!(told(&mut steps, 5).await, ["complete", "put b", "broken", "unreadable", "put d"]);
    assert!(asked(&mut asks).last().unwrap().ends_with("resourceVersion=6"));
}

#[tokio::test(start_paused = true)]
async fn one_object_is_there_or_not() {
    let (client, mut asks) =
        server(vec![page(&[], 5, ""), events(&[("ADDED", map("a", 6)), ("DELETED", map("a", 7)), ("ADDED", map("a", 8))])]);
    let mut states = watch_object::<ConfigMap>(&client, Some("d"), "a").map(|state| state.map(|object| object.is_some()).ok());
    for there in [Some(false), Some(true), Some(false), Some(true), None] {
        assert_eq!(states.next().await, Some(there));
    }
    assert!(asked(&mut asks)[0].contains("fieldSelector=metadata.name%3Da"));

    let (client, _asks) = server(vec![page(&[map("a", 5)], 5, ""), events(&[("DELETED", map("a", 6))])]);
    let gone = until::<ConfigMap>(&client, Some("d"), "a", |object| object.is_none()).await;
    assert!(matches!(gone, Ok(None)));
    let (client, _asks) = server(vec![]);
    assert!(matches!(until::<ConfigMap>(&client, None, "a", |_| true).await, Err(WatchError::List { .. })));
}
