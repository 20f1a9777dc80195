//! `/stats/summary` and `/metrics/resource`: what the node's pods use.

use coracle_runtime::ContainerStats;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{context::Context, node::machine, pod::spec, pods::Pods};

/// One container's use.
struct Use {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    stats: ContainerStats,
}

async fn uses(ctx: &Context, pods: &Pods) -> Vec<Use> {
    let mut out = Vec::new();
    for (pod, facts) in pods.list() {
        for (name, (id, _, alive)) in facts.runs {
            if !alive {
                continue;
            }
            if let Ok(stats) = ctx.runtime.stats(&id).await {
                out.push(Use {
                    namespace: spec::namespace(&pod).to_owned(),
                    pod: spec::name(&pod).to_owned(),
                    uid: spec::uid(&pod).to_owned(),
                    container: name,
                    stats,
                });
            }
        }
    }
    out
}

/// The summary API's document.
pub async fn summary(ctx: &Context, pods: &Pods) -> Value {
    let now = Timestamp::now().to_string();
    let uses = uses(ctx, pods).await;
    let usage = |s: &ContainerStats| {
        json!({
            "cpu": { "time": now, "usageCoreNanoSeconds": s.cpu_nanoseconds },
            "memory": { "time": now, "workingSetBytes": s.memory_working_set, "usageBytes": s.memory_usage, "rssBytes": s.memory_rss },
        })
    };
    let listed: Vec<Value> = pods
        .list()
        .iter()
        .map(|(pod, _)| {
            let own: Vec<&Use> = uses.iter().filter(|u| u.uid == spec::uid(pod)).collect();
            let mut sum = ContainerStats::default();
            for u in &own {
                sum.cpu_nanoseconds += u.stats.cpu_nanoseconds;
                sum.memory_working_set += u.stats.memory_working_set;
                sum.memory_usage += u.stats.memory_usage;
                sum.memory_rss += u.stats.memory_rss;
                sum.pids += u.stats.pids;
            }
            let containers: Vec<Value> = own
                .iter()
                .map(|u| {
                    let mut value = usage(&u.stats);
                    value["name"] = json!(u.container);
                    value["rootfs"] = json!({ "time": now, "usedBytes": u.stats.rootfs_bytes });
                    value
                })
                .collect();
            let mut value = usage(&sum);
            value["podRef"] = json!({ "name": spec::name(pod), "namespace": spec::namespace(pod), "uid": spec::uid(pod) });
            value["containers"] = json!(containers);
            value["process_stats"] = json!({ "process_count": sum.pids });
            value
        })
        .collect();
    let (total, free) = (machine::memory("MemTotal").unwrap_or(0), machine::memory("MemAvailable").unwrap_or(0));
    json!({
        "node": {
            "nodeName": ctx.config.node_name,
            "memory": { "time": now, "availableBytes": free, "workingSetBytes": total - free, "usageBytes": total - free },
        },
        "pods": listed,
    })
}

/// Text that a scraper reads.
pub async fn metrics(ctx: &Context, pods: &Pods) -> String {
    let mut out = String::from(
        "# HELP container_cpu_usage_seconds_total CPU time of the container.\n# TYPE container_cpu_usage_seconds_total counter\n",
    );
    let uses = uses(ctx, pods).await;
    let labels = |u: &Use| format!("{{container={:?},namespace={:?},pod={:?}}}", u.container, u.namespace, u.pod);
    for u in &uses {
        out.push_str(&format!("container_cpu_usage_seconds_total{} {}\n", labels(u), u.stats.cpu_nanoseconds as f64 / 1e9));
    }
    out.push_str("# HELP container_memory_working_set_bytes Memory in use.\n# TYPE container_memory_working_set_bytes gauge\n");
    for u in &uses {
        out.push_str(&format!("container_memory_working_set_bytes{} {}\n", labels(u), u.stats.memory_working_set));
    }
    out.push_str("# HELP kubelet_running_pods Pods that have a running sandbox.\n# TYPE kubelet_running_pods gauge\n");
    let running = pods.list().iter().filter(|(_, f)| f.sandbox.is_some()).count();
    out.push_str(&format!("kubelet_running_pods {running}\n"));
    out
}
