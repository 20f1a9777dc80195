//! The Service kube-dns and the EndpointSlice behind it, kept as they should be.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use coracle_client::{Informer, Informers, Key};
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{Config, FIRST_WAIT, LONGEST_WAIT, watch::SERVICE_LABEL};

/// Where both are.
const NAMESPACE: &str = "kube-system";
/// Name of the Service: what the field looks for.
const SERVICE: &str = "kube-dns";
/// Says who keeps an EndpointSlice.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// That we do.
const MANAGED_BY: &str = "coracle-dns";
/// Of DNS.
const PORT: i32 = 53;

/// Name of a node's EndpointSlice in `kube-system`: each node's resident has its own. It is there as soon as DNS answers on the node.
pub fn slice_name(node: &str) -> String {
    format!("{SERVICE}-{node}")
}

/// Keeps both until the end: when the resident's address changes, and when somebody else changes them.
pub async fn keep(config: &Config, client: Client, informers: &Informers, mut address: watch::Receiver<Option<SocketAddr>>) {
    let (services, slices) = (informers.of::<Service>(), informers.of::<EndpointSlice>());
    let ring = Arc::new(Notify::new());
    let bell = ring.clone();
    services.observe(move |old, new| {
        if ours(old.map(|o| Key::of(&**o)), new.map(|o| Key::of(&**o)), SERVICE) {
            bell.notify_one();
        }
    });
    let (bell, name) = (ring.clone(), slice_name(&config.node_name));
    slices.observe(move |old, new| {
        if ours(old.map(|o| Key::of(&**o)), new.map(|o| Key::of(&**o)), &name) {
            bell.notify_one();
        }
    });
    tokio::join!(services.synced(), slices.synced());
    let mut wait = FIRST_WAIT;
    loop {
        let at = *address.borrow_and_update();
        match settle(config, &client, &services, &slices, at).await {
            Ok(()) => {
                wait = FIRST_WAIT;
                tokio::select! {
                    () = ring.notified() => {}
                    // The sender outlives us: both end together.
                    _ = address.changed() => {}
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the Service kube-dns is not as it should be, trying again");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

fn ours(old: Option<Key>, new: Option<Key>, name: &str) -> bool {
    new.or(old).is_some_and(|key| &*key.namespace == NAMESPACE && &*key.name == name)
}

async fn settle(
    config: &Config,
    client: &Client,
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    at: Option<SocketAddr>,
) -> kube::Result<()> {
    let found = services.lister().get(&Key::new(NAMESPACE, SERVICE));
    let wanted = service(config.cluster_dns);
    write(&Api::namespaced(client.clone(), NAMESPACE), SERVICE, &wanted, service_step(found.as_deref(), &wanted)).await?;
    let Some(at) = at else { return Ok(()) };
    let name = slice_name(&config.node_name);
    let found = slices.lister().get(&Key::new(NAMESPACE, name.as_str()));
    let (api, wanted) = (Api::namespaced(client.clone(), NAMESPACE), slice(at, &config.node_name));
    write(&api, &name, &wanted, slice_step(found.as_deref(), &wanted)).await?;
    for stale in slices.lister().list().iter().filter(|found| is_stale(found, &wanted)) {
        write(&api, stale.metadata.name.as_deref().unwrap_or_default(), &wanted, Step::Delete).await?;
    }
    Ok(())
}

/// What an object needs to be as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Create,
    Patch,
    /// What cannot be changed differs.
    Replace,
    /// It should not be there.
    Delete,
}

async fn write<K>(api: &Api<K>, name: &str, wanted: &K, step: Step) -> kube::Result<()>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let create = || async {
        match api.create(&PostParams::default(), wanted).await {
            // The informer has not seen it yet; it will, and wake us.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            result => result.map(drop),
        }
    };
    match step {
        Step::Nothing => Ok(()),
        Step::Create => create().await,
        Step::Patch => match api.patch(name, &PatchParams::default(), &Patch::Merge(wanted)).await {
            Err(kube::Error::Api(status)) if status.reason == "NotFound" => create().await,
            result => result.map(drop),
        },
        Step::Replace | Step::Delete => match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.reason != "NotFound" => Err(kube::Error::Api(status)),
            Err(error) if !matches!(error, kube::Error::Api(_)) => Err(error),
            _ if step == Step::Delete => Ok(()),
            _ => create().await,
        },
    }
}

fn service(ip: IpAddr) -> Service {
    let port = |name: &str, protocol: &str| ServicePort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: PORT,
        target_port: Some(IntOrString::Int(PORT)),
        ..ServicePort::default()
    };
    let labels = [("k8s-app", "kube-dns"), ("kubernetes.io/cluster-service", "true"), ("kubernetes.io/name", "CoreDNS")];
    Service {
        metadata: metadata(SERVICE, &labels),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            cluster_ip: Some(ip.to_string()),
            cluster_ips: Some(vec![ip.to_string()]),
            ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn slice(at: SocketAddr, node: &str) -> EndpointSlice {
    let port = |name: &str, protocol: &str| EndpointPort {
        name: Some(name.into()),
        protocol: Some(protocol.into()),
        port: Some(at.port().into()),
        ..EndpointPort::default()
    };
    EndpointSlice {
        metadata: metadata(&slice_name(node), &[("k8s-app", "kube-dns"), (SERVICE_LABEL, SERVICE), (MANAGED_BY_LABEL, MANAGED_BY)]),
        address_type: if at.is_ipv4() { "IPv4" } else { "IPv6" }.into(),
        endpoints: Some(vec![Endpoint {
            addresses: vec![at.ip().to_string()],
            conditions: Some(EndpointConditions { ready: Some(true), serving: Some(true), terminating: Some(false) }),
            node_name: Some(node.into()),
            ..Endpoint::default()
        }]),
        ports: Some(vec![port("dns", "UDP"), port("dns-tcp", "TCP")]),
    }
}

fn metadata(name: &str, labels: &[(&str, &str)]) -> ObjectMeta {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ObjectMeta { name: Some(name.into()), namespace: Some(NAMESPACE.into()), labels: Some(labels), ..ObjectMeta::default() }
}

fn service_step(found: Option<&Service>, wanted: &Service) -> Step {
    let Some(found) = found else { return Step::Create };
    if found.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    let (Some(has), Some(wants)) = (&found.spec, &wanted.spec) else { return Step::Replace };
    // A selector would bring another EndpointSlice, and a merge patch cannot take away keys that it does not know.
    if has.cluster_ip != wants.cluster_ip || has.selector.as_ref().is_some_and(|selector| !selector.is_empty()) {
        return Step::Replace;
    }
    let ports = |spec: &ServiceSpec| {
        let ports = spec.ports.iter().flatten();
        ports.map(|p| (p.name.clone(), p.protocol.clone(), p.port, p.target_port.clone())).collect::<Vec<_>>()
    };
    let same = ports(has) == ports(wants) && has.type_ == wants.type_ && has_labels(&found.metadata, &wanted.metadata);
    if same { Step::Nothing } else { Step::Patch }
}

fn slice_step(found: Option<&EndpointSlice>, wanted: &EndpointSlice) -> Step {
    let Some(found) = found else { return Step::Create };
    if found.metadata.deletion_timestamp.is_some() {
        return Step::Nothing;
    }
    if found.address_type != wanted.address_type {
        return Step::Replace;
    }
    let same = found.endpoints == wanted.endpoints && found.ports == wanted.ports && has_labels(&found.metadata, &wanted.metadata);
    if same { Step::Nothing } else { Step::Patch }
}

/// Whether it is of our making, for this node and this node alone, under a name of another build.
fn is_stale(found: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let node = |slice: &EndpointSlice| slice.endpoints.iter().flatten().map(|endpoint| endpoint.node_name.clone()).collect::<Vec<_>>();
    let ours = found.metadata.namespace == wanted.metadata.namespace && has_labels(&found.metadata, &wanted.metadata);
    ours && found.metadata.name != wanted.metadata.name && found.metadata.deletion_timestamp.is_none() && node(found) == node(wanted)
}

/// Those that we want; others may be there.
fn has_labels(found: &ObjectMeta, wanted: &ObjectMeta) -> bool {
    let none = BTreeMap::new();
    let found = found.labels.as_ref().unwrap_or(&none);
    wanted.labels.iter().flatten().all(|(key, value)| found.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<K: Clone>(step: fn(Option<&K>, &K) -> Step, wanted: &K, change: impl FnOnce(&mut K), expected: Step) {
        let mut found = wanted.clone();
        change(&mut found);
        assert_eq!(step(Some(&found), wanted), expected);
    }

    #[test]
    fn the_service_comes_back_to_what_it_should_be() {
        let wanted = service([10, 43, 0, 10].into());
        assert_eq!(service_step(None, &wanted), Step::Create);
        check(service_step, &wanted, |_| {}, Step::Nothing);
        check(service_step, &wanted, |s| s.metadata.labels = None, Step::Patch);
        check(service_step, &wanted, |s| drop(s.metadata.labels.get_or_insert_default().insert("own".into(), "1".into())), Step::Nothing);
        check(service_step, &wanted, |s| s.spec.iter_mut().for_each(|s| s.ports = None), Step::Patch);
        check(service_step, &wanted, |s| s.spec.iter_mut().for_each(|s| s.cluster_ip = Some("10.43.0.11".into())), Step::Replace);
        check(
            service_step,
            &wanted,
            |s| s.spec.iter_mut().for_each(|s| s.selector = Some([("a".into(), "b".into())].into())),
            Step::Replace,
        );
    }

    #[test]
    fn the_slice_follows_the_resident() {
        let wanted = slice(([10, 42, 0, 1], 5353).into(), "n");
        assert_eq!(slice_step(None, &wanted), Step::Create);
        check(slice_step, &wanted, |_| {}, Step::Nothing);
        check(slice_step, &wanted, |s| *s = slice(([10, 42, 0, 1], 5354).into(), "n"), Step::Patch);
        check(slice_step, &wanted, |s| *s = slice(([10, 42, 0, 1], 5353).into(), "m"), Step::Patch);
        check(slice_step, &wanted, |s| s.address_type = "IPv6".into(), Step::Replace);
    }

    #[test]
    fn other_nodes_have_slices_of_their_own() {
        let wanted = slice(([10, 42, 0, 1], 5353).into(), "n");
        let named = |mut slice: EndpointSlice, name: &str| {
            slice.metadata.name = Some(name.into());
            slice
        };
        let others = slice(([10, 42, 1, 1], 5353).into(), "m");
        assert_ne!(wanted.metadata.name, others.metadata.name);
        let somebodys = EndpointSlice { metadata: metadata("x", &[(SERVICE_LABEL, SERVICE)]), ..wanted.clone() };
        for (found, stale) in [
            (wanted.clone(), false),
            (others.clone(), false),
            (named(others, "kube-dns"), false),
            (somebodys, false),
            (named(wanted.clone(), "kube-dns"), true),
        ] {
            assert_eq!(is_stale(&found, &wanted), stale, "{found:?}");
        }
    }
}
