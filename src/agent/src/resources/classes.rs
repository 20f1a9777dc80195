//! The groups of burstable and of best-effort pods: beside a guaranteed pod each of them weighs what its pods ask for together.

use std::sync::Arc;

use coracle_api::quantity::Quantity;
use coracle_runtime::{Resources, group};
use k8s_openapi::api::core::v1::PodSpec;
use tokio_util::sync::CancellationToken;

use super::{
    asked_by,
    ledger::Ledger,
    limits::{self, MEMORY_LOW, MEMORY_MIN},
    qos::{self, Qos},
};

/// What pods that were granted something ask for together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Without any pod there are no groups.
    pods: bool,
    burstable_cpu_millis: i64,
    burstable_memory: i64,
    guaranteed_memory: i64,
}

/// Writes it to the groups below `root` whenever it changes, until the agent stops. Memory is protected where containers' is (KEP-2570): what a group
/// protects counts only as far as the groups above it do.
pub async fn keep(ledger: Arc<Ledger>, root: String, protects: bool, stop: CancellationToken) {
    let mut changed = ledger.changed();
    // Pods of before may be in the book already.
    changed.mark_changed();
    let mut written = Asked::default();
    while let Some(Ok(())) = stop.run_until_cancelled(changed.changed()).await {
        let asked = ledger.look(|pods| sum(pods.filter_map(|pod| pod.spec.as_ref())));
        if written == asked {
            continue;
        }
        written = asked;
        let groups = groups(&root, &asked, protects);
        let write = move || groups.iter().try_for_each(|(path, resources)| group::limit(path, Some(resources)));
        if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "classes of pods do not weigh what their pods ask for");
        }
    }
}

fn sum<'a>(pods: impl Iterator<Item = &'a PodSpec>) -> Asked {
    let mut out = Asked::default();
    for spec in pods {
        out.pods = true;
        let class = qos::class(Some(spec));
        if class == Qos::BestEffort {
            continue;
        }
        let asked = asked_by(spec);
        let memory = asked.get("memory").map_or(0, Quantity::units);
        if class == Qos::Guaranteed {
            out.guaranteed_memory = out.guaranteed_memory.saturating_add(memory);
        } else {
            out.burstable_memory = out.burstable_memory.saturating_add(memory);
            out.burstable_cpu_millis = out.burstable_cpu_millis.saturating_add(asked.get("cpu").map_or(0, Quantity::millis));
        }
    }
    out
}

/// Groups and what each is to have, outer before inner.
fn groups(root: &str, asked: &Asked, protects: bool) -> Vec<(String, Resources)> {
    let pods = limits::pods_cgroup(root);
    let class = |class: Qos| format!("{pods}{}", class.directory());
    let weight = |millis: i64| Resources { cpu_shares: Some(limits::shares(millis)), ..Resources::default() };
    let mut burstable = weight(asked.burstable_cpu_millis);
    let mut out = Vec::new();
    if protects {
        let unified = [
            (MEMORY_MIN.to_owned(), asked.guaranteed_memory.to_string()),
            (MEMORY_LOW.to_owned(), asked.guaranteed_memory.saturating_add(asked.burstable_memory).to_string()),
        ];
        let all = Resources { unified: unified.into(), ..Resources::default() };
        out.extend([(root.to_owned(), all.clone()), (pods.clone(), all)]);
        burstable.unified.insert(MEMORY_LOW.to_owned(), asked.burstable_memory.to_string());
    }
    out.extend([(class(Qos::Burstable), burstable), (class(Qos::BestEffort), weight(0))]);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_weighs_what_its_pods_ask_for() {
        let spec = |resources: serde_json::Value| -> PodSpec {
            serde_json::from_value(json!({ "containers": [{ "name": "a", "resources": resources }] })).expect("a pod spec")
        };
        let pods = [
            spec(json!({})),
            spec(json!({ "requests": { "cpu": "250m", "memory": "1Ki" } })),
            spec(json!({ "requests": { "cpu": "1" } })),
            spec(json!({ "requests": { "cpu": "3", "memory": "2Ki" }, "limits": { "cpu": "3", "memory": "2Ki" } })),
        ];
        let asked = sum(pods.iter());
        assert_eq!(sum([].iter()), Asked::default());
        assert_eq!(asked, Asked { pods: true, burstable_cpu_millis: 1250, burstable_memory: 1024, guaranteed_memory: 2048 });
        let told = |protects| {
            let list = groups("/c", &asked, protects).into_iter();
            list.map(|(path, r)| (path, r.cpu_shares, r.unified.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")))
                .collect::<Vec<_>>()
        };
        let entry = |path: &str, shares, unified: &str| (path.to_owned(), shares, unified.to_owned());
        let classes = |low| [entry("/c/kubepods/burstable", Some(1280), low), entry("/c/kubepods/besteffort", Some(2), "")];
        assert_eq!(told(false), classes(""));
        let all = |path| entry(path, None, "memory.low=3072 memory.min=2048");
        assert_eq!(told(true), [vec![all("/c"), all("/c/kubepods")], classes("memory.low=1024").to_vec()].concat());
    }
}
