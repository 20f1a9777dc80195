//! The node's Lease: the heartbeat by which the cluster knows that it lives.

use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::config::Config;

/// Where node Leases live.
const NAMESPACE: &str = "kube-node-lease";

/// Writes the Lease as held from now on; creates it where it is not there. `uid` is the node's.
pub async fn renew(client: &Client, config: &Config, uid: &str, now: Timestamp) -> Result<(), kube::Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    let renewed =
        json!({ "spec": { "holderIdentity": config.node_name, "renewTime": MicroTime(now), "leaseDurationSeconds": seconds(config) } });
    match leases.patch(&config.node_name, &PatchParams::default(), &Patch::Merge(&renewed)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: config.node_name.clone(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta { name: Some(config.node_name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(config.node_name.clone()),
            lease_duration_seconds: Some(seconds(config)),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await.map(drop)
}

fn seconds(config: &Config) -> i32 {
    i32::try_from(config.lease_period.as_secs().saturating_mul(4)).unwrap_or(40)
}
