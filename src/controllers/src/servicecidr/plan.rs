//! ServiceCIDR: ready as long as it is wanted; it goes when no address of a Service would be left without a range.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

use crate::{
    condition::{self, Says},
    plan::{Patch, Plan, Target},
    waiting::Waiting,
};

/// Keeps a range until its addresses are free.
pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// Allocators of other servers may take from a range until they have seen that it goes.
const GRACE: SignedDuration = SignedDuration::from_secs(10);
/// Label of addresses with their keeper, and the API servers in it.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");

/// What the runner saw.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The range.
    pub cidr: &'a ServiceCIDR,
    /// All ranges; asked for only when it wants to go.
    pub all: &'a [Arc<ServiceCIDR>],
    /// All addresses; asked for only when it wants to go.
    pub addresses: &'a [Arc<IPAddress>],
    /// Now, in whole seconds.
    pub now: Timestamp,
}

/// The next step.
pub fn plan(seen: &Observed<'_>) -> Plan {
    let cidr = seen.cidr;
    let finalizers = cidr.metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|f| f == FINALIZER);
    let mut plan = Plan::default();
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        if !has {
            let mut finalizers = finalizers;
            finalizers.push(FINALIZER.into());
            plan.patches.push(Patch::merge(Target::of(cidr), json!({"metadata": {"finalizers": finalizers}})));
        }
        plan.status = says(seen, true, "", "Kubernetes Service CIDR is ready");
        return plan;
    };
    if !has {
        return plan;
    }
    if let Some(address) = orphan(seen) {
        let text = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        plan.status = says(seen, false, "Terminating", text);
        plan.waiting.push(Waiting::AddressFree { address });
        return plan;
    }
    let ends = deleted.0.checked_add(GRACE).unwrap_or(Timestamp::MAX);
    if ends > seen.now {
        plan.requeue_at = Some(ends);
        plan.waiting.push(Waiting::Time { until: ends });
        return plan;
    }
    let left: Vec<&String> = finalizers.iter().filter(|f| *f != FINALIZER).collect();
    plan.patches.push(Patch::merge(Target::of(cidr), json!({"metadata": {"finalizers": left}})));
    plan
}

fn says(seen: &Observed<'_>, holds: bool, reason: &'static str, message: &str) -> Option<Patch> {
    let before = seen.cidr.status.clone().unwrap_or_default();
    let mut after = before;
    let says = Says { type_: "Ready", holds, reason, message, generation: None };
    condition::set(after.conditions.get_or_insert_default(), &says, seen.now);
    Patch::status(Target::of(seen.cidr), seen.cidr.status.as_ref(), &after)
}

fn networks(cidr: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten()).filter_map(|text| text.parse().ok())
}

/// An address that would be in no range any more.
fn orphan(seen: &Observed<'_>) -> Option<IpAddr> {
    let others: Vec<IpNet> =
        seen.all.iter().filter(|other| other.metadata.uid != seen.cidr.metadata.uid).flat_map(|other| networks(other)).collect();
    // A network that lies in another whole one leaves nobody behind.
    let alone: Vec<IpNet> = networks(seen.cidr).filter(|own| !others.iter().any(|other| other.contains(own))).collect();
    let ours = seen
        .addresses
        .iter()
        .filter(|address| address.metadata.labels.as_ref().and_then(|l| l.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1));
    let mut addresses = ours.filter_map(|address| address.metadata.name.as_deref()?.parse::<IpAddr>().ok());
    addresses.find(|ip| alone.iter().any(|own| own.contains(ip)) && !others.iter().any(|other| other.contains(ip)))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn cidr(name: &str, networks: &[&str], metadata: Value) -> Arc<ServiceCIDR> {
        let mut object = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {"cidrs": networks}});
        crate::merge::apply(&mut object["metadata"], &metadata);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn address(ip: &str) -> Arc<IPAddress> {
        let labels = json!({MANAGED_BY.0: MANAGED_BY.1});
        let parent = json!({"resource": "services", "namespace": "a", "name": "s"});
        Arc::new(serde_json::from_value(json!({"metadata": {"name": ip, "labels": labels}, "spec": {"parentRef": parent}})).unwrap())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_new_range_is_kept_and_ready() {
        let new = cidr("a", &["10.0.0.0/24"], json!({}));
        let seen = Observed { cidr: &new, all: &[], addresses: &[], now: at("2026-01-01T00:00:00Z") };
        let plan = plan(&seen);
        assert_eq!(plan.patches[0].body["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(plan.status.unwrap().body["status"]["conditions"][0]["status"], "True");
    }

    #[test]
    fn a_range_goes_when_nobody_is_left_behind() {
        let leaving = json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER, "other"]});
        let check = |others: &[&str], addresses: &[&str], now: &str, expected: &str| {
            let own = cidr("own", &["10.0.0.0/24"], leaving.clone());
            let all: Vec<_> = others.iter().map(|network| cidr(network, &[network], json!({}))).chain([own.clone()]).collect();
            let addresses: Vec<_> = addresses.iter().map(|ip| address(ip)).collect();
            let plan = plan(&Observed { cidr: &own, all: &all, addresses: &addresses, now: at(now) });
            let done = match (plan.patches.first(), &plan.status, plan.requeue_at) {
                (Some(patch), ..) => patch.body["metadata"]["finalizers"].to_string(),
                (None, Some(status), _) => status.body["status"]["conditions"][0]["reason"].to_string(),
                (None, None, again) => format!("{again:?}"),
            };
            assert_eq!(done, expected);
        };
        let late = "2026-01-01T00:01:00Z";
        check(&[], &[], late, r#"["other"]"#);
        check(&[], &["10.0.1.1"], late, r#"["other"]"#);
        check(&[], &["10.0.0.1"], late, r#""Terminating""#);
        check(&["10.0.0.0/16"], &["10.0.0.1"], late, r#"["other"]"#);
        check(&["10.0.0.0/28"], &["10.0.0.1"], late, r#"["other"]"#);
        check(&["10.0.0.0/28"], &["10.0.0.100"], late, r#""Terminating""#);
        check(&[], &[], "2026-01-01T00:00:04Z", "Some(2026-01-01T00:00:10Z)");
    }
}
