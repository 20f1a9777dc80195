//! Carries out a plan, in its order and with no choice of its own, and says what the key has to see before it plans again.

use std::collections::HashMap;

use coracle_client::{EventType, Key, Recorder};
use futures::{StreamExt, stream};
use kube::core::ApiResource;

use crate::{
    plan::{Announce, Create, Delete, Doomed, Patch, Plan, Target, Told},
    writer::{Refused, Writer, Written},
};

/// Writes of one plan that are under way at once.
const WRITES_AT_ONCE: usize = 16;

/// What an informer has to show before the key plans again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The kind's revision is at least this.
    Revision {
        /// Group and kind.
        kind: KindName,
        /// Of our write.
        revision: u64,
    },
    /// The object is gone, or on its way out.
    Leaving {
        /// Group and kind.
        kind: KindName,
        /// The object.
        key: Key,
        /// Its uid: another of the same name is another.
        uid: String,
    },
}

/// Group and kind: what names an informer.
pub type KindName = (String, String);

/// Group and kind of a resource.
pub fn kind_name(kind: &ApiResource) -> KindName {
    (kind.group.clone(), kind.kind.clone())
}

/// How the execution of a plan ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What to see first.
    pub expected: Vec<Expected>,
    /// What was refused, with the action's line.
    pub failures: Vec<Failure>,
}

/// An action that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// `create`, `patch`, `status` or `delete`.
    pub verb: &'static str,
    /// The action's line in the record.
    pub action: String,
    /// Kind of the object.
    pub kind: String,
    /// Why.
    pub refused: Refused,
}

/// Executes the plan.
pub async fn execute(writer: &dyn Writer, tell: &dyn Tell, plan: &Plan) -> Outcome {
    let mut run = Execution { writer, tell, outcome: Outcome::default(), revisions: HashMap::new() };
    let mut good = run.patches(&plan.patches).await;
    good = good && run.creates(&plan.creates).await;
    good = good && run.deletes(&plan.deletes).await;
    if let Some(status) = &plan.status {
        good &= run.patches(std::slice::from_ref(status)).await;
    }
    if good {
        for told in &plan.events {
            tell.tell(told.clone());
        }
    }
    run.outcome
}

/// Where Events go.
pub trait Tell: Send + Sync {
    /// Tells it; never waits.
    fn tell(&self, told: Told);
}

impl Tell for Recorder {
    fn tell(&self, told: Told) {
        self.event(&told.regarding, told.kind, told.reason, told.message);
    }
}

struct Execution<'a> {
    writer: &'a dyn Writer,
    tell: &'a dyn Tell,
    outcome: Outcome,
    /// Revisions of our own writes by uid: a later action on the same object builds on them.
    revisions: HashMap<String, u64>,
}

impl Execution<'_> {
    async fn patches(&mut self, patches: &[Patch]) -> bool {
        let writer = self.writer;
        let answers: Vec<_> = stream::iter(patches)
            .map(|patch| {
                let revision = self.revision(&patch.target);
                async move { (patch, writer.patch(patch, &revision).await) }
            })
            .boxed()
            .buffered(WRITES_AT_ONCE)
            .collect()
            .await;
        let mut good = true;
        for (patch, answer) in answers {
            let verb = if patch.subresource == Some("status") { "status" } else { "patch" };
            good &= self.ended(verb, patch.to_string(), &patch.target.kind, patch.announce.as_ref(), &answer);
            if let Ok(written) = answer {
                self.revisions.insert(patch.target.uid.clone(), written.revision);
                self.expect_revision(&patch.target.kind, written.revision);
            }
        }
        good
    }

    /// Slow start: a create that cannot succeed (a quota, a refused template) is tried once and not a thousand times.
    async fn creates(&mut self, creates: &[Create]) -> bool {
        let writer = self.writer;
        let (mut rest, mut batch) = (creates, 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch.min(rest.len()));
            let answers: Vec<_> = stream::iter(now)
                .map(|create| async move { (create, writer.create(create).await) })
                .boxed()
                .buffered(WRITES_AT_ONCE)
                .collect()
                .await;
            let mut good = true;
            for (create, answer) in answers {
                good &= self.ended("create", create.to_string(), &create.kind, create.announce.as_ref(), &answer);
                if let Ok(written) = answer {
                    self.expect_revision(&create.kind, written.revision);
                }
            }
            if !good {
                return false;
            }
            (rest, batch) = (later, batch * 2);
        }
        true
    }

    async fn deletes(&mut self, deletes: &[Delete]) -> bool {
        let writer = self.writer;
        let answers: Vec<_> = stream::iter(deletes)
            .map(|delete| {
                let revision = match &delete.doomed {
                    Doomed::One(target) => self.revision(target),
                    Doomed::All { .. } => String::new(),
                };
                async move { (delete, writer.delete(delete, &revision).await) }
            })
            .boxed()
            .buffered(WRITES_AT_ONCE)
            .collect()
            .await;
        let mut good = true;
        for (delete, answer) in answers {
            let kind = match &delete.doomed {
                Doomed::One(target) => &target.kind,
                Doomed::All { kind, .. } => kind,
            };
            let gone = answer.as_ref().is_err_and(Refused::is_gone);
            good &= gone || self.ended("delete", delete.to_string(), kind, delete.announce.as_ref(), &answer);
            if let (Ok(_), Doomed::One(target)) = (&answer, &delete.doomed) {
                self.outcome.expected.push(Expected::Leaving {
                    kind: kind_name(&target.kind),
                    key: target.key.clone(),
                    uid: target.uid.clone(),
                });
            }
        }
        good
    }

    fn revision(&self, target: &Target) -> String {
        self.revisions.get(&target.uid).filter(|r| **r > 0).map_or_else(|| target.revision.clone(), u64::to_string)
    }

    fn expect_revision(&mut self, kind: &ApiResource, revision: u64) {
        let name = kind_name(kind);
        for expected in &mut self.outcome.expected {
            if let Expected::Revision { kind, revision: highest } = expected
                && *kind == name
            {
                *highest = revision.max(*highest);
                return;
            }
        }
        self.outcome.expected.push(Expected::Revision { kind: name, revision });
    }

    /// Tells the Event of the action and remembers a refusal; whether the plan may go on.
    fn ended(
        &mut self,
        verb: &'static str,
        action: String,
        kind: &ApiResource,
        announce: Option<&Announce>,
        answer: &Result<Written, Refused>,
    ) -> bool {
        match answer {
            Ok(written) => {
                if let Some(announce) = announce {
                    let (reason, text) = &announce.done;
                    let message = text.replace("{name}", &written.name);
                    self.tell.tell(Told { regarding: announce.regarding.clone(), kind: EventType::Normal, reason, message });
                }
                true
            }
            Err(refused) => {
                if let Some(Announce { regarding, failed: Some((reason, text)), .. }) = announce
                    && !refused.namespace_ends
                    && !refused.is_conflict()
                {
                    let message = format!("{text}{refused}");
                    self.tell.tell(Told { regarding: regarding.clone(), kind: EventType::Warning, reason, message });
                }
                self.outcome.failures.push(Failure { verb, action, kind: kind.kind.clone(), refused: refused.clone() });
                false
            }
        }
    }
}
