//! MutatingAdmissionWebhook: one after the other may change the object, and the earlier ones may look again.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use coracle_api::{
    apply::Managers,
    catalogue::Resource,
    defaulting, patch,
    schema::Schema,
    status::{Cause, Status},
    structural,
};
use serde_json::Value;

use super::{
    Attributes,
    call::{Fault, call, count, named},
    configuration::{Configured, Hook},
    failed, is_exempt,
    select::{Sight, is_whole},
};
use crate::{
    admission::{Plugin, Say},
    authorization::Authorizers,
    objects::Objects,
};

/// Under this name the plugin keeps its notes of the first round.
const NAME: &str = "MutatingAdmissionWebhook";
/// Metrics' word for what is asked here.
const STEP: &str = "admit";

/// The plugin.
#[derive(Debug)]
pub struct MutatingAdmissionWebhook {
    configured: Configured,
    objects: Arc<dyn Objects>,
    authorizers: Arc<Authorizers>,
}

impl MutatingAdmissionWebhook {
    /// Configurations, namespaces and services are looked up in `objects`; conditions may ask what users may do.
    pub fn new(objects: Arc<dyn Objects>, authorizers: Arc<Authorizers>) -> Self {
        Self { configured: Configured::new("mutatingwebhookconfigurations", STEP, Arc::clone(&objects)), objects, authorizers }
    }
}

/// Who was asked, and who is to be asked again.
#[derive(Debug, Default, PartialEq)]
struct Memory {
    /// Asked since the last change, and wishing to see the next one.
    asked: Vec<String>,
    /// To be asked in the second round.
    again: Vec<String>,
    /// The object as the last round left it.
    left: Option<Value>,
}

impl Memory {
    /// The object has changed: who was asked before has not seen it so.
    fn changed(&mut self) {
        self.again.append(&mut self.asked);
    }
}

#[async_trait]
impl Plugin for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate, Say::Consent]
    }

    async fn mutate(&self, write: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        match self.configured.now(write.metrics).filter(|_| !is_exempt(write)) {
            Some(hooks) => self.ask(&hooks, write, Some(object)).await,
            None => Ok(()),
        }
    }

    async fn consent(&self, write: &Attributes<'_>) -> Result<(), Status> {
        match self.configured.now(write.metrics).filter(|_| !is_exempt(write)) {
            Some(hooks) => self.ask(&hooks, write, None).await,
            None => Ok(()),
        }
    }
}

impl MutatingAdmissionWebhook {
    async fn ask(&self, hooks: &[Hook], write: &Attributes<'_>, object: Option<&mut Value>) -> Result<(), Status> {
        let mut memory: Memory = write.rounds.take(NAME);
        let second = write.rounds.is_second();
        if second && memory.left.as_ref() != object.as_deref() {
            memory.changed();
        }
        let mut nothing = Value::Null;
        let has_object = object.is_some();
        let object = object.unwrap_or(&mut nothing);
        let versioned = has_object && is_whole(write.resource, &write.info.subresource);
        let sight = Sight::new(write, &*self.objects, &self.authorizers);
        let mut shown = Shown { old: None };
        // As it came, once it has been brought to another version; it stays so unless somebody changes it.
        let mut original = None;
        let mut dirty = false;
        for hook in hooks {
            let Some(invocation) = sight.select(hook, has_object.then_some(&*object))? else { continue };
            if second && !memory.again.contains(&hook.uid) {
                continue;
            }
            if versioned && object["apiVersion"] != invocation.resource.api_version() {
                original = original.or_else(|| Some(object.clone()));
                *object = write.kinds.convert(&invocation.resource, object.take()).await?;
            }
            let old = shown.old(write, &invocation.resource).await?;
            if !sight.holds(hook, named(hook, STEP, &sight), &invocation, has_object.then_some(&*object), old)? {
                continue;
            }
            let start = Instant::now();
            let answer = match call(hook, &invocation, &sight, true, has_object.then_some(&*object), old).await {
                Ok(verdict) => patched(hook, write, &invocation.resource, has_object.then_some(&mut *object), verdict.patch.as_ref()),
                Err(fault) => Err(fault),
            };
            count(hook, STEP, &sight, &answer, start.elapsed());
            let changed = match answer {
                Ok(changed) => changed,
                Err(fault) => match fault.settle(hook) {
                    Some(status) => return Err(status),
                    None => false,
                },
            };
            if changed {
                dirty = true;
                memory.changed();
                write.rounds.again();
            }
            if hook.again {
                memory.asked.push(hook.uid.clone());
            }
        }
        match original {
            Some(original) if !dirty => *object = original,
            Some(_) => {
                let catalogue = write.kinds.catalogue();
                *object = write.kinds.convert(catalogue.stored(write.resource), object.take()).await?;
            }
            None => {}
        }
        // Who is not there to look again needs no memory.
        if !second && has_object && !(memory.asked.is_empty() && memory.again.is_empty()) {
            memory.left = Some(object.clone());
            write.rounds.note(NAME, memory);
        }
        Ok(())
    }
}

/// The object before, in the version that it was last shown in.
struct Shown {
    old: Option<Value>,
}

impl Shown {
    async fn old<'s>(&'s mut self, write: &'s Attributes<'_>, to: &Arc<Resource>) -> Result<Option<&'s Value>, Status> {
        let Some(held) = write.old else { return Ok(None) };
        let version = to.api_version();
        if !is_whole(write.resource, &write.info.subresource) || held["apiVersion"] == version {
            return Ok(Some(held));
        }
        if self.old.as_ref().is_none_or(|old| old["apiVersion"] != version) {
            self.old = Some(write.kinds.convert(to, held.clone()).await?);
        }
        Ok(self.old.as_ref())
    }
}

/// Does what a webhook wants done to the object; whether anything is another value now.
fn patched(
    hook: &Hook,
    write: &Attributes<'_>,
    resource: &Resource,
    object: Option<&mut Value>,
    patch: Option<&Value>,
) -> Result<bool, Fault> {
    match (patch, object) {
        (None, _) => Ok(false),
        (Some(patch), Some(object)) => apply(write, resource, object, patch).map_err(|status| Fault::Own(Box::new(status))),
        (Some(_), None) => {
            let why = "attempted to modify the object, which is not supported for this operation";
            Err(Fault::Own(Box::new(failed(&format!("admission webhook {:?} {why}", hook.name)))))
        }
    }
}

/// Applies a webhook's patch; whether anything is another value now. What the patch leaves unsaid has its default.
fn apply(write: &Attributes<'_>, resource: &Resource, object: &mut Value, patch: &Value) -> Result<bool, Status> {
    let part = resource.subresource(&write.info.subresource);
    let schema: &Schema = part.map_or(&resource.schema, |part| &part.schema);
    let mut patched = object.clone();
    patch::json(&mut patched, patch).map_err(|error| failed(&error.to_string()))?;
    structural::prune(schema, &mut patched).map_err(|error| failed(&error.to_string()))?;
    settle(write, object, &mut patched)?;
    let changed = patched != *object;
    if changed && is_whole(resource, &write.info.subresource) {
        defaulting::apply(resource, &mut patched);
    }
    *object = patched;
    Ok(changed)
}

/// What no webhook may change: which object it is. Managers that nobody can read are those of before.
fn settle(write: &Attributes<'_>, before: &Value, patched: &mut Value) -> Result<(), Status> {
    if !patched.is_object() || !(patched["metadata"].is_object() || patched["metadata"].is_null()) {
        return Err(failed("a patch leaves no object"));
    }
    let same = |patched: &Value, field: &str| patched["metadata"][field] == before["metadata"][field];
    let moved: Vec<Cause> = ["name", "namespace", "uid"]
        .into_iter()
        .filter(|field| !same(patched, field))
        .map(|field| Cause {
            reason: "FieldValueInvalid",
            field: format!("metadata.{field}"),
            message: format!("Invalid value: {}: field is immutable", patched["metadata"][field]),
        })
        .collect();
    if !moved.is_empty() {
        return Err(Status::invalid(&write.resource.group, &write.resource.kind, &write.info.name, moved));
    }
    for field in ["kind", "apiVersion"] {
        patched[field] = before[field].clone();
    }
    if !same(patched, "managedFields")
        && let Err(error) = Managers::read(&patched["metadata"]["managedFields"])
    {
        write.warnings.add(format!(
            ".metadata.managedFields was in an invalid state after admission; this could be caused by an outdated mutating admission \
             controller; please fix your requests: {error}"
        ));
        patched["metadata"]["managedFields"] = before["metadata"]["managedFields"].clone();
    }
    Ok(())
}
