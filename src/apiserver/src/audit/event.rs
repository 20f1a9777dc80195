//! Audit events (`audit.k8s.io/v1` Event) as lines of JSON.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use bytes::Bytes;
use coracle_api::{catalogue::Catalogue, decode, protobuf};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage, Verdict};
use crate::request::User;

/// What is known of a request when it comes in.
#[derive(Debug)]
pub struct Asked {
    /// The request's id, which the answer carries too.
    pub id: String,
    /// Path and query.
    pub uri: String,
    /// As authorizers see it.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// Where from, the outermost first.
    pub sources: Vec<IpAddr>,
    /// With what.
    pub agent: String,
    /// What about; none for paths that name no resource.
    pub reference: Option<Reference>,
    /// When.
    pub received: Timestamp,
    /// How much is recorded.
    pub verdict: Verdict,
}

/// ObjectReference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// Plural.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Of the path, or of the object that was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The same.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of the object that was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// `""` for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// Of the path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Of the object that was sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// `status`, `exec`, ...
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// An answer as far as it is recorded.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// HTTP's.
    pub code: u16,
    /// Of a failed authentication alone: what was tried.
    pub message: String,
    /// Content type and bytes: of a Status, or of any object if the level says so.
    pub body: Option<(String, Bytes)>,
}

/// What was gathered until the event.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// Whom the user acts as.
    pub impersonated: Option<User>,
    /// Of the object that was sent.
    pub object: Reference,
    /// The object that was sent.
    pub request: Option<Value>,
    /// What was answered.
    pub answer: Option<Answer>,
    /// What authorization and admission have to say.
    pub annotations: BTreeMap<String, String>,
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// What is known from the start.
    pub asked: Arc<Asked>,
    /// Which one.
    pub stage: Stage,
    /// When.
    pub at: Timestamp,
    /// What came since.
    pub gathered: Gathered,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    kind: &'static str,
    api_version: &'static str,
    level: Level,
    #[serde(rename = "auditID")]
    audit_id: &'a str,
    stage: Stage,
    #[serde(rename = "requestURI")]
    request_uri: &'a str,
    verb: &'a str,
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    impersonated_user: Option<&'a User>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "<[_]>::is_empty")]
    source_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "str::is_empty")]
    user_agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_ref: Option<Reference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_object: Option<Value>,
    request_received_timestamp: String,
    stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl Event {
    /// Bytes that it holds on to while it waits, about.
    pub fn weight(&self) -> usize {
        let body = self.gathered.answer.as_ref().and_then(|answer| answer.body.as_ref()).map_or(0, |(_, bytes)| bytes.len());
        let request = self.gathered.request.as_ref().map_or(0, weight);
        1024 + body + request
    }

    /// Appends the event as a line.
    pub fn write(&self, catalogue: &Catalogue, out: &mut Vec<u8>) {
        let Self { asked, stage, at, gathered } = self;
        let verdict = asked.verdict;
        let answered = gathered.answer.as_ref();
        let document = answered.and_then(|answer| answer.body.as_ref()).and_then(|(media, bytes)| document(catalogue, media, bytes));
        let bare = |object: Value| if verdict.omit_managed_fields { without_managed_fields(object) } else { object };
        let line = Line {
            kind: "Event",
            api_version: "audit.k8s.io/v1",
            level: verdict.level,
            audit_id: &asked.id,
            stage: *stage,
            request_uri: &asked.uri,
            verb: &asked.verb,
            user: &asked.user,
            impersonated_user: gathered.impersonated.as_ref(),
            source_ips: &asked.sources,
            user_agent: &asked.agent,
            object_ref: asked.reference.as_ref().map(|reference| reference.with(&gathered.object)),
            response_status: answered.map(|answer| status(answer, document.as_ref())),
            request_object: gathered.request.clone().filter(|_| verdict.level >= Level::Request).map(bare),
            response_object: document.filter(|_| verdict.level >= Level::RequestResponse).map(bare),
            request_received_timestamp: micros(asked.received),
            stage_timestamp: micros(*at),
            annotations: &gathered.annotations,
        };
        let start = out.len();
        // Strings and values can always be written; half a line would spoil the next.
        match serde_json::to_writer(&mut *out, &line) {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(start),
        }
    }
}

impl Reference {
    /// What the path does not say the object does.
    fn with(&self, object: &Self) -> Self {
        let or = |path: &String, object: &String| if path.is_empty() { object.clone() } else { path.clone() };
        Self {
            namespace: or(&self.namespace, &object.namespace),
            name: or(&self.name, &object.name),
            uid: or(&self.uid, &object.uid),
            resource_version: or(&self.resource_version, &object.resource_version),
            ..self.clone()
        }
    }
}

/// The Status that upstream records: of the answer's Status the parts that are bounded, else the code alone.
fn status(answer: &Answer, document: Option<&Value>) -> Value {
    let mut out = Map::from_iter([("metadata".to_owned(), json!({}))]);
    if let Some(body) = document.filter(|body| body["kind"] == "Status") {
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = body.get(field) {
                out.insert(field.into(), value.clone());
            }
        }
    }
    if !answer.message.is_empty() {
        out.insert("message".into(), answer.message.as_str().into());
    }
    out.insert("code".into(), answer.code.into());
    Value::Object(out)
}

/// An object in any of the forms that we answer in.
fn document(catalogue: &Catalogue, media: &str, bytes: &Bytes) -> Option<Value> {
    if media.starts_with("application/vnd.kubernetes.protobuf") {
        let (api_version, kind) = protobuf::kind(bytes).ok()?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let schema = catalogue.schema(group, version, &kind).or_else(|| catalogue.message(&kind))?;
        let mut value = protobuf::decode(schema, bytes).ok()?;
        value["apiVersion"] = api_version.as_str().into();
        value["kind"] = kind.into();
        return Some(value);
    }
    if media.starts_with("application/yaml") {
        return decode::yaml(bytes).ok().map(|decoded| decoded.value);
    }
    serde_json::from_slice(bytes).ok()
}

/// An object, a list or a Table without managedFields.
fn without_managed_fields(mut object: Value) -> Value {
    let strip = |object: &mut Value| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut object);
    for (list, item) in [("items", ""), ("rows", "/object")] {
        for element in object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            element.pointer_mut(item).into_iter().for_each(strip);
        }
    }
    object
}

/// MicroTime.
fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Bytes that a value occupies, about.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 32 + text.len(),
        Value::Array(items) => 32 + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 32 + map.iter().map(|(key, value)| 32 + key.len() + weight(value)).sum::<usize>(),
        _ => 32,
    }
}

#[cfg(test)]
mod tests {
    use coracle_api::catalogue::builtin;

    use super::*;

    fn line(level: Level, gathered: Gathered) -> Value {
        let asked = Asked {
            id: "u-1".into(),
            uri: "/api/v1/namespaces/a/pods?dryRun=All".into(),
            verb: "create".into(),
            user: User { name: "alice".into(), groups: vec!["dev".into()], ..User::default() },
            sources: vec![[192, 0, 2, 1].into()],
            agent: "kubectl".into(),
            reference: Some(Reference { resource: "pods".into(), namespace: "a".into(), api_version: "v1".into(), ..Reference::default() }),
            received: "2026-01-01T00:00:00.000001Z".parse().unwrap(),
            verdict: Verdict { level, omit_managed_fields: true, ..Verdict::default() },
        };
        let event =
            Event { asked: Arc::new(asked), stage: Stage::ResponseComplete, at: "2026-01-01T00:00:01.5Z".parse().unwrap(), gathered };
        let mut out = Vec::new();
        event.write(builtin(), &mut out);
        assert_eq!(out.pop(), Some(b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_event_is_as_upstream_writes_it() {
        let gathered = Gathered {
            object: Reference { name: "web".into(), namespace: "elsewhere".into(), ..Reference::default() },
            answer: Some(Answer { code: 201, ..Answer::default() }),
            annotations: BTreeMap::from([("authorization.k8s.io/decision".into(), "allow".into())]),
            request: Some(json!({"kind": "Pod"})),
            ..Gathered::default()
        };
        assert_eq!(
            line(Level::Metadata, gathered),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "u-1", "stage": "ResponseComplete",
                "requestURI": "/api/v1/namespaces/a/pods?dryRun=All", "verb": "create",
                "user": {"username": "alice", "groups": ["dev"]}, "sourceIPs": ["192.0.2.1"], "userAgent": "kubectl",
                "objectRef": {"resource": "pods", "namespace": "a", "name": "web", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 201},
                "requestReceivedTimestamp": "2026-01-01T00:00:00.000001Z", "stageTimestamp": "2026-01-01T00:00:01.500000Z",
                "annotations": {"authorization.k8s.io/decision": "allow"},
            })
        );
    }

    #[test]
    fn objects_come_with_the_level_and_a_status_always() {
        let object = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web", "managedFields": [{}]}});
        let answer = |value: &Value| {
            Some(Answer { code: 409, body: Some(("application/json".into(), value.to_string().into())), ..Answer::default() })
        };
        let gathered = Gathered { request: Some(object.clone()), answer: answer(&object), ..Gathered::default() };
        let bare = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}});
        let request = line(Level::Request, gathered.clone());
        assert_eq!((&request["requestObject"], request.get("responseObject")), (&bare, None));
        let both = line(Level::RequestResponse, gathered);
        assert_eq!((&both["requestObject"], &both["responseObject"]), (&bare, &bare));
        let status = coracle_api::status::Status::already_exists("", "pods", "web").to_value();
        for body in [status.to_string().into_bytes(), protobuf::encode(builtin().message("Status").unwrap(), &status)] {
            let media = if body.starts_with(b"k8s") { "application/vnd.kubernetes.protobuf" } else { "application/json" };
            let answer = Some(Answer { code: 409, body: Some((media.into(), body.into())), ..Answer::default() });
            let told = &line(Level::Metadata, Gathered { answer, ..Gathered::default() })["responseStatus"];
            assert_eq!(
                (&told["reason"], &told["details"]["name"], &told["code"]),
                (&json!("AlreadyExists"), &json!("web"), &json!(409)),
                "{media}"
            );
        }
        let list = without_managed_fields(json!({"items": [object.clone()], "rows": [{"object": object}]}));
        assert_eq!(list, json!({"items": [bare.clone()], "rows": [{"object": bare}]}));
    }
}
