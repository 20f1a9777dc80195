//! One object at one revision, held as its bytes: what the store keeps, what GET answers and what a watch sends are one buffer.
//!
//! Stored form: `FORMAT`, the length of the head as u16 (little endian), then canonical JSON that opens with the head
//! `{"kind":"Pod","apiVersion":"v1",` and `"metadata":{`, without a resourceVersion. A custom resource has `TAGGED` in the first place,
//! and after the length the tag (u64) of the schema that it was written under. The cache splices the revision behind
//! `"metadata":{` once, when it takes the entry in, and wraps the JSON as the watch event it came as.

use bytes::Bytes;
use coracle_store::{Entry, encryption::sealed_under};
use serde_json::{Map, Value};

use super::{
    record::{self, Record},
    view::View,
};

/// First byte of a stored value; another number is another layout.
const FORMAT: u8 = 1;
/// First byte of a stored custom resource.
const TAGGED: u8 = 2;
/// Bytes before the JSON in a stored value.
const HEADER_BYTES: usize = 3;
/// The same of a custom resource.
const TAGGED_HEADER_BYTES: usize = HEADER_BYTES + size_of::<u64>();
/// What follows the head in every stored object.
const METADATA: &[u8] = b"\"metadata\":{";

/// What a change did, as watchers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The object is new (or newly selected).
    Added,
    /// It changed.
    Modified,
    /// It is gone (or no longer selected).
    Deleted,
}

impl Action {
    /// The opening of this action's watch event.
    pub fn opening(self) -> &'static [u8] {
        match self {
            Self::Added => b"{\"type\":\"ADDED\",\"object\":",
            Self::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
            Self::Deleted => b"{\"type\":\"DELETED\",\"object\":",
        }
    }

    /// The event's type.
    pub fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// The end of every watch event.
pub const CLOSING: &[u8] = b"}\n";

/// Why a stored value is not an object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// Written by a program with another layout, or damaged.
    #[error("the stored value of {key} does not have layout {FORMAT}")]
    Layout {
        /// The store's key.
        key: String,
    },
    /// The store could not open it; its log says why.
    #[error("the stored value of {key} is sealed under the key {id}, which is not at hand or does not open it")]
    Sealed {
        /// The store's key.
        key: String,
        /// The encryption key's name.
        id: String,
    },
    /// Not JSON.
    #[error("the stored value of {key} is not an object")]
    Json {
        /// The store's key.
        key: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// The parts of a stored value.
struct Stored<'a> {
    head: u16,
    tag: Option<u64>,
    json: &'a [u8],
}

impl<'a> Stored<'a> {
    fn read(value: &'a [u8]) -> Option<Self> {
        let head = u16::from_le_bytes([*value.get(1)?, *value.get(2)?]);
        let (tag, json) = match *value.first()? {
            FORMAT => (None, &value[HEADER_BYTES..]),
            TAGGED => {
                let (tag, json) = value[HEADER_BYTES..].split_first_chunk()?;
                (Some(u64::from_le_bytes(*tag)), json)
            }
            _ => return None,
        };
        let at = usize::from(head);
        (json.get(at..at + METADATA.len()) == Some(METADATA)).then_some(Self { head, tag, json })
    }
}

/// An object at a revision.
#[derive(Debug)]
pub struct Object {
    /// `{"type":"MODIFIED","object":{...}}` and a newline: the event of the change that made this object.
    frame: Bytes,
    action: Action,
    head: u16,
    /// `namespace/name`, or the name for cluster scope.
    key: Box<str>,
    revision: u64,
    record: Record,
}

impl Object {
    /// From what the store holds; `key` is the part after the kind's prefix. A deletion carries its own revision.
    pub fn take_in(entry: &Entry, key: &str, revision: u64, action: Action, view: &View) -> Result<Self, ObjectError> {
        let json_error = |source| ObjectError::Json { key: entry.key.to_string(), source };
        let stored = Stored::read(&entry.value).ok_or_else(|| match sealed_under(&entry.value) {
            Some(id) => ObjectError::Sealed { key: entry.key.to_string(), id: id.to_owned() },
            None => ObjectError::Layout { key: entry.key.to_string() },
        })?;
        if view.tag().is_some() && stored.tag != view.tag() {
            // Written under another schema.
            let mut object: Value = serde_json::from_slice(stored.json).map_err(json_error)?;
            view.settle(&mut object);
            if let Some(encoded) = encode(&object, view.tag())
                && let Some(stored) = Stored::read(&encoded)
            {
                return Self::of(&stored, key, revision, action, view).map_err(json_error);
            }
        }
        Self::of(&stored, key, revision, action, view).map_err(json_error)
    }

    /// The same object for another view; `None` when it cannot be read.
    pub fn seen_by(&self, view: &View) -> Option<Self> {
        let mut object = self.value();
        view.settle(&mut object);
        let encoded = encode(&object, view.tag())?;
        Self::of(&Stored::read(&encoded)?, &self.key, self.revision, self.action, view).ok()
    }

    fn of(stored: &Stored<'_>, key: &str, revision: u64, action: Action, view: &View) -> Result<Self, serde_json::Error> {
        let Stored { head, json, .. } = *stored;
        let at = usize::from(head) + METADATA.len();
        let record = record::read(json, &view.fields)?;
        let number = revision.to_string();
        let opening = action.opening();
        let mut frame = Vec::with_capacity(opening.len() + json.len() + number.len() + 22 + CLOSING.len());
        frame.extend_from_slice(opening);
        frame.extend_from_slice(&json[..at]);
        frame.extend_from_slice(b"\"resourceVersion\":\"");
        frame.extend_from_slice(number.as_bytes());
        frame.extend_from_slice(b"\",");
        frame.extend_from_slice(&json[at..]);
        frame.extend_from_slice(CLOSING);
        Ok(Self { frame: frame.into(), action, head, key: key.into(), revision, record })
    }

    /// The object as JSON, with its resourceVersion.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.action.opening().len()..self.frame.len() - CLOSING.len())
    }

    /// The JSON without `kind` and `apiVersion`, less its opening brace: how lists of built-in kinds hold it.
    pub fn headless(&self) -> &[u8] {
        &self.frame[self.action.opening().len() + usize::from(self.head)..self.frame.len() - CLOSING.len()]
    }

    /// The watch event of this object for `action`: shared for the action that it came as, copied else.
    pub fn event(&self, action: Action) -> Bytes {
        if action == self.action {
            return self.frame.clone();
        }
        let mut out = Vec::with_capacity(self.frame.len() + 4);
        self.write_event(action, &mut out);
        out.into()
    }

    /// Appends the watch event.
    pub fn write_event(&self, action: Action, out: &mut Vec<u8>) {
        out.extend_from_slice(action.opening());
        out.extend_from_slice(&self.frame[self.action.opening().len()..]);
    }

    /// The event that tells a watcher that this object left its selection at a later revision.
    pub fn event_at(&self, action: Action, revision: u64) -> Bytes {
        let json = &self.frame[self.action.opening().len()..];
        let at = usize::from(self.head) + METADATA.len() + b"\"resourceVersion\":\"".len();
        let end = at + decimal_len(self.revision);
        let mut out = Vec::with_capacity(self.frame.len() + 8);
        out.extend_from_slice(action.opening());
        out.extend_from_slice(&json[..at]);
        out.extend_from_slice(revision.to_string().as_bytes());
        out.extend_from_slice(&json[end..]);
        out.into()
    }

    /// Decoded anew on every call: hold the result, not the hope that it is cheap.
    pub fn value(&self) -> Value {
        // take_in has parsed these bytes, so they are JSON.
        serde_json::from_slice(&self.json()).unwrap_or_default()
    }

    /// `namespace/name`, or the name for cluster scope.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `""` for cluster scope.
    pub fn namespace(&self) -> &str {
        self.key.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        self.key.split_once('/').map_or(&self.key, |(_, name)| name)
    }

    /// The object's uid.
    pub fn uid(&self) -> &str {
        &self.record.uid
    }

    /// The revision that wrote it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Sorted by key.
    pub fn labels(&self) -> &[(Box<str>, Box<str>)] {
        &self.record.labels
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().binary_search_by(|(k, _)| (**k).cmp(key)).ok().map(|at| &*self.labels()[at].1)
    }

    /// The selectable fields, in the order of the kind's [`Fields`].
    pub fn fields(&self) -> &[Box<str>] {
        &self.record.fields
    }

    /// Bytes that this object occupies, about.
    pub fn size(&self) -> usize {
        self.frame.len() + self.key.len() + self.record.size() + size_of::<Self>()
    }
}

/// Digits of a revision.
fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// The stored form of an object, for a custom resource with the tag of its schema; its resourceVersion is dropped. `None` when it has no
/// kind, apiVersion or metadata.
pub fn encode(object: &Value, tag: Option<u64>) -> Option<Bytes> {
    let map = object.as_object()?;
    let (kind, version, metadata) = (map.get("kind")?.as_str()?, map.get("apiVersion")?.as_str()?, map.get("metadata")?.as_object()?);
    let mut out = vec![if tag.is_some() { TAGGED } else { FORMAT }, 0, 0];
    out.extend(tag.iter().flat_map(|tag| tag.to_le_bytes()));
    let start = out.len();
    out.extend_from_slice(b"{\"kind\":");
    write(&mut out, kind)?;
    out.extend_from_slice(b",\"apiVersion\":");
    write(&mut out, version)?;
    out.push(b',');
    let head = u16::try_from(out.len() - start).ok()?;
    out[1..3].copy_from_slice(&head.to_le_bytes());
    out.extend_from_slice(METADATA);
    write_fields(&mut out, metadata, &["resourceVersion", "selfLink"])?;
    out.push(b'}');
    if map.len() > 3 {
        out.push(b',');
        write_fields(&mut out, map, &["kind", "apiVersion", "metadata"])?;
    }
    out.push(b'}');
    Some(out.into())
}

/// The JSON of a stored form, with a revision spliced in if there is one.
pub fn with_revision(stored: &Bytes, revision: Option<u64>) -> Bytes {
    let header = if stored.first() == Some(&TAGGED) { TAGGED_HEADER_BYTES } else { HEADER_BYTES };
    let json = stored.slice(header.min(stored.len())..);
    let Some(revision) = revision else { return json };
    let head = usize::from(u16::from_le_bytes([stored[1], stored[2]]));
    let at = (head + METADATA.len()).min(json.len());
    let mut out = Vec::with_capacity(json.len() + 48);
    out.extend_from_slice(&json[..at]);
    out.extend_from_slice(format!("\"resourceVersion\":\"{revision}\",").as_bytes());
    out.extend_from_slice(&json[at..]);
    out.into()
}

fn write_fields(out: &mut Vec<u8>, map: &Map<String, Value>, but: &[&str]) -> Option<()> {
    let mut first = true;
    for (key, value) in map.iter().filter(|(key, _)| !but.contains(&key.as_str())) {
        if !first {
            out.push(b',');
        }
        first = false;
        write(out, key)?;
        out.push(b':');
        write(out, value)?;
    }
    Some(())
}

fn write<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Option<()> {
    serde_json::to_writer(out, value).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn object(value: &Value, revision: u64) -> Object {
        let entry = Entry { key: "/registry/pods/a/web".into(), value: encode(value, None).unwrap(), created: 1, modified: revision };
        Object::take_in(&entry, "a/web", revision, Action::Modified, &View::of("pods")).unwrap()
    }

    #[test]
    fn the_revision_is_spliced_and_all_else_stays() {
        let mut pod = json!({"kind": "Pod", "apiVersion": "v1", "data": 1, "metadata": {"name": "web", "namespace": "a", "uid": "u-1",
            "labels": {"b": "2", "a": "1"}, "resourceVersion": "7"}, "spec": {"nodeName": "n1"}});
        let held = object(&pod, 1234);
        pod["metadata"]["resourceVersion"] = "1234".into();
        assert_eq!(held.value(), pod);
        assert_eq!((held.namespace(), held.name(), held.uid(), held.label("b")), ("a", "web", "u-1", Some("2")));
        assert!(held.headless().starts_with(b"\"metadata\":{\"resourceVersion\":\"1234\","));
        assert!(held.json().starts_with(b"{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\""));
    }

    #[test]
    fn events_differ_in_type_and_revision_alone() {
        let held = object(&json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}}), 99);
        let shared = held.event(Action::Modified);
        assert_eq!(shared.as_ptr(), held.event(Action::Modified).as_ptr(), "the event of the change itself is not copied");
        for (action, revision, bytes) in
            [(Action::Added, "99", held.event(Action::Added)), (Action::Deleted, "100", held.event_at(Action::Deleted, 100))]
        {
            let event: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((&event["type"], &event["object"]["metadata"]["resourceVersion"]), (&json!(action.word()), &json!(revision)));
            assert!(bytes.ends_with(b"\n"));
        }
    }

    #[test]
    fn a_foreign_value_is_an_error_and_not_a_panic() {
        for bytes in [&b""[..], b"\x01", b"\x02\x00\x00{}", b"\x01\xff\xff{}", b"\x01\x01\x00{\"metadata\":{"] {
            let entry = Entry { key: Arc::from("/registry/pods/a"), value: Bytes::copy_from_slice(bytes), created: 1, modified: 1 };
            assert!(Object::take_in(&entry, "a", 1, Action::Added, &View::of("pods")).is_err(), "{bytes:?}");
        }
    }
}
