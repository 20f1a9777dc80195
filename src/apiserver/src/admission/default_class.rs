//! DefaultStorageClass and DefaultIngressClass: claims and ingresses that name no class get the one that is marked as the default.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::objects::Objects;

/// For claims; there may be several, as when one takes the place of another: the youngest counts.
#[derive(Debug)]
pub struct DefaultStorageClass {
    /// Where classes are looked up.
    pub objects: Arc<dyn Objects>,
}

/// For ingresses; there may be only one.
#[derive(Debug)]
pub struct DefaultIngressClass {
    /// Where classes are looked up.
    pub objects: Arc<dyn Objects>,
}

const STORAGE: [&str; 2] = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, claim: &mut Value) -> Result<(), Status> {
        // An empty name is a choice: no class at all.
        let chosen = !claim["spec"]["storageClassName"].is_null()
            || !claim["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"].is_null();
        if is_new(write, "", "persistentvolumeclaims") && !chosen {
            let classes = self.objects.list("storage.k8s.io", "storageclasses", "");
            if let Some(class) = youngest(&defaults(&classes, &STORAGE)) {
                claim["spec"]["storageClassName"] = class["metadata"]["name"].clone();
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, ingress: &mut Value) -> Result<(), Status> {
        let chosen =
            !ingress["spec"]["ingressClassName"].is_null() || !ingress["metadata"]["annotations"]["kubernetes.io/ingress.class"].is_null();
        if is_new(write, "networking.k8s.io", "ingresses") && !chosen {
            let classes = self.objects.list("networking.k8s.io", "ingressclasses", "");
            match defaults(&classes, &INGRESS).as_slice() {
                [] => {}
                [class] => ingress["spec"]["ingressClassName"] = class["metadata"]["name"].clone(),
                several => {
                    let why = format!("{} default IngressClasses were found, only 1 allowed", several.len());
                    return Err(refuse(write, &why));
                }
            }
        }
        Ok(())
    }
}

fn is_new(write: &Attributes<'_>, group: &str, resource: &str) -> bool {
    write.is(group, resource) && write.operation == Operation::Create && write.info.subresource.is_empty()
}

fn defaults<'a>(classes: &'a [Value], annotations: &[&str]) -> Vec<&'a Value> {
    let marked = |class: &Value| annotations.iter().any(|name| class["metadata"]["annotations"][*name] == "true");
    classes.iter().filter(|class| marked(class)).collect()
}

/// The one that was made last; of several made at once the first by name.
fn youngest<'a>(classes: &[&'a Value]) -> Option<&'a Value> {
    let made = |class: &Value| class["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let name = |class: &Value| class["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    classes.iter().copied().max_by(|a, b| made(a).cmp(&made(b)).then_with(|| name(b).cmp(&name(a))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_youngest_marked_class_is_the_default() {
        let class = |name: &str, made: &str, mark: &str| json!({"metadata": {"name": name, "creationTimestamp": made, "annotations": {STORAGE[0]: mark}}});
        let classes = [
            class("c", "2026-01-03T00:00:00Z", "false"),
            class("b", "2026-01-02T00:00:00Z", "true"),
            class("a", "2026-01-02T00:00:00Z", "true"),
        ];
        assert_eq!(youngest(&defaults(&classes, &STORAGE)).unwrap()["metadata"]["name"], "a");
        assert_eq!(youngest(&defaults(&classes[..1], &STORAGE)), None);
    }
}
