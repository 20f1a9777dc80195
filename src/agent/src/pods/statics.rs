//! Pods of manifests among the others: one task each, as for any pod, told of its mirror in the place of its object.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Entry, Pods, PoisonError, Remains};
use crate::{
    pod::{
        plan::Event,
        spec,
        worker::{Message, mirror},
    },
    statics::directory::Directory,
};

/// What is known of a pod from a file beside its task.
#[derive(Clone, Debug, Default)]
pub(super) struct FromFile {
    /// The uid of its mirror in the API.
    pub(super) mirror: Option<String>,
    /// Its manifest is no more; it ends.
    ends: bool,
}

/// A static pod that has a task, as the plan sees it.
#[derive(Clone, Copy, Debug)]
struct Running<'a> {
    uid: &'a str,
    name: &'a str,
    ends: bool,
}

/// Which tasks are to end (by uid), and which pods begin. One that takes another's name waits until that one is over.
fn plan(running: &[Running<'_>], wanted: &BTreeMap<String, Arc<Pod>>) -> (Vec<String>, Vec<Arc<Pod>>) {
    let stays = |r: &&Running<'_>| wanted.get(r.name).is_some_and(|pod| spec::uid(pod) == r.uid);
    let end = running.iter().filter(|r| !r.ends && !stays(r)).map(|r| r.uid.to_owned()).collect();
    let begin = wanted.iter().filter(|(name, _)| !running.iter().any(|r| r.name == name.as_str())).map(|(_, pod)| pod.clone());
    (end, begin.collect())
}

/// Waits for a change of the manifests; for ever, when there are none.
pub(super) async fn changed(manifests: Option<&mut Directory>) {
    match manifests {
        Some(manifests) => manifests.changed().await,
        None => std::future::pending().await,
    }
}

impl Pods {
    /// Reads the manifests and brings the static pods in line with them.
    pub(super) async fn take_manifests(&self, manifests: Option<&mut Directory>, remains: &mut Remains) {
        let Some(manifests) = manifests else { return };
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = manifests.read(Timestamp::now());
        self.begin_statics(remains).await;
    }

    /// Ends static pods that nobody wants, and begins those that are wanted.
    pub(super) async fn begin_statics(&self, remains: &mut Remains) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (end, begin) = {
            let mut entries = self.lock();
            entries.retain(|_, e| !e.facts.borrow().over);
            let running: Vec<_> = entries.values().filter(|e| e.from_file.is_some()).map(|e| (e, spec::full_name(&e.pod))).collect();
            let running: Vec<_> = running
                .iter()
                .map(|(e, name)| Running { uid: spec::uid(&e.pod), name, ends: e.from_file.as_ref().is_some_and(|f| f.ends) })
                .collect();
            plan(&running, &wanted)
        };
        for uid in end {
            self.end_static(&uid).await;
        }
        for pod in begin {
            let uid = spec::uid(&pod).to_owned();
            self.begin(pod, uid, remains).await;
        }
    }

    async fn end_static(&self, uid: &str) {
        let facts = self.lock().get_mut(uid).map(|entry| {
            entry.from_file.get_or_insert_default().ends = true;
            entry.facts.clone()
        });
        self.tell(uid, Message::Event(Event::Gone)).await;
        if let Some(mut facts) = facts {
            let over = self.over.clone();
            tokio::spawn(async move {
                // A task that was dropped is over, too.
                let _ = facts.wait_for(|f| f.over).await;
                over.notify_one();
            });
        }
    }

    /// A mirror, as the API has it: its pod is told; one that shows nothing is removed.
    pub(super) async fn see_mirror(&self, object: Arc<Pod>) {
        let name = spec::full_name(&object);
        let shows = |entry: &&mut Entry| entry.from_file.is_some() && !entry.facts.borrow().over && spec::full_name(&entry.pod) == name;
        let inbox = self.lock().values_mut().find(shows).map(|entry| {
            entry.from_file.get_or_insert_default().mirror = Some(spec::uid(&object).to_owned());
            entry.inbox.clone()
        });
        if let Some(inbox) = inbox {
            let _ = inbox.send(Message::Mirror(object)).await;
        } else if !self.wanted.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name) {
            let ctx = self.ctx.clone();
            tokio::spawn(async move { mirror::remove(&ctx, &object).await });
        }
    }

    /// The mirror of this uid is no more.
    pub(super) async fn mirror_gone(&self, object: &Pod) {
        let (uid, name) = (spec::uid(object), spec::full_name(object));
        // One that went before it was seen is known by its name.
        let shown = |entry: &&mut Entry| {
            entry.from_file.as_ref().is_some_and(|file| match &file.mirror {
                Some(mirror) => mirror == uid,
                None => spec::full_name(&entry.pod) == name,
            })
        };
        let inbox = self.lock().values_mut().find(shown).map(|entry| {
            entry.from_file.get_or_insert_default().mirror = None;
            entry.inbox.clone()
        });
        if let Some(inbox) = inbox {
            let _ = inbox.send(Message::MirrorGone(uid.to_owned())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(running: &[(&str, &str, bool)], wanted: &[(&str, &str)], ends: &[&str], begins: &[&str]) {
        let pod = |uid: &str| serde_json::from_value::<Pod>(json!({ "metadata": { "uid": uid } })).expect("a pod");
        let wanted = wanted.iter().map(|(name, uid)| ((*name).to_owned(), Arc::new(pod(uid)))).collect();
        let running: Vec<_> = running.iter().map(|(name, uid, ends)| Running { uid, name, ends: *ends }).collect();
        let (end, begin) = plan(&running, &wanted);
        assert_eq!(end, ends, "{running:?}");
        assert_eq!(begin.iter().map(|p| spec::uid(p)).collect::<Vec<_>>(), begins, "{running:?}");
    }

    #[test]
    fn pods_follow_their_manifests() {
        check(&[], &[("d/a", "1")], &[], &["1"]);
        check(&[("d/a", "1", false)], &[("d/a", "1")], &[], &[]);
        check(&[("d/a", "1", false)], &[], &["1"], &[]);
        check(&[("d/a", "1", true)], &[], &[], &[]);
        // A changed manifest is another pod; it waits for the name.
        check(&[("d/a", "1", false)], &[("d/a", "2")], &["1"], &[]);
        check(&[("d/a", "1", true)], &[("d/a", "2")], &[], &[]);
        check(&[], &[("d/a", "2")], &[], &["2"]);
        // A manifest that comes back while its pod ends makes a new one of it afterwards.
        check(&[("d/a", "1", true)], &[("d/a", "1")], &[], &[]);
        check(&[("d/b", "1", false)], &[("d/a", "2"), ("d/b", "1")], &[], &["2"]);
    }
}
