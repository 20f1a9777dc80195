//! Objects of one version as objects of another: by the catalogue's own rules, or by the webhook of a definition.

mod review;

use std::{borrow::Cow, sync::Arc, time::Duration};

use async_trait::async_trait;
use coracle_api::{
    catalogue::{self, Catalogue, Resource},
    custom::Webhook,
    status::Status,
    structural,
};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::{Inner, Target, select::Selection};
use crate::{
    admission::Kinds,
    cache::{Cache, object::Object},
    catalogue::Live,
    uuid,
    webhook::Servers,
};

/// For one answer of a conversion webhook.
const PATIENCE: Duration = Duration::from_secs(30);
/// Objects of one call: a long list is several.
const MAX_OBJECTS: usize = 200;
/// Bytes of an answer on top of twice what was sent.
const MIN_ANSWER_BYTES: usize = 4 << 20;
/// Calls under way: a list must not take every socket.
const MAX_CALLS: usize = 32;

/// Asks conversion webhooks.
#[derive(Debug)]
pub(crate) struct Converter {
    servers: Servers,
    room: Semaphore,
}

impl Converter {
    /// Services are looked up in the cache.
    pub fn new(cache: &Cache) -> Self {
        Self { servers: Servers::new(Arc::new(cache.clone())), room: Semaphore::new(MAX_CALLS) }
    }

    /// Shows objects of `to`'s kind, whatever their version, as ones of `to`.
    pub async fn bring(&self, catalogue: &Catalogue, to: &Arc<Resource>, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        let desired = to.api_version();
        let Some(webhook) = to.definition.as_ref().and_then(|definition| definition.webhook.as_ref()) else {
            return Ok(objects.into_iter().map(|object| known(catalogue, to, &desired, object)).collect());
        };
        let mut out = objects;
        let mut strangers: Vec<usize> = (0..out.len()).filter(|at| out[*at]["apiVersion"] != desired).collect();
        while !strangers.is_empty() {
            let rest = strangers.split_off(strangers.len().min(MAX_OBJECTS));
            let asked: Vec<&Value> = strangers.iter().map(|at| &out[*at]).collect();
            let converted = self.ask(webhook, &desired, &asked).await?;
            for (at, mut object) in strangers.into_iter().zip(converted) {
                // A webhook's fields are not better than a client's.
                structural::prune(&to.schema, &mut object)
                    .map_err(|error| Status::internal(format!("the conversion webhook's answer fits no {}: {error}", to.kind)))?;
                out[at] = object;
            }
            strangers = rest;
        }
        Ok(out)
    }

    /// Stored objects in the version of the path.
    pub async fn outward(&self, catalogue: &Live, target: &Target, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        if target.as_stored() && !target.asks() {
            return Ok(objects);
        }
        self.bring(&catalogue.now(), &target.resource, objects).await
    }

    /// Those of these stored objects that are meant in the form of the path's version. A selector over converted fields costs a conversion of
    /// all that it looks at, as nothing of another version is kept.
    pub async fn meant(
        &self,
        catalogue: &Live,
        target: &Target,
        selection: &Selection,
        objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let mut meant = Vec::new();
        for part in objects.chunks(MAX_OBJECTS) {
            let forms = self.outward(catalogue, target, part.iter().map(|object| object.value()).collect()).await?;
            meant.extend(part.iter().zip(&forms).filter(|(_, form)| selection.matches_form(form)).map(|(object, _)| Arc::clone(object)));
        }
        Ok(meant)
    }

    async fn ask(&self, webhook: &Webhook, desired: &str, objects: &[&Value]) -> Result<Vec<Value>, Status> {
        let first = objects.first().copied().unwrap_or(&Value::Null);
        let text = |field: &str| first[field].as_str().unwrap_or_default();
        let of = format!("conversion webhook for {}, Kind={}", text("apiVersion"), text("kind"));
        // Upstream's answer has no reason either.
        let failed = |why: String| Status::new(500, "", format!("{of} {why}"));
        let version = review::Version::first(&webhook.review_versions);
        let version = version.ok_or_else(|| failed("failed: no supported conversion review versions".into()))?;
        let server = self.servers.of(&webhook.client).map_err(|error| failed(format!("failed: {error}")))?;
        let uid = uuid::random();
        let body = review::write(version, &uid, desired, objects);
        let limit = MIN_ANSWER_BYTES + 2 * body.len();
        // The semaphore is never closed.
        let _room = self.room.acquire().await;
        let answer = server.post(body, PATIENCE, limit).await.map_err(|error| failed(format!("failed: {error}")))?;
        let converted = review::read(version, &uid, answer).map_err(|why| failed(format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), objects.len())));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        pairs
            .map(|(at, (original, converted))| {
                let accepted = review::accept(original, converted, desired);
                accepted.map_err(|why| failed(format!("returned invalid converted object at index {at}: {why}")))
            })
            .collect()
    }
}

/// By the catalogue's rules.
fn known(catalogue: &Catalogue, to: &Arc<Resource>, desired: &str, mut object: Value) -> Value {
    let is = object["apiVersion"].as_str().unwrap_or_default();
    if is == desired {
        return object;
    }
    let (group, version) = is.split_once('/').unwrap_or(("", is));
    let kind = object["kind"].as_str().unwrap_or_default();
    let from = catalogue.kind(group, version, kind).unwrap_or_else(|| catalogue.stored(to));
    object = catalogue::convert(from, to, object);
    // A conversion of our own object fits its schema; what is left to do is the zeros that the other version writes.
    let _ = structural::prune(&to.schema, &mut object);
    object
}

impl Inner {
    /// A stored object in the version of the path; borrowed when that is the one it has.
    pub(crate) async fn shown<'o>(&self, target: &Target, object: &'o Value) -> Result<Cow<'o, Value>, Status> {
        if target.as_stored() && (!target.asks() || object["apiVersion"] == target.resource.api_version()) {
            return Ok(Cow::Borrowed(object));
        }
        self.convert(&target.resource, object.clone()).await.map(Cow::Owned)
    }

    /// Stored objects in the version of the path.
    pub(crate) async fn outward(&self, target: &Target, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        self.converter.outward(&self.catalogue, target, objects).await
    }

    /// An object in the version that is stored.
    pub(crate) async fn inward(&self, target: &Target, object: Value) -> Result<Value, Status> {
        if target.as_stored() && !target.asks() { Ok(object) } else { self.convert(&target.stored, object).await }
    }
}

#[async_trait]
impl Kinds for Inner {
    fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.now()
    }

    async fn convert(&self, to: &Arc<Resource>, object: Value) -> Result<Value, Status> {
        let converted = self.converter.bring(&self.catalogue.now(), to, vec![object]).await?;
        converted.into_iter().next().ok_or_else(|| Status::internal("an object was lost on its way to another version"))
    }
}
