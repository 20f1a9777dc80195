//! An API server that knows Services and EndpointSlices: list, and watch from a revision.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The objects, and every event since the beginning.
#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Value>,
    log: Vec<(String, Value)>,
}

/// The server.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    revision: Arc<watch::Sender<usize>>,
}

impl Api {
    pub fn new() -> Self {
        Self { state: Arc::default(), revision: Arc::new(watch::Sender::new(0)) }
    }

    /// A client of it.
    pub fn client(&self) -> kube::Client {
        let this = self.clone();
        coracle_client::in_process(tower::service_fn(move |request: Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.answer(&request)) }
        }))
    }

    /// A Service of type ClusterIP; `extra` goes over its spec.
    pub fn service(&self, name: &str, ip: &str, ports: Value, extra: Value) {
        let mut spec = json!({"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "ports": ports});
        merge(&mut spec, &extra);
        self.put(
            "services",
            name,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"}, "spec": spec}),
        );
    }

    /// Its endpoints, all ready.
    pub fn endpoints(&self, service: &str, addresses: &[String], ports: Value) {
        let endpoints: Vec<Value> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "node"})).collect();
        let metadata = json!({"name": format!("{service}-1"), "namespace": "default", "labels": {"kubernetes.io/service-name": service}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "endpoints": endpoints, "ports": ports});
        self.put("endpointslices", &format!("{service}-1"), slice);
    }

    /// Removes a Service.
    pub fn delete_service(&self, name: &str) {
        let mut state = self.state.lock().expect("lock");
        let mut object = state.objects.remove(&("services".into(), name.into())).expect("known");
        let revision = state.log.len() + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        state.log.push(("services".into(), json!({"type": "DELETED", "object": object})));
        self.revision.send_replace(revision);
    }

    fn put(&self, kind: &str, name: &str, mut object: Value) {
        let mut state = self.state.lock().expect("lock");
        let revision = state.log.len() + 1;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        object["metadata"]["uid"] = json!(format!("{kind}-{name}"));
        let known = state.objects.insert((kind.into(), name.into()), object.clone()).is_some();
        state.log.push((kind.into(), json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object})));
        self.revision.send_replace(revision);
    }

    fn answer(&self, request: &Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let kind = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let query = request.uri().query().unwrap_or_default();
        if !query.contains("watch=true") {
            let state = self.state.lock().expect("lock");
            let items: Vec<_> = state.objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, object)| object).collect();
            let list =
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": state.log.len().to_string()}, "items": items});
            return Response::new(Full::from(list.to_string()).boxed_unsync());
        }
        let from =
            query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion=")).and_then(|text| text.parse().ok()).unwrap_or(0usize);
        let (this, changes) = (self.clone(), self.revision.subscribe());
        let lines = stream::unfold((from, changes), move |(at, mut changes)| {
            let (this, kind) = (this.clone(), kind.clone());
            async move {
                changes.wait_for(|revision| *revision > at).await.ok()?;
                let state = this.state.lock().expect("lock");
                let lines: String = state.log[at..].iter().filter(|(of, _)| *of == kind).map(|(_, event)| format!("{event}\n")).collect();
                Some((Ok::<_, Infallible>(Frame::data(Bytes::from(lines))), (state.log.len(), changes)))
            }
        });
        Response::new(
            StreamBody::new(lines.filter(|frame| {
                let some = frame.as_ref().is_ok_and(|frame| frame.data_ref().is_some_and(|data| !data.is_empty()));
                async move { some }
            }))
            .boxed_unsync(),
        )
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().into_iter().flatten() {
        into[key] = value.clone();
    }
}
