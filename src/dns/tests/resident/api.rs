//! An API server in the same process: lists, watches, and takes what DNS writes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use futures::StreamExt as _;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use serde_json::{Value, json};
use tokio::sync::watch;

type Body = UnsyncBoxBody<bytes::Bytes, Infallible>;

/// Objects by collection (`services`) and name (`namespace/name`), and what happened to them.
#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    events: Vec<(String, Value)>,
}

/// The server; clones share it.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    grown: Arc<watch::Sender<usize>>,
}

impl Api {
    pub fn new() -> Self {
        Self { state: Arc::default(), grown: Arc::new(watch::Sender::new(0)) }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        coracle_client::in_process(tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }))
    }

    /// Makes or changes an object.
    pub fn put(&self, collection: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        object["metadata"]["resourceVersion"] = (state.events.len() + 1).to_string().into();
        let old = state.objects.insert((collection.into(), name(&object)), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push((collection.into(), json!({"type": kind, "object": object})));
        self.grown.send_replace(state.events.len());
        object
    }

    /// Takes an object away.
    pub fn delete(&self, collection: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        let mut object = state.objects.remove(&(collection.into(), name.into())).unwrap();
        object["metadata"]["resourceVersion"] = (state.events.len() + 1).to_string().into();
        state.events.push((collection.into(), json!({"type": "DELETED", "object": object})));
        self.grown.send_replace(state.events.len());
    }

    /// Waits until the object is as wanted.
    pub async fn until(&self, collection: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut grown = self.grown.subscribe();
        loop {
            let found = self.state.lock().unwrap().objects.get(&(collection.into(), name.into())).cloned();
            if let Some(found) = found.filter(&wanted) {
                return found;
            }
            grown.changed().await.unwrap();
        }
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let collections = ["services", "endpointslices", "pods", "namespaces"];
        let collection = collections.into_iter().find(|c| path.split('/').any(|part| part == *c)).unwrap().to_owned();
        if request.method() != Method::GET {
            let object: Value = serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            return full(&self.put(&collection, object));
        }
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("watch=true") {
            let state = self.state.lock().unwrap();
            let items: Vec<&Value> = state.objects.iter().filter(|((c, _), _)| *c == collection).map(|(_, object)| object).collect();
            return full(
                &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": state.events.len().to_string()}, "items": items}),
            );
        }
        let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).unwrap().parse::<usize>().unwrap();
        let lines = futures::stream::unfold((self.clone(), self.grown.subscribe(), from), move |(api, mut grown, mut at)| {
            let collection = collection.clone();
            async move {
                loop {
                    let next = api.state.lock().unwrap().events.get(at).cloned();
                    let Some((changed, event)) = next else {
                        grown.changed().await.ok()?;
                        continue;
                    };
                    at += 1;
                    if changed == collection {
                        return Some((format!("{event}\n"), (api, grown, at)));
                    }
                }
            }
        });
        Response::new(StreamBody::new(lines.map(|line| Ok(hyper_frame(line)))).boxed_unsync())
    }
}

fn hyper_frame(line: String) -> http_body::Frame<bytes::Bytes> {
    http_body::Frame::data(line.into())
}

fn full(object: &Value) -> Response<Body> {
    Response::new(Full::new(object.to_string().into()).boxed_unsync())
}

fn name(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", part("namespace"), part("name"))
}
