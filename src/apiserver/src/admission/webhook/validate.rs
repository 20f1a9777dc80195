//! ValidatingAdmissionWebhook: all that a write concerns are asked at once, and each may refuse it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use coracle_api::status::Status;
use futures::future;
use serde_json::Value;

use super::{
    Attributes,
    call::{call, count, named},
    configuration::{Configured, Hook},
    is_exempt,
    select::{Invocation, Sight, is_whole},
};
use crate::{
    admission::{Plugin, Say},
    authorization::Authorizers,
    objects::Objects,
};

/// Metrics' word for what is asked here.
const STEP: &str = "validating";

/// The plugin.
#[derive(Debug)]
pub struct ValidatingAdmissionWebhook {
    configured: Configured,
    objects: Arc<dyn Objects>,
    authorizers: Arc<Authorizers>,
}

impl ValidatingAdmissionWebhook {
    /// Configurations, namespaces and services are looked up in `objects`; conditions may ask what users may do.
    pub fn new(objects: Arc<dyn Objects>, authorizers: Arc<Authorizers>) -> Self {
        Self { configured: Configured::new("validatingwebhookconfigurations", STEP, Arc::clone(&objects)), objects, authorizers }
    }
}

/// The object and its state before, in one version.
struct Pair {
    object: Option<Value>,
    old: Option<Value>,
}

#[async_trait]
impl Plugin for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(hooks) = self.configured.now(write.metrics).filter(|_| !is_exempt(write)) else { return Ok(()) };
        let sight = Sight::new(write, &*self.objects, &self.authorizers);
        let mut relevant: Vec<(&Hook, Invocation)> = Vec::new();
        for hook in hooks.iter() {
            relevant.extend(sight.select(hook, object)?.map(|invocation| (hook, invocation)));
        }
        let versions = versions(write, object, &relevant).await?;
        let mut calls = Vec::with_capacity(relevant.len());
        for (hook, invocation) in &relevant {
            let shown = versions.get(&invocation.resource.api_version());
            let (object, old) = shown.map_or((object, write.old), |pair| (pair.object.as_ref(), pair.old.as_ref()));
            if sight.holds(hook, named(hook, STEP, &sight), invocation, object, old)? {
                let sight = &sight;
                calls.push(async move {
                    let start = Instant::now();
                    let answer = call(hook, invocation, sight, false, object, old).await;
                    count(hook, STEP, sight, &answer, start.elapsed());
                    answer.err()?.settle(hook)
                });
            }
        }
        let refusals = future::join_all(calls).await;
        refusals.into_iter().flatten().next().map_or(Ok(()), Err)
    }
}

/// The objects in the versions that webhooks want to see and that are not the one they are in, each made once.
async fn versions(
    write: &Attributes<'_>,
    object: Option<&Value>,
    relevant: &[(&Hook, Invocation)],
) -> Result<HashMap<String, Pair>, Status> {
    let mut out = HashMap::new();
    if !is_whole(write.resource, &write.info.subresource) {
        return Ok(out);
    }
    for (_, Invocation { resource }) in relevant {
        let version = resource.api_version();
        let is_there = |value: Option<&Value>| value.is_none_or(|value| value["apiVersion"] == version);
        if out.contains_key(&version) || is_there(object) && is_there(write.old) {
            continue;
        }
        let mut pair = Pair { object: None, old: None };
        if let Some(object) = object {
            pair.object = Some(write.kinds.convert(resource, object.clone()).await?);
        }
        if let Some(old) = write.old {
            pair.old = Some(write.kinds.convert(resource, old.clone()).await?);
        }
        out.insert(version, pair);
    }
    Ok(out)
}
