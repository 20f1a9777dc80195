//! A small API server in memory, for property tests: objects with revisions, uids, generations, preconditions, finalizers and graceful
//! deletion; readers that lag, kind by kind; and the rule that a key rests until its own writes are seen.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use async_trait::async_trait;
use coracle_client::Key;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    execute::{Expected, Tell, execute},
    merge,
    plan::{Create, Delete, Doomed, Patch, Plan, Told, document},
    runner::Past,
    writer::{Refused, Writer, Written},
};

type Objects = BTreeMap<(String, Key), Arc<Value>>;

/// The cluster.
#[derive(Default)]
pub struct Model {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: Objects,
    revision: u64,
    /// The world after each revision; index 0 is the empty one.
    history: Vec<Objects>,
    /// Per kind: the revision up to which informers have seen.
    sight: HashMap<String, u64>,
    /// Per controller and key: what it has to see first.
    resting: HashMap<(&'static str, Key), Vec<Expected>>,
    pasts: HashMap<(&'static str, Key), Past>,
    now: i64,
    names: u64,
}

impl Model {
    /// A cluster at second 1,000.
    pub fn new() -> Self {
        Self { state: Mutex::new(State { now: 1_000, history: vec![Objects::new()], ..State::default() }) }
    }

    /// The model's time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.lock().now).unwrap()
    }

    /// Time passes.
    pub fn pass(&self, seconds: i64) {
        self.lock().now += seconds;
    }

    /// A user creates the object.
    pub fn add<K: Resource<DynamicType = ()> + Serialize>(&self, object: &K) -> Key {
        let written = self.create(&Create::of(object)).now_or_never().unwrap().unwrap();
        Key::new(object.meta().namespace.as_deref().unwrap_or_default(), written.name.as_str())
    }

    /// Somebody edits the object as it is now; `None` when it is gone.
    pub fn edit<K: Resource<DynamicType = ()> + Serialize + DeserializeOwned>(&self, key: &Key, change: impl FnOnce(&mut K)) -> Option<()> {
        let mut state = self.lock();
        let id = (K::kind(&()).into_owned(), key.clone());
        let old = state.objects.get(&id)?.clone();
        let mut object: K = serde_json::from_value((*old).clone()).unwrap();
        change(&mut object);
        state.put(id, with_type::<K>(document(&object)), &old);
        Some(())
    }

    /// Somebody deletes the object; `None` when it is gone.
    pub fn remove<K: Resource<DynamicType = ()>>(&self, key: &Key) -> Option<()> {
        self.lock().delete(&(K::kind(&()).into_owned(), key.clone()), false)
    }

    /// A deletion ends, whatever held it.
    pub fn vanish<K: Resource<DynamicType = ()>>(&self, key: &Key) -> Option<()> {
        self.lock().delete(&(K::kind(&()).into_owned(), key.clone()), true)
    }

    /// Everything of a kind as it is.
    pub fn all<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<Arc<K>> {
        list(&self.lock().objects)
    }

    /// Everything of a kind as informers have seen it.
    pub fn seen<K: Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<Arc<K>> {
        let state = self.lock();
        let at = state.sight.get(K::kind(&()).as_ref()).copied().unwrap_or(0);
        list(&state.history[usize::try_from(at).unwrap()])
    }

    /// The informers of a kind see `part` of 255 of what they have not seen yet; 255 is all.
    pub fn look(&self, kind: &str, part: u8) {
        let mut state = self.lock();
        let revision = state.revision;
        let at = state.sight.entry(kind.to_owned()).or_insert(0);
        *at += ((revision - *at) * u64::from(part)).div_ceil(255);
    }

    /// Gives the key of a controller its turn: false when it rests, or when its plan was idle.
    pub fn turn(&self, controller: &'static str, key: &Key, plan: impl FnOnce(Timestamp, &Past) -> Plan) -> bool {
        let id = (controller, key.clone());
        let mut state = self.lock();
        let mut resting = state.resting.remove(&id).unwrap_or_default();
        resting.retain(|expected| !state.shows(expected));
        if !resting.is_empty() {
            state.resting.insert(id, resting);
            return false;
        }
        let past = state.pasts.remove(&id).unwrap_or_default();
        let now = Timestamp::from_second(state.now).unwrap();
        drop(state);
        let plan = plan(now, &past);
        let before = self.lock().revision;
        let outcome = execute(self, self, &plan).now_or_never().unwrap();
        let mut state = self.lock();
        state.resting.insert(id.clone(), outcome.expected);
        state.pasts.insert(id, Past { failures: outcome.failures });
        state.revision != before
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn list<K: Resource<DynamicType = ()> + DeserializeOwned>(objects: &Objects) -> Vec<Arc<K>> {
    let kind = K::kind(&());
    let of_kind = objects.iter().filter(|((k, _), _)| *k == kind);
    of_kind.map(|(_, value)| Arc::new(serde_json::from_value((**value).clone()).unwrap())).collect()
}

fn with_type<K: Resource<DynamicType = ()>>(mut value: Value) -> Value {
    value["apiVersion"] = json!(K::api_version(&()));
    value["kind"] = json!(K::kind(&()));
    value
}

impl State {
    fn shows(&self, expected: &Expected) -> bool {
        let at = |kind: &str| self.sight.get(kind).copied().unwrap_or(0);
        match expected {
            Expected::Revision { kind, revision } => at(&kind.1) >= *revision,
            Expected::Leaving { kind, key, uid } => {
                let seen = self.history[usize::try_from(at(&kind.1)).unwrap()].get(&(kind.1.clone(), key.clone()));
                seen.is_none_or(|o| o["metadata"]["uid"] != json!(uid) || o["metadata"]["deletionTimestamp"].is_string())
            }
        }
    }

    fn time(&self) -> Value {
        document(&Time(Timestamp::from_second(self.now).unwrap()))
    }

    fn commit(&mut self, id: (String, Key), value: Option<Value>) {
        self.revision += 1;
        match value {
            Some(mut value) => {
                value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
                self.objects.insert(id, Arc::new(value));
            }
            None => drop(self.objects.remove(&id)),
        }
        self.history.push(self.objects.clone());
    }

    /// Writes the object, unless nothing changes; the generation follows the spec; the last finalizer ends a deletion.
    fn put(&mut self, id: (String, Key), mut value: Value, old: &Value) {
        if value["spec"] != old["spec"] && old["metadata"]["generation"].is_number() {
            value["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        if value == *old {
            return;
        }
        let leaving = value["metadata"]["deletionTimestamp"].is_string() && id.0 != "Pod";
        let held = value["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        self.commit(id, (!leaving || held).then_some(value));
    }

    fn delete(&mut self, id: &(String, Key), at_once: bool) -> Option<()> {
        let mut object = (**self.objects.get(id)?).clone();
        let held = object["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
        let running = id.0 == "Pod" && object["spec"]["nodeName"].is_string() && !at_once;
        if !held && !running {
            self.commit(id.clone(), None);
        } else if !object["metadata"]["deletionTimestamp"].is_string() {
            object["metadata"]["deletionTimestamp"] = self.time();
            self.commit(id.clone(), Some(object));
        }
        Some(())
    }

    fn check(&self, id: &(String, Key), uid: &str, revision: &str) -> Result<Arc<Value>, Refused> {
        let object = self.objects.get(id).ok_or_else(|| refused(404, "NotFound", "it is gone"))?;
        let meta = &object["metadata"];
        if meta["uid"] != json!(uid) || meta["resourceVersion"] != json!(revision) {
            return Err(refused(409, "Conflict", "it is another"));
        }
        Ok(object.clone())
    }
}

fn refused(code: u16, reason: &str, message: &str) -> Refused {
    Refused { code, reason: reason.into(), message: message.into(), namespace_ends: false }
}

fn written(object: &Value) -> Written {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Written { name: text("name"), uid: text("uid"), revision: text("resourceVersion").parse().unwrap_or(0) }
}

impl Tell for Model {
    fn tell(&self, _: Told) {}
}

#[async_trait]
impl Writer for Model {
    async fn create(&self, create: &Create) -> Result<Written, Refused> {
        let mut state = self.lock();
        let mut object = create.object.clone();
        state.names += 1;
        if let Some(prefix) = object["metadata"]["generateName"].as_str() {
            object["metadata"]["name"] = json!(format!("{prefix}{:05}", state.names));
        }
        let key = Key::new(create.namespace.as_str(), object["metadata"]["name"].as_str().unwrap());
        let id = (create.kind.kind.clone(), key);
        if state.objects.contains_key(&id) {
            return Err(refused(409, "AlreadyExists", "it exists"));
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", state.names));
        object["metadata"]["creationTimestamp"] = state.time();
        object["metadata"]["generation"] = json!(1);
        if object["spec"]["failCreation"] == json!(true) {
            return Err(refused(403, "Forbidden", "exceeded quota"));
        }
        if id.0 == "ReplicaSet" && object["status"].is_null() {
            object["status"] = json!({"replicas": 0});
        }
        state.commit(id.clone(), Some(object));
        Ok(written(&state.objects[&id]))
    }

    async fn patch(&self, patch: &Patch, revision: &str) -> Result<Written, Refused> {
        let mut state = self.lock();
        let id = (patch.target.kind.kind.clone(), patch.target.key.clone());
        let old = state.check(&id, &patch.target.uid, revision)?;
        let mut new = (*old).clone();
        if patch.subresource == Some("status") {
            merge::apply(&mut new["status"], &patch.body["status"]);
            if patch.body["metadata"].is_object() {
                merge::apply(&mut new["metadata"], &patch.body["metadata"]);
            }
        } else {
            merge::apply(&mut new, &patch.body);
            new["status"] = old["status"].clone();
            if new["status"].is_null() {
                new.as_object_mut().unwrap().remove("status");
            }
        }
        state.put(id.clone(), new, &old);
        Ok(state.objects.get(&id).map_or_else(Written::default, |o| written(o)))
    }

    async fn delete(&self, delete: &Delete, revision: &str) -> Result<Written, Refused> {
        let mut state = self.lock();
        let Doomed::One(target) = &delete.doomed else { return Ok(Written::default()) };
        let id = (target.kind.kind.clone(), target.key.clone());
        let old = state.check(&id, &target.uid, revision)?;
        state.delete(&id, delete.grace_seconds == Some(0));
        Ok(written(&old))
    }
}
