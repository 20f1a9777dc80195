//! `/stats/summary`: the kubelet's summary API.

use std::{collections::HashMap, time::Instant};

use coracle_runtime::{ContainerStats, ImageFilesystem};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    ContainerUse, PodUse,
    network::{INTERFACE, Traffic},
    node::NodeUse,
    rate::Rates,
    volumes::VolumeUse,
};
use crate::{
    eviction::signals::{Level, Signals},
    pod::spec,
};

/// The document.
pub fn document(
    node_name: &str,
    node: &NodeUse,
    signals: &Signals,
    images: Option<&ImageFilesystem>,
    pods: &[PodUse],
    volumes: &HashMap<String, Vec<VolumeUse>>,
    rates: &Rates,
) -> Value {
    let (now, at) = (Timestamp::now(), Instant::now());
    let cpu = |name: &str, nanoseconds: u64, time: Timestamp| {
        let mut out = json!({ "time": time, "usageCoreNanoSeconds": nanoseconds });
        if let Some(rate) = rates.of(name, nanoseconds, at) {
            out["usageNanoCores"] = json!(rate);
        }
        out
    };
    let image_disk = image_disk(signals, images, now);
    let disk = disk(signals.disk, signals.inodes, now);
    let mut listed = Vec::with_capacity(pods.len());
    for pod in pods {
        let uid = spec::uid(&pod.pod);
        let mut containers = Vec::with_capacity(pod.containers.len());
        for c in &pod.containers {
            let mut value = container(c, &disk, &image_disk);
            value["cpu"] = cpu(&c.status.spec.id.id, c.stats.cpu_nanoseconds, c.at);
            containers.push(value);
        }
        let sum = pod.sum();
        let volumes = volumes.get(uid).map_or(&[][..], Vec::as_slice);
        let written: u64 = pod.containers.iter().map(|c| c.stats.rootfs_bytes + c.log_bytes).sum();
        let stored = written + volumes.iter().filter(|v| v.on_disk).map(|v| v.taken.bytes).sum::<u64>();
        let mut value = json!({
            "podRef": { "name": spec::name(&pod.pod), "namespace": spec::namespace(&pod.pod), "uid": uid },
            "startTime": pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref()),
            "containers": containers,
            "cpu": cpu(uid, sum.cpu_nanoseconds, now),
            "memory": memory(&sum, None, now),
            "process_stats": { "process_count": sum.pids },
            "ephemeral-storage": used(&disk, stored),
        });
        if !volumes.is_empty() {
            value["volume"] = volumes.iter().map(volume).collect();
        }
        if let Some(traffic) = &pod.network {
            value["network"] = network(traffic, now);
        }
        listed.push(value);
    }
    let started_at = Timestamp::from_second(node.started_at).unwrap_or_default();
    json!({
        "node": {
            "nodeName": node_name,
            "startTime": started_at,
            "cpu": cpu("", node.cpu_nanoseconds, now),
            "memory": {
                "time": now,
                "availableBytes": node.memory_available,
                "usageBytes": node.memory_working_set,
                "workingSetBytes": node.memory_working_set,
                "rssBytes": node.memory_rss,
            },
            "fs": disk,
            "runtime": { "imageFs": image_disk, "containerFs": image_disk },
            "rlimit": { "time": now, "maxpid": signals.pids.capacity, "curproc": signals.pids.capacity.saturating_sub(signals.pids.available) },
        },
        "pods": listed,
    })
}

fn disk(bytes: Level, inodes: Level, now: Timestamp) -> Value {
    let taken = |level: Level| level.capacity.saturating_sub(level.available);
    json!({
        "time": now,
        "availableBytes": bytes.available,
        "capacityBytes": bytes.capacity,
        "usedBytes": taken(bytes),
        "inodesFree": inodes.available,
        "inodes": inodes.capacity,
        "inodesUsed": taken(inodes),
    })
}

/// The disk of the images; of a runtime that says so with what they take of it.
fn image_disk(signals: &Signals, images: Option<&ImageFilesystem>, now: Timestamp) -> Value {
    let mut out = disk(signals.image_disk, signals.image_inodes, now);
    if let Some(images) = images {
        out["usedBytes"] = json!(images.used_bytes);
        out["inodesUsed"] = json!(images.inodes_used);
    }
    out
}

/// The disk with what one thing takes of it.
fn used(disk: &Value, bytes: u64) -> Value {
    let mut out = disk.clone();
    out["usedBytes"] = json!(bytes);
    if let Some(fields) = out.as_object_mut() {
        fields.remove("inodesUsed");
    }
    out
}

fn volume(of: &VolumeUse) -> Value {
    json!({
        "name": of.name,
        "time": of.at,
        "availableBytes": of.bytes.available,
        "capacityBytes": of.bytes.capacity,
        "usedBytes": of.taken.bytes,
        "inodesFree": of.inodes.available,
        "inodes": of.inodes.capacity,
        "inodesUsed": of.taken.inodes,
    })
}

fn container(c: &ContainerUse, disk: &Value, image_disk: &Value) -> Value {
    let limit = c.status.spec.resources.memory_limit.and_then(|m| u64::try_from(m).ok()).filter(|m| *m > 0);
    json!({
        "name": c.name,
        "startTime": c.started_at(),
        "memory": memory(&c.stats, limit, c.at),
        "rootfs": used(image_disk, c.stats.rootfs_bytes),
        "logs": used(disk, c.log_bytes),
    })
}

fn memory(stats: &ContainerStats, limit: Option<u64>, time: Timestamp) -> Value {
    let mut out = json!({
        "time": time,
        "usageBytes": stats.memory_usage,
        "workingSetBytes": stats.memory_working_set,
        "rssBytes": stats.memory_rss,
    });
    if let Some(limit) = limit {
        out["availableBytes"] = json!(limit.saturating_sub(stats.memory_working_set));
    }
    out
}

fn network(traffic: &Traffic, time: Timestamp) -> Value {
    let own = json!({
        "name": INTERFACE,
        "rxBytes": traffic.received_bytes,
        "rxErrors": traffic.received_errors,
        "txBytes": traffic.sent_bytes,
        "txErrors": traffic.sent_errors,
    });
    let mut out = own.clone();
    out["time"] = json!(time);
    out["interfaces"] = json!([own]);
    out
}
