//! An informer against a scripted API server in the same process.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::mpsc;

use super::*;

/// A channel as a stream.
fn receiver<T>(channel: mpsc::Receiver<T>) -> impl futures::Stream<Item = T> {
    futures::stream::unfold(channel, |mut channel| async { channel.recv().await.map(|item| (item, channel)) })
}

fn map(name: &str, revision: u64) -> serde_json::Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
        "name": name, "namespace": "d", "resourceVersion": revision.to_string(), "managedFields": [{"manager": "m"}]}})
}

/// Answers lists with `listed`, and watches with what is sent to the returned channel (a new one per watch).
fn server(listed: Vec<serde_json::Value>) -> (Client, mpsc::Receiver<mpsc::Sender<String>>) {
    let (watches, opened) = mpsc::channel(8);
    let listed = Arc::new(listed);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (watches, listed) = (watches.clone(), listed.clone());
        async move {
            let body: UnsyncBoxBody<bytes::Bytes, Infallible> = if request.uri().query().is_some_and(|q| q.contains("watch=true")) {
                let (lines, r) = mpsc::channel::<String>(8);
                watches.send(lines).await.unwrap();
                BodyExt::boxed_unsync(StreamBody::new(receiver(r).map(|line| Ok(Frame::data(bytes::Bytes::from(line))))))
            } else {
                let list = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "5"}, "items": *listed});
                http_body_util::Full::new(bytes::Bytes::from(list.to_string())).boxed_unsync()
            };
            Ok::<_, Infallible>(Response::new(body))
        }
    });
    (crate::in_process(service), opened)
}

fn line(kind: &str, object: serde_json::Value) -> String {
    format!("{}\n", serde_json::json!({"type": kind, "object": object}))
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("nothing came")
}

#[tokio::test]
async fn one_watch_serves_all_and_wakes_by_key() {
    let (client, mut opened) = server(vec![map("a", 3), map("b", 5)]);
    let informers = Informers::new(client);
    let informer = informers.of::<ConfigMap>();
    soon(informer.synced()).await;
    let mut changes = informers.of::<ConfigMap>().changes();
    assert_eq!(soon(changes.next()).await.to_string(), "d/a");
    assert_eq!(soon(changes.next()).await.to_string(), "d/b");
    assert_eq!(informer.seen(), 5);
    assert_eq!(informer.lister().get(&Key::new("d", "a")).unwrap().metadata.managed_fields, None);

    let watch = soon(opened.recv()).await.unwrap();
    watch.send(line("MODIFIED", map("a", 6))).await.unwrap();
    watch.send(line("DELETED", map("b", 7))).await.unwrap();
    assert_eq!(soon(changes.next()).await.to_string(), "d/a");
    assert_eq!(soon(changes.next()).await.to_string(), "d/b");
    assert_eq!((informer.seen(), informer.lister().len()), (7, 1));
    assert_eq!(opened.try_recv().map(drop), Err(mpsc::error::TryRecvError::Empty), "a second watch");
}

#[test]
fn a_key_that_changes_twice_before_it_is_taken_is_given_once() {
    let queue = ChangeQueue::default();
    queue.push(Key::new("d", "a"));
    queue.push(Key::new("d", "b"));
    queue.push(Key::new("d", "a"));
    let mut changes = Changes { queue: Arc::new(queue) };
    assert_eq!(std::iter::from_fn(|| changes.try_next()).count(), 2);
}

#[tokio::test]
async fn after_a_gap_the_list_says_what_is_gone() {
    let (client, mut opened) = server(vec![map("a", 3)]);
    let informers = Informers::new(client);
    let informer = informers.of::<ConfigMap>();
    let watch = soon(opened.recv()).await.unwrap();
    let mut changes = informer.changes();
    watch.send(line("ADDED", map("late", 6))).await.unwrap();
    while soon(changes.next()).await.to_string() != "d/late" {}
    let expired =
        serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410, "reason": "Expired", "message": "old"});
    watch.send(line("ERROR", expired)).await.unwrap();
    while soon(changes.next()).await.to_string() != "d/late" {}
    assert!(informer.lister().get(&Key::new("d", "late")).is_none());
    assert_eq!(informer.lister().len(), 1);
}
