//! Watches by the thousand: how many there may be, what they cost, and that nobody else waits for them.

use futures::StreamExt as _;
use http_body_util::BodyStream;

use super::*;
use crate::{body::Body, registry::watches::WATCHES_OF_A_USER};

/// What a user's watches may cost all together, in KiB: some 8 each, and room for what other tests of this process take meanwhile.
const MAX_COST_KIB: usize = WATCHES_OF_A_USER * 40;

fn resident_kib() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("it is there");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4
}

impl Server {
    async fn watch_as(&self, user: &str) -> http::Response<Body> {
        let mut cx = request("watch", "v1/default/configmaps?watch=true", "application/json");
        cx.user.name = user.into();
        self.registry.handle(&cx, Bytes::new()).await
    }
}

/// Counts the events of a watch until there are so many.
async fn events(response: http::Response<Body>, wanted: usize) -> usize {
    let (mut body, mut seen) = (BodyStream::new(response.into_body()), 0);
    while seen < wanted
        && let Some(Ok(frame)) = body.next().await
    {
        seen += frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watches_are_too_many_and_nobody_waits() {
    let server = server().await;
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let before = resident_kib();
    let mut open = tokio::task::JoinSet::new();
    let mut refused = 0;
    for i in 0..10_000 {
        let response = server.watch_as("greedy").await;
        match response.status().as_u16() {
            200 => drop(open.spawn(events(response, 1))),
            429 => {
                refused += 1;
                assert_eq!(response.headers()["retry-after"], "10");
            }
            other => panic!("{other} for watch {i}"),
        }
        if i % 1000 == 0 {
            let (code, _) = server.send("create", "v1/other/configmaps", map(&format!("other-{i}"))).await;
            assert_eq!(code, 201, "another client is answered while {i} watches are open");
        }
    }
    assert_eq!((open.len(), refused), (WATCHES_OF_A_USER, 10_000 - WATCHES_OF_A_USER));
    // Another user watches as ever, and all of them are told.
    let other = server.watch_as("modest").await;
    assert_eq!(other.status(), 200);
    open.spawn(events(other, 1));
    let cost = resident_kib().saturating_sub(before);
    assert!(cost < MAX_COST_KIB, "{cost} KiB");
    assert_eq!(server.send("create", "v1/default/configmaps", map("told")).await.0, 201);
    let told = open.join_all().await;
    assert_eq!(told.iter().sum::<usize>(), WATCHES_OF_A_USER + 1);
    // Watches that ended leave their places.
    assert_eq!(server.watch_as("greedy").await.status(), 200);
}
