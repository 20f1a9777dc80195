//! What every cluster has from its first second: namespaces, default roles, priorities, the `kubernetes` Service.
//!
//! Each object takes the way of any other write, as the user `system:apiserver`; what exists is left as its owner made it.

use std::net::IpAddr;

use bytes::Bytes;
use coracle_api::catalogue::bootstrap;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::{
    authorization::masters,
    request::{Context, User},
    request_info,
    server::{Config, Shared},
};

/// Writes at once: they share the store's syncs.
const AT_ONCE: usize = 64;
/// Namespaces of every cluster.
const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Why an object is missing.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// Not a kind that is served.
    #[error("{kind} {name} is of a kind that is not served")]
    Kind {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// Refused.
    #[error("{kind} {name} was not written: {code} {message}")]
    Refused {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// The status code.
        code: u16,
        /// What the answer says.
        message: String,
    },
}

/// Creates what is missing, and makes the `kubernetes` endpoints those of this server.
pub(crate) async fn run(shared: &Shared, config: &Config, service_ips: &[IpAddr]) -> Result<(), BootstrapError> {
    create_all(shared, namespaces()).await?;
    // Roles and priority classes; a namespaced one lies in a namespace that now exists.
    create_all(shared, bootstrap::objects()).await?;
    create_all(shared, network(config, service_ips, shared.advertised.port())).await?;
    create_all(shared, vec![extension_authentication(config)]).await?;
    for object in endpoints(config.advertise_address, shared.advertised.port()) {
        write(shared, &object, Existing::Replace).await?;
    }
    Ok(())
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
            "requestheader-allowed-names": list(&["system:auth-proxy"]),
            "requestheader-username-headers": list(&["X-Remote-User"]),
            "requestheader-uid-headers": list(&["X-Remote-Uid"]),
            "requestheader-group-headers": list(&["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        },
    })
}

async fn create_all(shared: &Shared, objects: Vec<Value>) -> Result<(), BootstrapError> {
    let writes = objects.iter().map(|object| write(shared, object, Existing::Keep));
    stream::iter(writes).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
}

/// What becomes of an object that is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

async fn write(shared: &Shared, object: &Value, existing: Existing) -> Result<(), BootstrapError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let (kind, name, namespace) = (text("/kind"), text("/metadata/name"), text("/metadata/namespace"));
    let api_version = text("/apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let unknown = || BootstrapError::Kind { kind: kind.to_owned(), name: name.to_owned() };
    let resource = shared.catalogue.kind(group, version, kind).ok_or_else(unknown)?;
    let there = shared.registry.get(group, &resource.plural, namespace, name);
    let mut path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    if resource.namespaced {
        path.push_str(&format!("/namespaces/{namespace}"));
    }
    path.push_str(&format!("/{}", resource.plural));
    let (method, body) = match there {
        Some(_) if existing == Existing::Keep => return Ok(()),
        Some(there) => {
            let mut wanted = object.clone();
            let mut now = there.value();
            let changed = ["subsets", "endpoints", "ports", "addressType"]
                .iter()
                .any(|field| now[*field] != wanted[*field] && !wanted[*field].is_null());
            if !changed {
                return Ok(());
            }
            wanted["metadata"] = now["metadata"].take();
            path.push_str(&format!("/{name}"));
            (Method::PUT, wanted.to_string())
        }
        None => (Method::POST, object.to_string()),
    };
    let refused = |code: u16, message: String| BootstrapError::Refused { kind: kind.to_owned(), name: name.to_owned(), code, message };
    let info = request_info::parse(&method, &path, &[]).map_err(|error| refused(400, error.to_string()))?;
    let user = User { name: "system:apiserver".into(), groups: vec![masters::GROUP.into()], ..User::default() };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let cx = Context { user, info, query: Vec::new(), method, headers };
    let answer = shared.registry.handle(&cx, Bytes::from(body)).await;
    let code = answer.status();
    // Another server of this cluster may have been faster.
    if code.is_success() || code.as_u16() == 409 {
        return Ok(());
    }
    let body = answer.into_body().collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
    let status: Value = serde_json::from_slice(&body).unwrap_or_default();
    Err(refused(code.as_u16(), status["message"].as_str().unwrap_or_default().to_owned()))
}
