//! Services: addresses, families and node ports, filled in, carried over from the last state, or dropped with the type that needs them.

use std::net::IpAddr;

use coracle_api::status::Cause;
use serde_json::{Value, json};

use super::meta;
use crate::allocator::{AllocateError, Holding, Reservation};

/// Brings a Service into the form that its type asks for and takes what it needs. `random` is asked for each free number.
pub fn allocate(
    service: &mut Value,
    old: Option<&Value>,
    reservation: &mut Reservation,
    random: &mut dyn FnMut() -> u64,
) -> Result<(), Vec<Cause>> {
    in_step(service, old);
    if let Some(old) = old {
        carry_over(service, old);
    }
    drop_unused(service, old);
    let had = old.map(Holding::of).unwrap_or_default();
    families(service, &reservation.families());
    addresses(service, &had, reservation, random)?;
    node_ports(service, &had, reservation, random)
}

fn kind(service: &Value) -> &str {
    service["spec"]["type"].as_str().unwrap_or("ClusterIP")
}

fn has_cluster_ip(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

fn has_node_ports(service: &Value) -> bool {
    match kind(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn is_local_balancer(service: &Value) -> bool {
    kind(service) == "LoadBalancer" && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn first_ip(service: &Value) -> &str {
    service["spec"]["clusterIP"].as_str().unwrap_or_default()
}

/// `clusterIP` and `clusterIPs` say the same; whoever knows only the former changes both.
fn in_step(service: &mut Value, old: Option<&Value>) {
    let ip = first_ip(service).to_owned();
    let spec = meta::map(service, "spec");
    let unset = spec.get("clusterIPs").and_then(Value::as_array).is_none_or(Vec::is_empty);
    match old {
        None => {
            if !ip.is_empty() && unset {
                spec.insert("clusterIPs".into(), json!([ip]));
            }
        }
        Some(old) => {
            let same_list = spec.get("clusterIPs") == old["spec"].get("clusterIPs");
            let before = old["spec"]["clusterIP"].as_str().unwrap_or_default();
            if ip.is_empty() && !before.is_empty() {
                if same_list {
                    spec.remove("clusterIPs");
                }
            } else if (ip != before && (same_list || unset)) || (!ip.is_empty() && unset) {
                spec.insert("clusterIPs".into(), json!([ip]));
            }
        }
    }
}

/// What an update leaves out stays as it was given.
fn carry_over(service: &mut Value, old: &Value) {
    if has_cluster_ip(service) && has_cluster_ip(old) {
        let spec = meta::map(service, "spec");
        let empty = |value: Option<&Value>| value.is_none_or(|v| v.is_null() || v == "" || v.as_array().is_some_and(Vec::is_empty));
        if empty(spec.get("clusterIP")) && empty(spec.get("clusterIPs")) {
            for field in ["clusterIP", "clusterIPs"] {
                meta::put(spec, field, old["spec"].get(field).cloned());
            }
        }
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if empty(spec.get(field)) {
                meta::put(spec, field, old["spec"].get(field).cloned());
            }
        }
    }
    if has_node_ports(service) && has_node_ports(old) {
        let before = old["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ports = ports_mut(service);
        let chosen: Vec<Value> = ports.iter().filter(|p| is_port(&p["nodePort"])).map(|p| p["nodePort"].clone()).collect();
        for port in ports.iter_mut().filter(|port| !is_port(&port["nodePort"])) {
            let same = before.iter().find(|b| b["port"] == port["port"] && protocol(b) == protocol(port));
            if let Some(number) = same.map(|b| &b["nodePort"]).filter(|n| is_port(n) && !chosen.contains(n)) {
                port["nodePort"] = number.clone();
            }
        }
    }
    if is_local_balancer(service) && is_local_balancer(old) && !is_port(&service["spec"]["healthCheckNodePort"]) {
        meta::put(meta::map(service, "spec"), "healthCheckNodePort", old["spec"].get("healthCheckNodePort").cloned());
    }
}

fn is_port(value: &Value) -> bool {
    value.as_i64().is_some_and(|port| port != 0)
}

fn ports_mut(service: &mut Value) -> &mut [Value] {
    service.get_mut("spec").and_then(|spec| spec.get_mut("ports")?.as_array_mut()).map(Vec::as_mut_slice).unwrap_or_default()
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

/// What a type does not have goes, when it is only left over from the type before.
fn drop_unused(service: &mut Value, old: Option<&Value>) {
    let Some(old) = old else { return };
    if has_cluster_ip(old) && !has_cluster_ip(service) {
        let spec = meta::map(service, "spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field) == old["spec"].get(field) {
                spec.remove(field);
            }
        }
    }
    let unchanged = |service: &Value, field: &str| service["spec"][field] == old["spec"][field];
    if has_node_ports(old) && !has_node_ports(service) {
        let numbers =
            |s: &Value| -> Vec<Value> { s["spec"]["ports"].as_array().into_iter().flatten().map(|p| p["nodePort"].clone()).collect() };
        let before = numbers(old);
        if numbers(service).iter().all(|number| number.is_null() || before.contains(number)) {
            for port in ports_mut(service).iter_mut().filter_map(Value::as_object_mut) {
                port.remove("nodePort");
            }
        }
    }
    if is_local_balancer(old) && !is_local_balancer(service) && unchanged(service, "healthCheckNodePort") {
        meta::map(service, "spec").remove("healthCheckNodePort");
    }
    if kind(old) == "LoadBalancer" && kind(service) != "LoadBalancer" {
        for field in ["loadBalancerClass", "allocateLoadBalancerNodePorts", "loadBalancerIP", "loadBalancerSourceRanges"] {
            if unchanged(service, field) && field != "loadBalancerSourceRanges" {
                meta::map(service, "spec").remove(field);
            }
        }
        service["status"] = json!({"loadBalancer": {}});
    }
    let external = |service: &Value| match kind(service) {
        "ClusterIP" => service["spec"]["externalIPs"].as_array().is_some_and(|ips| !ips.is_empty()),
        kind => matches!(kind, "NodePort" | "LoadBalancer"),
    };
    if external(old) && !external(service) && unchanged(service, "externalTrafficPolicy") {
        meta::map(service, "spec").remove("externalTrafficPolicy");
    }
    if kind(service) == "ExternalName" && kind(old) != "ExternalName" && unchanged(service, "internalTrafficPolicy") {
        meta::map(service, "spec").remove("internalTrafficPolicy");
    }
}

/// `ipFamilyPolicy` and `ipFamilies`, of what is asked for and what the cluster has.
fn families(service: &mut Value, cluster: &[&'static str]) {
    if !has_cluster_ip(service) {
        return;
    }
    let spec = meta::map(service, "spec");
    let list = |field: &str| -> Vec<String> {
        spec.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let (ips, mut families) = (list("clusterIPs"), list("ipFamilies"));
    let headless = ips.first().is_some_and(|ip| ip == "None");
    let selects = spec.get("selector").and_then(Value::as_object).is_some_and(|s| !s.is_empty());
    let family_of = |ip: &str| ip.parse::<IpAddr>().ok().map(|ip| if ip.is_ipv6() { "IPv6" } else { "IPv4" });
    let asked = spec.get("ipFamilyPolicy").and_then(Value::as_str).map(str::to_owned);
    let policy = asked.unwrap_or_else(|| {
        let two = ips.len() == 2 || families.len() == 2;
        if (headless && !selects) || two { "RequireDualStack" } else { "SingleStack" }.to_owned()
    });
    for (at, family) in ips.iter().filter_map(|ip| family_of(ip)).enumerate() {
        if families.len() <= at {
            families.push(family.to_owned());
        }
    }
    let both = policy == "RequireDualStack" || (policy == "PreferDualStack" && (cluster.len() > 1 || (headless && !selects)));
    if families.is_empty() {
        families.push(cluster.first().copied().unwrap_or("IPv4").to_owned());
    }
    if both && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_owned());
    }
    if policy == "SingleStack" {
        families.truncate(1);
    }
    spec.insert("ipFamilyPolicy".into(), policy.into());
    spec.insert("ipFamilies".into(), families.into());
}

fn invalid(field: &str, value: &Value, error: &AllocateError) -> Vec<Cause> {
    let message = format!("Invalid value: {value}: {error}");
    vec![Cause { reason: "FieldValueInvalid", field: field.to_owned(), message }]
}

fn no_port(field: &str, number: u64) -> Vec<Cause> {
    let message = format!("Invalid value: {number}: must be between 1 and 65535, inclusive");
    vec![Cause { reason: "FieldValueInvalid", field: field.to_owned(), message }]
}

fn full(field: &str, error: &AllocateError) -> Vec<Cause> {
    vec![Cause { reason: "InternalError", field: field.to_owned(), message: format!("Internal error: failed to allocate: {error}") }]
}

fn addresses(service: &mut Value, had: &Holding, reservation: &mut Reservation, random: &mut dyn FnMut() -> u64) -> Result<(), Vec<Cause>> {
    if !has_cluster_ip(service) || first_ip(service) == "None" {
        return Ok(());
    }
    let spec = meta::map(service, "spec");
    let mut ips: Vec<String> =
        spec.get("clusterIPs").and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    for ip in &ips {
        let Ok(address) = ip.parse::<IpAddr>() else { return Ok(()) };
        if !had.addresses.contains(&address) {
            let all = json!(ips);
            reservation.address(address).map_err(|error| invalid("spec.clusterIPs", &all, &error))?;
        }
    }
    let families: Vec<String> =
        spec.get("ipFamilies").and_then(Value::as_array).into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    for family in families.iter().skip(ips.len()) {
        match reservation.any_address(family, random()) {
            Ok(address) => ips.push(address.to_string()),
            // A family that the cluster does not have.
            Err(error @ AllocateError::OutOfRange) => return Err(invalid("spec.ipFamilies", &json!(families), &error)),
            Err(error) => return Err(full("spec.clusterIPs", &error)),
        }
    }
    ips.truncate(families.len().max(1));
    if let Some(first) = ips.first() {
        spec.insert("clusterIP".into(), first.as_str().into());
        spec.insert("clusterIPs".into(), ips.into());
    }
    Ok(())
}

fn node_ports(
    service: &mut Value,
    had: &Holding,
    reservation: &mut Reservation,
    random: &mut dyn FnMut() -> u64,
) -> Result<(), Vec<Cause>> {
    let needed = has_node_ports(service);
    let exposed = matches!(kind(service), "NodePort" | "LoadBalancer");
    let local = is_local_balancer(service);
    let ports = ports_mut(service);
    // Ports by number and protocol: one node port serves TCP and UDP of the same service port.
    let mut given: Vec<(u64, String, u16)> = Vec::new();
    if exposed {
        // Those that are asked for first, so that no free choice takes them.
        for (index, port) in ports.iter().enumerate() {
            let Some(wanted) = port["nodePort"].as_u64().filter(|n| *n > 0) else { continue };
            let field = format!("spec.ports[{index}].nodePort");
            let number = u16::try_from(wanted).map_err(|_| no_port(&field, wanted))?;
            let shared = given.iter().any(|(_, other, n)| *n == number && *other != protocol(port));
            if !had.ports.contains(&number) && !shared {
                reservation.port(number).map_err(|error| invalid(&field, &port["nodePort"], &error))?;
            }
            given.push((port["port"].as_u64().unwrap_or(0), protocol(port).to_owned(), number));
        }
    }
    if needed {
        for (index, port) in ports.iter_mut().enumerate() {
            if is_port(&port["nodePort"]) {
                continue;
            }
            let (number, with) = (port["port"].as_u64().unwrap_or(0), protocol(port).to_owned());
            let free = |n: u16| !given.iter().any(|(_, other, taken)| *taken == n && *other == with);
            let twin = given.iter().find(|(p, other, n)| *p == number && *other != with && free(*n)).map(|(_, _, n)| *n);
            let node_port = match twin {
                Some(node_port) => node_port,
                None => reservation.any_port(random()).map_err(|error| full(&format!("spec.ports[{index}].nodePort"), &error))?,
            };
            port["nodePort"] = node_port.into();
            given.push((number, with, node_port));
        }
    }
    if local {
        let spec = meta::map(service, "spec");
        match spec.get("healthCheckNodePort").and_then(Value::as_u64).filter(|n| *n > 0).and_then(|n| u16::try_from(n).ok()) {
            Some(number) if had.ports.contains(&number) => {}
            Some(number) => {
                reservation.port(number).map_err(|error| invalid("spec.healthCheckNodePort", &number.into(), &error))?;
            }
            None => {
                let number = reservation.any_port(random()).map_err(|error| full("spec.healthCheckNodePort", &error))?;
                spec.insert("healthCheckNodePort".into(), number.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
