//! Owner references: who controls an object, and the patches that adopt and release it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::{
    Resource,
    core::{Selector, SelectorExt},
};
use serde_json::json;

use crate::plan::{Patch, Target, document};

/// The reference to the object's controller, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// A reference that makes `owner` the controller.
pub fn controller_ref<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.meta().name.clone().unwrap_or_default(),
        uid: owner.meta().uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// What an owner makes of an object that it could own.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// It is ours.
    Ours,
    /// It becomes ours by this patch.
    Adopt(Patch),
    /// It ceases to be ours by this patch.
    Release(Patch),
    /// It is none of our business.
    Foreign,
}

/// Decides who owns `object`: adoption and release by selector, as every workload controller does it.
pub fn claim<O, K>(owner: &O, selector: &Selector, object: &K) -> Claim
where
    O: Resource<DynamicType = ()>,
    K: Resource<DynamicType = ()>,
{
    let meta = object.meta();
    let matches = selector.matches(meta.labels.as_ref().unwrap_or(&Default::default()));
    let leaving = owner.meta().deletion_timestamp.is_some();
    if let Some(controller) = controller_of(meta) {
        return match (Some(controller.uid.as_str()) == owner.meta().uid.as_deref(), matches || leaving) {
            (true, true) => Claim::Ours,
            (true, false) => Claim::Release(release(owner, object)),
            (false, _) => Claim::Foreign,
        };
    }
    if !matches || leaving || meta.deletion_timestamp.is_some() {
        return Claim::Foreign;
    }
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|o| Some(o.uid.as_str()) != owner.meta().uid.as_deref());
    owners.push(controller_ref(owner));
    Claim::Adopt(Patch::merge(Target::of(object), json!({"metadata": {"ownerReferences": document(&owners)}})))
}

/// The patch that takes `owner` out of the object's owners.
fn release<O: Resource, K: Resource<DynamicType = ()>>(owner: &O, object: &K) -> Patch {
    let rest: Vec<_> =
        object.meta().owner_references.iter().flatten().filter(|o| Some(o.uid.as_str()) != owner.meta().uid.as_deref()).collect();
    Patch::merge(Target::of(object), json!({"metadata": {"ownerReferences": rest}}))
}

/// The selector as a matcher. `None` for one that the API would have refused, and for the empty one, which must not own the world.
pub fn owning_selector(selector: &LabelSelector) -> Option<Selector> {
    let matcher = Selector::try_from(selector.clone()).ok()?;
    (!matcher.selects_all()).then_some(matcher)
}
