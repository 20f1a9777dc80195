//! Events about objects, as client-go's record package writes them: core/v1, counted, combined when similar, filtered when they are spam.

pub mod correlate;

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use tokio::sync::mpsc;

use correlate::{Correlator, Note, Verdict};

/// Events that wait to be written; more are dropped, as an Event is a hint and must never hold up its teller.
const QUEUE_EVENTS: usize = 1_000;
/// Namespace of Events about cluster-scoped objects.
const CLUSTER_NAMESPACE: &str = "default";
/// Bytes of a message that the API takes.
const MESSAGE_BYTES: usize = 1_024;

/// Whether the object is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// Nothing to do for anybody.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl EventType {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// Writes the Events of one component. Clones share the queue and the memory of what was told already.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    /// A recorder for `component` (`replicaset-controller`, `kubelet`) on `host` (empty but for node agents). Spawns its writer on the
    /// present tokio runtime; the writer ends with the last clone.
    pub fn new(client: Client, component: impl Into<Arc<str>>, host: impl Into<Arc<str>>) -> Self {
        let (queue, notes) = mpsc::channel(QUEUE_EVENTS);
        tokio::spawn(write(client, Source { component: component.into(), host: host.into() }, notes));
        Self { queue }
    }

    /// Records that `reason` happened to the object. Returns at once; a full queue drops the Event.
    pub fn event(&self, regarding: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if message.len() > MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        }
        let note = Note { regarding: regarding.clone(), kind, reason: reason.to_owned(), message, at: Timestamp::now() };
        if let Err(refused) = self.queue.try_send(note) {
            tracing::debug!(%refused, "an Event was dropped");
        }
    }
}

/// A reference to the object for [`Recorder::event`]. List elements lack apiVersion and kind, so the type gives them.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Source {
    component: Arc<str>,
    host: Arc<str>,
}

async fn write(client: Client, source: Source, mut notes: mpsc::Receiver<Note>) {
    let mut correlator = Correlator::default();
    while let Some(note) = notes.recv().await {
        let verdict = correlator.observe(&note);
        let namespace = note.regarding.namespace.clone().unwrap_or_else(|| CLUSTER_NAMESPACE.to_owned());
        let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let written = match &verdict {
            Verdict::Spam => continue,
            Verdict::First { message } => create(&events, &source, &note, message, 1, note.at).await,
            Verdict::Again { name, count, message, first } => {
                let patch = serde_json::json!({"count": count, "message": message, "lastTimestamp": Time(note.at)});
                match events.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                    // It expired meanwhile: it begins anew with its count, as client-go does.
                    Err(kube::Error::Api(status)) if status.code == 404 => create(&events, &source, &note, message, *count, *first).await,
                    other => other,
                }
            }
        };
        match written {
            Ok(event) => correlator.written(&note, event.metadata.name.unwrap_or_default()),
            // The namespace is ending, or the object's name is refused: the Event is lost, by contract.
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, reason = note.reason, "an Event was not written"),
        }
    }
}

async fn create(events: &Api<Event>, source: &Source, note: &Note, message: &str, count: i32, first: Timestamp) -> kube::Result<Event> {
    events.create(&PostParams::default(), &event(source, note, message, count, first)).await
}

fn event(source: &Source, note: &Note, message: &str, count: i32, first: Timestamp) -> Event {
    let namespace = note.regarding.namespace.clone().unwrap_or_else(|| CLUSTER_NAMESPACE.to_owned());
    let name = format!("{}.{:x}", note.regarding.name.as_deref().unwrap_or_default(), note.at.as_nanosecond());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: note.regarding.clone(),
        type_: Some(note.kind.as_str().to_owned()),
        reason: Some(note.reason.clone()),
        message: Some(message.to_owned()),
        count: Some(count),
        first_timestamp: Some(Time(first)),
        last_timestamp: Some(Time(note.at)),
        source: Some(EventSource {
            component: Some(source.component.to_string()),
            host: Some(source.host.to_string()).filter(|h| !h.is_empty()),
        }),
        reporting_component: Some(source.component.to_string()),
        reporting_instance: Some(source.host.to_string()),
        ..Event::default()
    }
}
