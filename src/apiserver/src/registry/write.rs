//! What all writes share: admission, the last checks, the store, the cache.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use coracle_api::{defaulting, status::Status, structural, validation};
use coracle_store::{Durability, Expect, WriteError};
use serde_json::Value;

use super::{
    Inner, apply, body, manage,
    options::{DeleteOptions, WriteOptions},
    target::Target,
};
use crate::{
    admission::{Asked, Attributes, Operation, Plugin, Reserved, Rounds, Say},
    allocator::{Holding, Reservation},
    cache::object::{self, Object},
    metrics::admission::{Outcome, Step},
    request::{Context, RequestInfo},
    strategy::{Kind, key_pair, meta, service},
};

/// Manager of what the server writes on its own.
const OWN_MANAGER: &str = "kube-apiserver";

/// One write on its way.
pub struct Write<'a> {
    pub inner: &'a Inner,
    pub target: &'a Target,
    pub cx: &'a Context,
    /// Bootstrap writes are not for plugins to judge.
    pub admitted: bool,
    pub dry_run: bool,
}

/// What plugins are told of a write, and what lives as long as their look at it.
struct Seen<'a> {
    operation: Operation,
    info: RequestInfo,
    kind: String,
    old: Option<&'a Value>,
    rounds: Rounds,
}

/// An object as it was written.
#[derive(Debug)]
pub struct Written {
    /// JSON in the stored version.
    pub json: Bytes,
    /// It was not there before.
    pub created: bool,
}

/// What the store said of a put.
pub enum Put {
    /// It is written, at this revision, and the cache has seen it.
    Done(Bytes),
    /// Somebody else wrote first; the cache has seen it.
    Lost,
}

impl Write<'_> {
    /// The kind, for strategies.
    pub fn kind(&self) -> Kind<'_> {
        let stored = &self.target.stored;
        Kind { group: &stored.group, plural: &stored.plural, has_status: stored.subresource("status").is_some(), custom: stored.custom }
    }

    fn info(&self) -> RequestInfo {
        RequestInfo { name: self.target.name.clone(), namespace: self.cx.info.namespace.clone(), ..self.cx.info.clone() }
    }

    /// The write as plugins see it; `deletion` has the parameters of one.
    fn attributes<'w>(&'w self, seen: &'w Seen<'w>, deletion: Option<&'w DeleteOptions>) -> Attributes<'w> {
        Attributes {
            operation: seen.operation,
            user: &self.cx.user,
            info: &seen.info,
            kind: &seen.kind,
            old: seen.old,
            dry_run: self.dry_run,
            warnings: &self.cx.warnings,
            audit: &self.cx.audit,
            resource: &self.target.resource,
            asked: Asked { query: &self.cx.query, deletion },
            kinds: self.inner,
            rounds: &seen.rounds,
            metrics: &self.inner.metrics.admission,
        }
    }

    fn seen<'w>(&self, operation: Operation, object: Option<&Value>, old: Option<&'w Value>) -> Seen<'w> {
        let kind = object.or(old).and_then(|o| o["kind"].as_str()).unwrap_or_default().to_owned();
        Seen { operation, info: self.info(), kind, old, rounds: Rounds::default() }
    }

    /// Takes off owners that are told twice, and says so.
    pub fn single_owners(&self, object: &mut Value) {
        let doubled = meta::single_owners(object);
        if !doubled.is_empty() {
            let uids = doubled.join(", ");
            self.cx
                .warnings
                .extend([format!(".metadata.ownerReferences contains duplicate entries, of which one is kept; duplicate UID(s): {uids}")]);
        }
    }

    /// Lets the plugins change the object, or refuse.
    pub async fn mutate(&self, operation: Operation, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        if self.admitted {
            return Ok(());
        }
        let seen = self.seen(operation, Some(object), old);
        let write = self.attributes(&seen, None);
        let start = Instant::now();
        let done = self.mutate_by_all(&write, &seen.rounds, object).await;
        self.stepped(Step::Admit, operation, &done, start);
        done
    }

    async fn mutate_by_all(&self, write: &Attributes<'_>, rounds: &Rounds, object: &mut Value) -> Result<(), Status> {
        let mut clock = Instant::now();
        loop {
            for (at, plugin) in self.plugins(Say::Mutate) {
                let done = plugin.mutate(write, object).await;
                clock = self.said(at, Step::Admit, write.operation, &done, clock);
                done?;
            }
            if !rounds.begin_second() {
                return Ok(());
            }
        }
    }

    /// Lets the plugins refuse, then take what the write needs; that is given back unless it is kept.
    pub async fn judge(&self, operation: Operation, object: &Value, old: Option<&Value>) -> Result<Vec<Box<dyn Reserved>>, Status> {
        if self.admitted {
            return Ok(Vec::new());
        }
        let seen = self.seen(operation, Some(object), old);
        let write = self.attributes(&seen, None);
        let start = Instant::now();
        let done = match self.validate_by_all(&write, Some(object)).await {
            Ok(()) => self.reserve_by_all(&write, object).await,
            Err(status) => Err(status),
        };
        self.stepped(Step::Validate, operation, &done, start);
        done
    }

    async fn reserve_by_all(&self, write: &Attributes<'_>, object: &Value) -> Result<Vec<Box<dyn Reserved>>, Status> {
        let (mut taken, mut clock) = (Vec::new(), Instant::now());
        for (at, plugin) in self.plugins(Say::Reserve) {
            let done = plugin.reserve(write, object).await;
            clock = self.said(at, Step::Validate, write.operation, &done, clock);
            taken.extend(done?);
        }
        Ok(taken)
    }

    /// Lets the plugins refuse.
    pub async fn validate(&self, operation: Operation, object: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
        if self.admitted {
            return Ok(());
        }
        let seen = self.seen(operation, object, old);
        let write = self.attributes(&seen, None);
        let start = Instant::now();
        let done = self.validate_by_all(&write, object).await;
        self.stepped(Step::Validate, operation, &done, start);
        done
    }

    async fn validate_by_all(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let mut clock = Instant::now();
        for (at, plugin) in self.plugins(Say::Validate) {
            let done = plugin.validate(write, object).await;
            clock = self.said(at, Step::Validate, write.operation, &done, clock);
            done?;
        }
        Ok(())
    }

    async fn consent_by_all(&self, write: &Attributes<'_>) -> Result<(), Status> {
        let mut clock = Instant::now();
        for (at, plugin) in self.plugins(Say::Consent) {
            let done = plugin.consent(write).await;
            clock = self.said(at, Step::Admit, write.operation, &done, clock);
            done?;
        }
        Ok(())
    }

    /// The plugins that have this say, with their numbers.
    fn plugins(&self, say: Say) -> impl Iterator<Item = (usize, &Arc<dyn Plugin>)> {
        self.inner.admission.iter().enumerate().filter(move |(_, plugin)| plugin.says().contains(&say))
    }

    /// A plugin has had its say since then; the next one has it from what is returned.
    fn said<T>(&self, at: usize, step: Step, operation: Operation, done: &Result<T, Status>, since: Instant) -> Instant {
        self.inner.metrics.admission.plugin(at, Outcome { step, operation, refused: done.is_err() }, since)
    }

    /// A step is over that began then.
    fn stepped<T>(&self, step: Step, operation: Operation, done: &Result<T, Status>, start: Instant) {
        self.inner.metrics.admission.step(Outcome { step, operation, refused: done.is_err() }, start);
    }

    /// Both, for what is sent to a subresource and never stored.
    pub async fn admit(&self, operation: Operation, object: &mut Value) -> Result<(), Status> {
        self.mutate(operation, object, None).await?;
        self.validate(operation, Some(object), None).await
    }

    /// Lets the plugins refuse a deletion.
    pub async fn validate_deletion(&self, old: &Value, options: &DeleteOptions) -> Result<(), Status> {
        if self.admitted {
            return Ok(());
        }
        let seen = self.seen(Operation::Delete, None, Some(old));
        let write = self.attributes(&seen, Some(options));
        let start = Instant::now();
        let done = self.consent_by_all(&write).await;
        self.stepped(Step::Admit, Operation::Delete, &done, start);
        done?;
        let start = Instant::now();
        let done = self.validate_by_all(&write, None).await;
        self.stepped(Step::Validate, Operation::Delete, &done, start);
        done
    }

    /// Tells the author what a valid write had better not do.
    pub fn warn(&self, object: &Value, old: Option<&Value>) {
        if self.admitted {
            return;
        }
        let (stored, warnings) = (&self.target.stored, &self.cx.warnings);
        match old {
            None => warnings.extend(validation::warnings::create(stored, object)),
            Some(old) => warnings.extend(validation::warnings::update(stored, object, old, &self.target.subresource)),
        }
        if self.target.is("", "secrets") {
            warnings.extend(key_pair::warning(object));
        }
    }

    /// What a Service needs of the cluster's addresses and ports; given back unless it is kept.
    pub fn reserve(&self, object: &mut Value, old: Option<&Value>) -> Result<Option<Reservation>, Status> {
        if !self.target.is("", "services") {
            return Ok(None);
        }
        let mut reservation = self.inner.services.begin();
        service::allocate(object, old, &mut reservation, &mut super::chance::number).map_err(|causes| self.target.invalid(causes))?;
        Ok(Some(reservation))
    }

    /// Canonical form again, after strategies and plugins had their say.
    pub fn canonical(&self, object: &mut Value) -> Result<(), Status> {
        let stored = &self.target.stored;
        structural::prune(&stored.schema, object).map(drop).map_err(|error| body::refused(&error, None))?;
        if stored.custom && !self.target.as_stored() {
            defaulting::apply(stored, object);
        }
        Ok(())
    }

    fn encode(&self, object: &Value) -> Result<Bytes, Status> {
        let tag = self.target.stored.definition.as_ref().map(|d| d.tag);
        object::encode(object, tag).ok_or_else(|| Status::internal("the object has no kind, apiVersion or metadata"))
    }

    /// Writes the object, unless it is a dry run, and waits until the cache shows it.
    pub async fn put(&self, object: &Value, old: Option<&Arc<Object>>, reservation: Option<Reservation>) -> Result<Put, Status> {
        let value = self.encode(object)?;
        if self.dry_run {
            return Ok(Put::Done(object::with_revision(&value, old.map(|old| old.revision()))));
        }
        let expect = old.map_or(Expect::Absent, |old| Expect::Revision(old.revision()));
        let held = || old.map(|old| Holding::of(&old.value())).unwrap_or_default();
        let fresh = reservation.as_ref().map(|_| Holding::of(object).without(&held()).addresses).unwrap_or_default();
        if !fresh.is_empty() {
            self.inner.addresses.write(object, &fresh).await?;
        }
        let durability = if self.kind().is_lazy() { Durability::Lazy } else { Durability::Sync };
        let mut value = value;
        let mut put = self.inner.store.put(&self.target.store_key(), value.clone(), expect, durability).await;
        if matches!(put, Err(WriteError::TooLarge { .. }))
            && let Some(smaller) = self.unmanaged(object)
        {
            value = smaller?;
            put = self.inner.store.put(&self.target.store_key(), value.clone(), expect, durability).await;
        }
        if put.is_err() && !fresh.is_empty() {
            self.inner.addresses.remove(&self.target.namespace, &self.target.name, &fresh).await;
        }
        match put {
            Ok(revision) => {
                if let Some(reservation) = reservation {
                    reservation.keep();
                    if let Some(old) = old {
                        self.inner.services.release(&Holding::of(&old.value()).without(&Holding::of(object)));
                    }
                }
                self.inner.cache.wait(revision).await;
                Ok(Put::Done(object::with_revision(&value, Some(revision))))
            }
            Err(WriteError::Conflict { current }) => {
                self.catch_up(current.map(|entry| entry.modified)).await;
                Ok(Put::Lost)
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// The object without its managers, who may take as much room as all it says. Who applies lives by them.
    fn unmanaged(&self, object: &Value) -> Option<Result<Bytes, Status>> {
        let applies = self.cx.info.verb == "patch" && body::media(self.cx) == apply::MEDIA;
        if applies || !object["metadata"]["managedFields"].is_array() {
            return None;
        }
        Some(self.encode(&manage::unmanaged(object.clone())))
    }

    /// Deletes the object as it was seen; false when somebody else wrote first.
    pub async fn delete(&self, old: &Arc<Object>) -> Result<bool, Status> {
        if self.dry_run {
            return Ok(true);
        }
        match self.inner.store.delete(&self.target.store_key(), Expect::Revision(old.revision())).await {
            Ok(revision) => {
                if self.target.is("", "services") {
                    self.inner.services.release(&Holding::of(&old.value()));
                }
                self.inner.cache.wait(revision).await;
                Ok(true)
            }
            Err(WriteError::Conflict { current }) => {
                self.catch_up(current.map(|entry| entry.modified)).await;
                Ok(false)
            }
            Err(error) => Err(refused(&error)),
        }
    }

    /// Until the cache shows what made a write fail.
    async fn catch_up(&self, revision: Option<u64>) {
        match revision {
            Some(revision) => self.inner.cache.wait(revision).await,
            None => self.inner.cache.catch_up().await,
        }
    }
}

/// Deletes an object that cannot be read: nobody can judge that, and nothing follows from it.
pub async fn discard(inner: &Inner, target: &Target, dry_run: bool) -> Result<(), Status> {
    if dry_run {
        return Ok(());
    }
    let revision = inner.store.delete(&target.store_key(), Expect::Any).await.map_err(|error| refused(&error))?;
    inner.cache.wait(revision).await;
    Ok(())
}

fn refused(error: &WriteError) -> Status {
    match error {
        WriteError::TooLarge { .. } => Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {error}")),
        WriteError::ReadOnly { source, .. } => {
            let why = source.as_ref().map_or(String::new(), |cause| format!(": {cause}"));
            Status::internal(format!("Internal error occurred: {error}{why}"))
        }
        WriteError::Encryption { .. } => Status::internal(format!("Internal error occurred: {error}")),
        WriteError::KeyTooLong { .. } => Status::bad_request(error.to_string()),
        WriteError::Conflict { .. } => Status::internal(error.to_string()),
    }
}

/// The options of a write from inside.
pub fn internal_options() -> WriteOptions {
    WriteOptions { field_manager: OWN_MANAGER.to_owned(), ..WriteOptions::default() }
}
