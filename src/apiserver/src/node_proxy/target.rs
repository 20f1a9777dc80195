//! Where a request to a node or a pod goes: pure, from the objects as they stand.

use coracle_api::status::Status;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::{endpoints, objects::Objects, request::Context};

/// Port of a node's server when its status names none.
const NODE_PORT: u16 = 10250;
/// What stands for itself in a path.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How the backend is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// A pod without TLS.
    Http,
    /// A pod with TLS.
    Https,
    /// A node: mutual TLS.
    Node,
}

/// A backend and the path there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// With the query.
    pub path: String,
}

impl Target {
    /// `10.0.0.1:10250`.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// The answer when it cannot be spoken to.
    pub fn unreachable(&self, error: &dyn std::error::Error) -> Status {
        let mut why = error.to_string();
        if let Some(source) = error.source() {
            why = format!("{why}: {source}");
        }
        match self.scheme {
            Scheme::Node => Status::internal(format!("error dialing backend: {}: {why}", self.authority())),
            Scheme::Http | Scheme::Https => {
                Status::new(503, "ServiceUnavailable", format!("error trying to reach service: {}: {why}", self.authority()))
            }
        }
    }
}

/// Where the request goes.
pub(super) fn find(objects: &dyn Objects, cx: &Context) -> Result<Target, Status> {
    match (cx.info.resource.as_str(), cx.info.subresource.as_str()) {
        ("nodes", _) => node_proxy(objects, cx),
        ("services", _) => service_proxy(objects, cx),
        (_, "proxy") => pod_proxy(objects, cx),
        (_, "portforward") => {
            let (pod, node) = pod_and_node(objects, cx)?;
            // The node calls the option by another name.
            let ports: Vec<_> =
                cx.query.iter().filter(|(key, _)| key == "ports").map(|(_, value)| ("port".to_owned(), value.clone())).collect();
            node_target(objects, &node, format!("/portForward/{}", place(&pod)), &ports)
        }
        (_, "log") => {
            let (pod, node) = pod_and_node(objects, cx)?;
            let container = container(&pod, cx.param("container"))?;
            let known = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];
            let query: Vec<_> = cx.query.iter().filter(|(key, _)| known.contains(&key.as_str())).cloned().collect();
            node_target(objects, &node, format!("/containerLogs/{}/{container}", place(&pod)), &query)
        }
        (_, action) => {
            let (pod, node) = pod_and_node(objects, cx)?;
            if matches!(pod.pointer("/status/phase").and_then(Value::as_str), Some("Succeeded" | "Failed")) {
                let phase = pod["status"]["phase"].as_str().unwrap_or_default();
                return Err(Status::bad_request(format!("cannot {action} into a container in a completed pod; current phase is {phase}")));
            }
            let container = container(&pod, cx.param("container"))?;
            node_target(objects, &node, format!("/{action}/{}/{container}", place(&pod)), &stream_query(&cx.query))
        }
    }
}

/// Whether the log of a pod is asked for that no node has yet: it is empty.
pub(super) fn is_silent(objects: &dyn Objects, cx: &Context) -> Result<bool, Status> {
    if (cx.info.resource.as_str(), cx.info.subresource.as_str()) != ("pods", "log") {
        return Ok(false);
    }
    let name = cx.info.name.as_str();
    let pod = objects.get("", "pods", &cx.info.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    container(&pod, cx.param("container"))?;
    Ok(pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty())
}

/// The parameters of exec and attach under the names that nodes know them by.
fn stream_query(query: &[(String, String)]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for (key, value) in query {
        let flag = match key.as_str() {
            "stdin" => "input",
            "stdout" => "output",
            "stderr" => "error",
            "tty" => "tty",
            "command" => {
                out.push((key.clone(), value.clone()));
                continue;
            }
            _ => continue,
        };
        if !matches!(value.to_ascii_lowercase().as_str(), "false" | "0") {
            out.push((flag.to_owned(), "1".to_owned()));
        }
    }
    out
}

fn pod_and_node(objects: &dyn Objects, cx: &Context) -> Result<(Value, String), Status> {
    let name = cx.info.name.as_str();
    let pod = objects.get("", "pods", &cx.info.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    match pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty()) {
        Some(node) => {
            let node = node.to_owned();
            Ok((pod, node))
        }
        None => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
    }
}

/// `namespace/name`, escaped.
fn place(pod: &Value) -> String {
    let part = |field: &str| utf8_percent_encode(pod["metadata"][field].as_str().unwrap_or_default(), SEGMENT).to_string();
    format!("{}/{}", part("namespace"), part("name"))
}

/// The container that is meant, which need not be named when there is only one.
fn container(pod: &Value, wanted: Option<&str>) -> Result<String, Status> {
    let names = |kind: &str| -> Vec<&str> {
        let list = pod["spec"][kind].as_array().into_iter().flatten();
        list.filter_map(|container| container["name"].as_str()).collect()
    };
    let (main, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    match wanted.filter(|name| !name.is_empty()) {
        Some(name) if main.iter().chain(&init).chain(&ephemeral).any(|known| *known == name) => {
            Ok(utf8_percent_encode(name, SEGMENT).to_string())
        }
        Some(name) => Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        None if main.len() == 1 => Ok(utf8_percent_encode(main[0], SEGMENT).to_string()),
        None => {
            let mut message = format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

pub(super) fn node_target(objects: &dyn Objects, name: &str, path: String, query: &[(String, String)]) -> Result<Target, Status> {
    let node = objects.get("", "nodes", "", name).ok_or_else(|| Status::not_found("", "nodes", name))?;
    let (host, port) = node_address(&node).ok_or_else(|| Status::internal(format!("no preferred addresses found for node {name:?}")))?;
    Ok(Target { scheme: Scheme::Node, host, port, path: with_query(path, query) })
}

fn with_query(path: String, query: &[(String, String)]) -> String {
    if query.is_empty() {
        return path;
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{query}")
}

/// The node's own address and the port of its server.
fn node_address(node: &Value) -> Option<(String, u16)> {
    let addresses = node.pointer("/status/addresses")?.as_array()?;
    let of = |kind: &str| addresses.iter().find(|address| address["type"] == kind).and_then(|address| address["address"].as_str());
    let host = of("InternalIP").or_else(|| of("ExternalIP")).or_else(|| of("Hostname"))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    Some((host.to_owned(), port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0).unwrap_or(NODE_PORT)))
}

/// `[https:]name[:port]`, as proxy paths name their target.
fn split(name: &str) -> Result<(Scheme, &str, &str), Status> {
    let parts: Vec<&str> = name.split(':').collect();
    let invalid = || Status::bad_request(format!("invalid proxy target {name:?}"));
    match parts[..] {
        [name] => Ok((Scheme::Http, name, "")),
        [name, port] => Ok((Scheme::Http, name, port)),
        ["" | "http", name, port] => Ok((Scheme::Http, name, port)),
        ["https", name, port] => Ok((Scheme::Https, name, port)),
        _ => Err(invalid()),
    }
}

fn rest(cx: &Context) -> String {
    with_query(format!("/{}", cx.info.rest), &cx.query)
}

fn node_proxy(objects: &dyn Objects, cx: &Context) -> Result<Target, Status> {
    let (_, name, port) = split(&cx.info.name)?;
    let mut target = node_target(objects, name, rest(cx), &[])?;
    if !port.is_empty() {
        target.port = port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?}")))?;
    }
    Ok(target)
}

fn pod_proxy(objects: &dyn Objects, cx: &Context) -> Result<Target, Status> {
    let (scheme, name, port) = split(&cx.info.name)?;
    let pod = objects.get("", "pods", &cx.info.namespace, name).ok_or_else(|| Status::not_found("", "pods", name))?;
    let host = pod.pointer("/status/podIP").and_then(Value::as_str).filter(|ip| !ip.is_empty());
    let host = host.ok_or_else(|| Status::bad_request("address not allowed"))?.to_owned();
    let ports = || pod["spec"]["containers"].as_array().into_iter().flatten().flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let of = |entry: &Value| entry["containerPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let port = match port {
        "" => ports().next().and_then(of).unwrap_or(if scheme == Scheme::Https { 443 } else { 80 }),
        port => match port.parse() {
            Ok(number) => number,
            Err(_) => ports()
                .find(|entry| entry["name"] == port)
                .and_then(of)
                .ok_or_else(|| Status::bad_request(format!("no port {port:?} in pod {name}")))?,
        },
    };
    Ok(Target { scheme, host, port, path: rest(cx) })
}

fn service_proxy(objects: &dyn Objects, cx: &Context) -> Result<Target, Status> {
    let (scheme, name, port) = split(&cx.info.name)?;
    let namespace = cx.info.namespace.as_str();
    let service = objects.get("", "services", namespace, name).ok_or_else(|| Status::not_found("", "services", name))?;
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    let number: Option<u64> = port.parse().ok();
    let chosen = match port {
        "" if ports.len() == 1 => Some(ports[0]),
        port => ports.into_iter().find(|entry| entry["name"] == port || (number.is_some() && entry["port"].as_u64() == number)),
    };
    let unavailable = |why: String| Status::new(503, "ServiceUnavailable", why);
    let chosen = chosen.ok_or_else(|| unavailable(format!("no service port {port:?} found for service {name:?}")))?;
    let port_name = chosen["name"].as_str().unwrap_or_default();
    let slices = objects.list("discovery.k8s.io", "endpointslices", namespace);
    let found = endpoints::ready(&slices, name, port_name).next();
    let found = found.ok_or_else(|| unavailable(format!("no endpoints available for service {name:?}")))?;
    Ok(Target { scheme, host: found.host.to_owned(), port: found.port, path: rest(cx) })
}

#[cfg(test)]
mod tests;
