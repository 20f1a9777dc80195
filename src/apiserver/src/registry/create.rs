//! POST: a new object.

use bytes::Bytes;
use coracle_api::{defaulting, status::Status, validation};
use http::Response;
use jiff::Timestamp;
use serde_json::Value;

use super::{
    Inner,
    body::{self, Expected},
    chance,
    manage::{self, Manage},
    options::WriteOptions,
    read::{answer, include},
    target::Target,
    write::{Put, Write, Written},
};
use crate::{
    admission::{Operation, Reserved},
    body::Body,
    output::format::Format,
    request::Context,
    strategy::{self, meta},
};

/// Tries with other random ends when a generated name is taken. Upstream's number.
const NAME_TRIES: usize = 8;
/// CustomResourceDefinitions at a time: the largest operators bring some hundred, and all are in memory.
const MAX_DEFINITIONS: usize = 1500;

/// Answers a POST to a collection.
pub async fn create(inner: &Inner, target: &Target, cx: &Context, body: &Bytes, format: &Format) -> Result<Response<Body>, Status> {
    let options = WriteOptions::read(cx, "CreateOptions")?;
    let resource = &target.resource;
    let expected = Expected { group: &resource.group, version: &resource.version, kind: &resource.kind, schema: &resource.schema };
    let object = body::object(cx, body, expected, options.field_validation)?;
    let written = insert(inner, target, cx, object, &options, false, Manage::Track).await?;
    answer(inner, 201, target, format, include(cx)?, written.json).await
}

/// Creates an object (canonical, in the version of the path).
pub async fn insert(
    inner: &Inner,
    target: &Target,
    cx: &Context,
    mut object: Value,
    options: &WriteOptions,
    admitted: bool,
    manage: Manage,
) -> Result<Written, Status> {
    if !meta::text(&object, "resourceVersion").is_empty() {
        return Err(Status::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    settle_namespace(target, &mut object)?;
    defaulting::apply(&target.resource, &mut object);
    if target.is("", "limitranges") && ["name", "generateName"].iter().all(|field| meta::text(&object, field).is_empty()) {
        // Alone of all kinds it gets a name of its own.
        meta::of(&mut object).insert("name".into(), chance::uid().into());
    }
    if manage == Manage::Track {
        let write = Write { inner, target, cx, admitted, dry_run: options.dry_run };
        let managed_fields = manage::replay(&write, |versions| manage::created(&write, options, &object, versions)).await?;
        manage::set(&mut object, managed_fields);
    }
    let object = inner.inward(target, object).await?;
    let base = meta::text(&object, "generateName").to_owned();
    let generates = meta::text(&object, "name").is_empty() && !base.is_empty();
    for attempt in 1.. {
        let mut named = object.clone();
        if generates {
            meta::of(&mut named).insert("name".into(), chance::name(&base).into());
        }
        let target = target.named(&target.namespace, meta::text(&named, "name"));
        let write = Write { inner, target: &target, cx, admitted, dry_run: options.dry_run };
        match insert_named(&write, named).await {
            Err(status) if status.reason == "AlreadyExists" && generates && attempt < NAME_TRIES => {}
            done => return done,
        }
    }
    unreachable!("the last attempt returns")
}

async fn insert_named(write: &Write<'_>, mut object: Value) -> Result<Written, Status> {
    let target = write.target;
    let now = Timestamp::now();
    meta::fill(&mut object, chance::uid(), now);
    write.mutate(Operation::Create, &mut object, None).await?;
    write.single_owners(&mut object);
    strategy::prepare_create(write.kind(), &mut object, now);
    write.canonical(&mut object)?;
    let rules = &write.inner.metrics.rules;
    let mut causes = rules.judge(target.stored.definition.as_deref(), || validation::create(&target.stored, &object));
    causes.extend(strategy::certificates::check(write.kind(), &object, None));
    causes.extend(validation::asked(&target.resource, &object, None, ""));
    let namespace = || write.inner.cache.get("", "namespaces", "", &target.namespace).map(|namespace| namespace.value());
    causes.extend(strategy::devices::check(write.kind(), &object, namespace));
    if !causes.is_empty() {
        return Err(target.invalid(causes));
    }
    write.warn(&object, None);
    let reservation = write.reserve(&mut object, None)?;
    let taken = write.judge(Operation::Create, &object, None).await?;
    if write.kind().is_definition() && target.collection.len() >= MAX_DEFINITIONS {
        let why = format!("there are {MAX_DEFINITIONS} already, and each takes memory");
        return Err(Status::forbidden(&target.resource.group, &target.resource.plural, &target.name, &why));
    }
    let exists = || Status::already_exists(&target.resource.group, &target.resource.plural, &target.name);
    if target.collection.get(&target.key()).is_some() {
        return Err(exists());
    }
    match write.put(&object, None, reservation).await? {
        Put::Done(json) => {
            taken.into_iter().for_each(Reserved::keep);
            Ok(Written { json, created: true })
        }
        Put::Lost => Err(exists()),
    }
}

/// The object is in the namespace of the path, or says nothing of it.
pub fn settle_namespace(target: &Target, object: &mut Value) -> Result<(), Status> {
    let given = meta::text(object, "namespace").to_owned();
    if target.namespace.is_empty() {
        meta::of(object).remove("namespace");
    } else if given.is_empty() {
        meta::of(object).insert("namespace".into(), target.namespace.as_str().into());
    } else if given != target.namespace {
        return Err(Status::bad_request("the namespace of the provided object does not match the namespace sent on the request"));
    }
    Ok(())
}
