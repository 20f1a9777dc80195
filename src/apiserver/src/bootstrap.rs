//! What every cluster has from its first second: namespaces, default roles, priorities, the `kubernetes` Service.
//!
//! What exists is left as its owner made it, save that default roles and bindings get what a newer version adds to them.

mod keep;
mod reconcile;

use std::net::IpAddr;

use coracle_api::{catalogue::bootstrap, status::Status};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

pub(crate) use self::keep::run as keep;
use crate::{
    aggregation::{FRONT_PROXY, register},
    resource_metrics,
    server::{Config, Shared},
};

/// Writes at once: they share the store's syncs.
const AT_ONCE: usize = 64;
/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Why an object is missing.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name} was not written: {message}")]
pub struct BootstrapError {
    kind: String,
    name: String,
    message: String,
}

/// Creates what is missing, and makes the `kubernetes` endpoints those of this server.
pub(crate) async fn run(shared: &Shared, config: &Config, service_ips: &[IpAddr]) -> Result<(), BootstrapError> {
    create_all(shared, namespaces()).await?;
    // Roles and priority classes; a namespaced one lies in a namespace that now exists.
    settle_all(shared, bootstrap::objects().into_iter().chain([resource_metrics::reader_role()]).collect()).await?;
    create_all(shared, register::wanted(&shared.catalogue()).iter().map(register::Wanted::object).collect()).await?;
    create_all(shared, vec![extension_authentication(config)]).await?;
    if is_own(config.advertise_address) {
        // No pod could follow it, and no such address is valid in endpoints.
        tracing::warn!(address = %config.advertise_address, "pods will not reach the API server: the advertised address is this machine's own");
    }
    reachable(shared, config, service_ips).await
}

fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || address.is_unspecified()
}

/// Pods find the API server: by the Service and by where that leads.
async fn reachable(shared: &Shared, config: &Config, service_ips: &[IpAddr]) -> Result<(), BootstrapError> {
    create_all(shared, network(config, service_ips, shared.advertised.port())).await?;
    if is_own(config.advertise_address) {
        return Ok(());
    }
    let [endpoints, slice] = endpoints(config.advertise_address, shared.advertised.port());
    settle(shared, "", "endpoints", &endpoints).await?;
    settle(shared, "discovery.k8s.io", "endpointslices", &slice).await
}

fn namespaces() -> Vec<Value> {
    NAMESPACES.iter().map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).collect()
}

/// The network of Services and the one Service that is always there.
fn network(config: &Config, service_ips: &[IpAddr], port: u16) -> Vec<Value> {
    let cidrs: Vec<&str> = config.service_cidr.split(',').map(str::trim).collect();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service_ips.first().map(IpAddr::to_string),
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
            "sessionAffinity": "None",
        },
    });
    let cidr = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs},
    });
    vec![cidr, service]
}

/// Where the `kubernetes` Service leads: here.
fn endpoints(address: IpAddr, port: u16) -> [Value; 2] {
    let name = json!({"name": "kubernetes", "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": name,
        "subsets": [{"addresses": [{"ip": address.to_string()}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}],
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    [endpoints, slice]
}

/// What extension API servers need to know of us.
fn extension_authentication(config: &Config) -> Value {
    let list = |names: &[&str]| json!(names).to_string();
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
        "data": {
            "client-ca-file": config.authority.client_ca_pem(),
            "requestheader-client-ca-file": config.authority.front_proxy_ca_pem(),
            "requestheader-allowed-names": list(&[FRONT_PROXY]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        },
    })
}

async fn create_all(shared: &Shared, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let writes = objects.into_iter().map(|object| create(shared, object));
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<Vec<bool>>().await.map(drop)
}

/// Creates what is missing, and adds to roles and bindings what they lack.
async fn settle_all(shared: &Shared, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let writes = objects.into_iter().map(|object| settle_role(shared, object));
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

async fn settle_role(shared: &Shared, wanted: Value) -> Result<(), BootstrapError> {
    if create(shared, wanted.clone()).await? {
        return Ok(());
    }
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind, namespace, name) = (text("/apiVersion"), text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
    let (group, version) = version.split_once('/').unwrap_or(("", &version));
    let catalogue = shared.catalogue();
    let Some(resource) = catalogue.kind(group, version, &kind).map(|resource| resource.plural.as_str()) else { return Ok(()) };
    let there = shared.registry.get(group, resource, &namespace, &name);
    if there.is_none_or(|there| reconcile::settled(&there.value(), &wanted).is_none()) {
        return Ok(());
    }
    let mut merge = |old: &Value| reconcile::settled(old, &wanted).unwrap_or_else(|| old.clone());
    let changed = shared.registry.change(group, resource, &namespace, &name, &mut merge).await;
    changed.map(drop).map_err(|status| BootstrapError { kind, name: name.clone(), message: status.message })
}

/// Whether it was not there.
async fn create(shared: &Shared, object: Value) -> Result<bool, BootstrapError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    shared.registry.create_if_absent(object).await.map_err(|status| BootstrapError { kind, name, message: status.message })
}

/// Creates an object or gives it the fields that this server wants in it.
async fn settle(shared: &Shared, group: &str, resource: &str, wanted: &Value) -> Result<(), BootstrapError> {
    if create(shared, wanted.clone()).await? {
        return Ok(());
    }
    let text = |pointer: &str| wanted.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let fields = |object: &Value| ["subsets", "endpoints", "ports"].map(|field| object[field].clone());
    if shared.registry.get(group, resource, namespace, name).is_some_and(|there| fields(&there.value()) == fields(wanted)) {
        return Ok(());
    }
    let mut merge = |old: &Value| {
        let mut new = wanted.clone();
        new["metadata"] = old["metadata"].clone();
        new
    };
    let failed = |status: Status| BootstrapError { kind: resource.to_owned(), name: name.to_owned(), message: status.message };
    shared.registry.change(group, resource, namespace, name, &mut merge).await.map(drop).map_err(failed)
}
