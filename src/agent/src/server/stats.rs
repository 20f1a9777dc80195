//! What the node's pods use, read when it is asked for.

use serde_json::Value;

use crate::{
    certificate::Purpose,
    context::Context,
    eviction::signals,
    pods::Pods,
    stats::{
        self, cadvisor, node, resource, summary,
        text::{Kind, Text},
        volumes,
    },
};

/// The summary API's document.
pub async fn summary(ctx: &Context, pods: &Pods) -> Value {
    let uses = stats::read(ctx, pods).await;
    let images = ctx.runtime.image_filesystem().await.unwrap_or_default();
    let signals = signals::read(&ctx.config.data_dir, images.as_ref().map(|of| of.mountpoint.as_path()));
    let volumes = volumes::of(ctx, uses.iter().map(|of| &*of.pod)).await;
    summary::document(&ctx.config.node_name, &node::read(), &signals, images.as_ref(), &uses, &volumes, &ctx.rates)
}

/// `/metrics/resource`.
pub async fn resource(ctx: &Context, pods: &Pods) -> String {
    resource::text(&node::read(), &stats::read(ctx, pods).await, jiff::Timestamp::now().as_millisecond())
}

/// `/metrics/cadvisor`.
pub async fn cadvisor(ctx: &Context, pods: &Pods) -> String {
    let cores = std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1));
    let machine = cadvisor::Machine { cores, memory_bytes: ctx.memory_bytes };
    cadvisor::text(&ctx.config.version, machine, &node::read(), &stats::read(ctx, pods).await, jiff::Timestamp::now().as_millisecond())
}

/// `/metrics/probes`.
pub fn probes(ctx: &Context) -> String {
    ctx.probes.text()
}

/// `/metrics`: the agent itself.
pub async fn metrics(ctx: &Context, pods: &Pods) -> String {
    let list = pods.list();
    let count = |is: &dyn Fn(&crate::pod::worker::Facts) -> usize| list.iter().map(|(_, facts)| is(facts)).sum::<usize>();
    let mut out = Text::default();
    out.metric("kubelet_node_name", Kind::Gauge, "The node's name. The count is always 1.");
    out.sample("kubelet_node_name", &[("node", &ctx.config.node_name)], 1);
    out.metric("kubelet_running_pods", Kind::Gauge, "Number of pods that have a running pod sandbox");
    out.sample("kubelet_running_pods", &[], count(&|f| usize::from(f.sandbox.is_some())));
    out.metric("kubelet_running_containers", Kind::Gauge, "Number of containers currently running");
    let state = |alive: bool| count(&|f| f.runs.values().filter(|(.., a)| *a == alive).count());
    out.sample("kubelet_running_containers", &[("container_state", "exited")], state(false));
    out.sample("kubelet_running_containers", &[("container_state", "running")], state(true));
    out.metric("kubelet_desired_pods", Kind::Gauge, "The number of pods the kubelet is being instructed to run");
    out.sample("kubelet_desired_pods", &[("static", "")], list.len());
    ctx.meters.write(&mut out);
    certificates(ctx, &mut out);
    out.finish()
}

/// How long the node's certificates still hold.
fn certificates(ctx: &Context, out: &mut Text) {
    let now = jiff::Timestamp::now();
    for certificate in &ctx.config.certificates {
        let (name, help) = match certificate.purpose {
            Purpose::Serving { .. } => ("kubelet_certificate_manager_server_ttl_seconds", "Seconds until the serving certificate ends"),
            Purpose::Client => ("kubelet_certificate_manager_client_ttl_seconds", "Seconds until the client certificate ends"),
        };
        out.metric(name, Kind::Gauge, help);
        match certificate.shown.life(now) {
            Some((_, ends)) => out.sample(name, &[], ends.duration_since(now).as_secs()),
            None => out.sample(name, &[], "+Inf"),
        }
    }
}
