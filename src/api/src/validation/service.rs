//! Services and what stands behind them.

use std::collections::HashSet;

use serde_json::Value;

use super::field::Field;
use super::rules::{cidr, ip, is_ip, labels, port, port_number, qualified_name};
use crate::names;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
/// Longest session affinity in seconds: a day.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn check(service: &Field<'_>, old: Option<&Value>, subresource: &str) {
    if subresource == "status" {
        return balancer_status(service);
    }
    let spec = service.at("spec");
    let kind = spec.at("type").text();
    let headless = spec.at("clusterIP").text() == "None";
    if spec.at("ports").is_empty() && !headless && kind != "ExternalName" {
        spec.at("ports").required("");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => spec.at("clusterIPs").invalid("may not be set to 'None' for this type of service"),
        "ExternalName" => {
            for name in ["clusterIPs", "ipFamilies"] {
                if !spec.at(name).is_empty() {
                    spec.at(name).forbidden("may not be set for ExternalName services");
                }
            }
            if spec.at("ipFamilyPolicy").exists() {
                spec.at("ipFamilyPolicy").forbidden("may not be set for ExternalName services");
            }
            let name = spec.at("externalName");
            match name.text().strip_suffix('.').unwrap_or(name.text()) {
                "" => name.required(""),
                text => {
                    if let Err(message) = names::dns_subdomain(text) {
                        name.invalid(&message);
                    }
                }
            }
        }
        _ => {}
    }
    ports(&spec, old.is_none());
    labels(&spec.at("selector"));
    let affinity = spec.at("sessionAffinity");
    affinity.required_one_of(&["ClientIP", "None"]);
    let config = spec.at("sessionAffinityConfig");
    if affinity.text() == "ClientIP" {
        let client = config.at("clientIP");
        let seconds = client.at("timeoutSeconds");
        if !seconds.exists() || !(1..=MAX_AFFINITY_SECONDS).contains(&seconds.number()) {
            seconds.invalid(&format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"));
        }
    } else if affinity.text() == "None" && config.exists() {
        config.forbidden("must not be set when session affinity is None");
    }
    addresses(&spec, old);
    spec.at("externalIPs").each(|_, address| {
        if is_ip(address.text()) {
            let parsed: Option<std::net::IpAddr> = address.text().parse().ok();
            if parsed.is_some_and(|ip| ip.is_loopback() || ip.is_unspecified() || ip.is_multicast()) {
                address.invalid("may not be unspecified, loopback or multicast");
            }
        } else {
            ip(&address);
        }
    });
    if spec.at("type").is_empty() {
        spec.at("type").required("")
    } else {
        spec.at("type").one_of(&["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"])
    }
    balancing(&spec, kind, old);
    traffic(&spec, kind);
}

fn ports(spec: &Field<'_>, new: bool) {
    let list = spec.at("ports");
    let several = list.list().len() > 1;
    let mut names: Vec<String> = Vec::new();
    let mut seen: HashSet<(i64, String)> = HashSet::new();
    // With the port that each was given to first.
    let mut node_ports: Vec<(i64, String, i64)> = Vec::new();
    let given = spec.at("type").text() == "NodePort"
        || (spec.at("type").text() == "LoadBalancer" && spec.at("allocateLoadBalancerNodePorts").value() != false);
    list.each(|_, entry| {
        let (name, number, protocol) = (entry.at("name"), entry.at("port"), entry.at("protocol"));
        if several && name.is_empty() {
            name.required("");
        } else if !name.is_empty() {
            name.valid_by(names::dns_label);
            if names.iter().any(|n| n == name.text()) {
                name.duplicate();
            }
            names.push(name.text().to_owned());
        }
        port_number(&number);
        protocol.required_one_of(&PROTOCOLS);
        port(&entry.at("targetPort"));
        entry.at("appProtocol").may_be_qualified();
        let key = (number.number(), protocol.text().to_owned());
        let node = entry.at("nodePort");
        if seen.contains(&key) {
            entry.duplicate();
            // Both are given the same node port.
            if new && given && node.number() == 0 {
                node.duplicate();
            }
        }
        seen.insert(key);
        if node.number() != 0 {
            if matches!(spec.at("type").text(), "ClusterIP" | "ExternalName") {
                node.forbidden("may not be used when `type` is 'ClusterIP'");
            }
            let mut others = node_ports.iter().filter(|(known, of, _)| (*known, of.as_str()) == (node.number(), protocol.text()));
            match others.next() {
                None => {}
                // Another port has taken it already.
                Some((.., first)) if new && *first != number.number() => node.invalid("provided port is already allocated"),
                Some(_) => node.duplicate(),
            }
            node_ports.push((node.number(), protocol.text().to_owned(), number.number()));
        }
    });
}

impl Field<'_> {
    fn may_be_qualified(&self) {
        if self.exists() {
            self.all_invalid(qualified_name(self.text()));
        }
    }
}

fn addresses(spec: &Field<'_>, old: Option<&Value>) {
    let families = spec.at("ipFamilies");
    families.each(|_, family| family.one_of(&["IPv4", "IPv6"]));
    spec.at("ipFamilyPolicy").optional_one_of(&["PreferDualStack", "RequireDualStack", "SingleStack"]);
    let ips = spec.at("clusterIPs");
    // Whoever says only the older field means the first of the list.
    let single = Value::from(vec![spec.at("clusterIP").value().clone()]);
    let only = ips.is_empty() && !spec.at("clusterIP").is_empty() && spec.at("type").text() != "ExternalName";
    let ips = if only { ips.holding(&single) } else { ips };
    let before = old.map_or(&Value::Null, |old| &old["spec"]);
    let kept = spec.at("type").text() != "ExternalName" && before["type"] != "ExternalName";
    ips.each(|i, address| {
        let found = address.found();
        let none = address.text() == "None";
        if none && i > 0 {
            address.invalid("'None' must be the first and only value");
        } else if !none && !address.is_empty() {
            ip(&address);
        }
        let changed = before["clusterIPs"][0].is_string() && &before["clusterIPs"][0] != address.value();
        if i == 0 && kept && changed && address.found() == found {
            address.invalid("may not change once set");
        }
    });
}

fn balancing(spec: &Field<'_>, kind: &str, old: Option<&Value>) {
    let ranges = spec.called("LoadBalancerSourceRanges");
    let ranges = ranges.holding(spec.at("loadBalancerSourceRanges").value());
    if !ranges.is_empty() {
        if kind != "LoadBalancer" {
            ranges.forbidden("may only be used when `type` is 'LoadBalancer'");
        }
        ranges.each(|_, range| {
            let trimmed = Value::from(range.text().trim());
            cidr(&range.holding(&trimmed));
        });
    }
    let allocate = spec.at("allocateLoadBalancerNodePorts");
    if kind != "LoadBalancer" && allocate.exists() {
        allocate.forbidden("may only be used when `type` is 'LoadBalancer'");
    }
    let class = spec.at("loadBalancerClass");
    if class.exists() && kind != "LoadBalancer" {
        class.forbidden("may only be used when `type` is 'LoadBalancer'");
    } else if class.exists() {
        class.all_invalid(qualified_name(class.text()));
        if old.is_some() {
            // Upstream looks at an update as at a new object too.
            class.all_invalid(qualified_name(class.text()));
        }
    }
    if let Some(old) = old
        && kind == "LoadBalancer"
        && old["spec"]["type"] == "LoadBalancer"
        && &old["spec"]["loadBalancerClass"] != class.value()
    {
        class.invalid("may not change once set");
    }
}

fn traffic(spec: &Field<'_>, kind: &str) {
    let (external, internal, health) = (spec.at("externalTrafficPolicy"), spec.at("internalTrafficPolicy"), spec.at("healthCheckNodePort"));
    let outside = matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && !spec.at("externalIPs").is_empty());
    if !external.is_empty() {
        if !outside {
            external.invalid("may only be set for externally-accessible services");
        }
        external.one_of(&["Cluster", "Local"]);
    } else if outside {
        external.required("");
    }
    internal.optional_one_of(&["Cluster", "Local"]);
    if health.number() < 0 {
        health.invalid("must be greater than 0");
    } else if health.number() > 0 && !(kind == "LoadBalancer" && external.text() == "Local") {
        health.invalid("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'");
    }
    spec.at("trafficDistribution").optional_one_of(&["PreferClose", "PreferSameNode", "PreferSameZone"]);
}

fn balancer_status(service: &Field<'_>) {
    let status = service.at("status");
    let balancer = status.at("loadBalancer");
    let spec = service.at("spec");
    if spec.at("type").text() != "LoadBalancer" && !balancer.at("ingress").is_empty() {
        balancer.at("ingress").forbidden("may only be used when `spec.type` is 'LoadBalancer'");
    }
    balancer.at("ingress").each(|_, ingress| {
        if !ingress.at("ip").is_empty() {
            ip(&ingress.at("ip"));
            ingress.at("ipMode").optional_one_of(&["Proxy", "VIP"]);
        } else if ingress.at("ipMode").exists() {
            ingress.at("ipMode").forbidden("may not be used when `ip` is not set");
        }
        ingress.at("hostname").may_be_valid(names::dns_subdomain);
    });
}

pub(super) fn endpoints(endpoints: &Field<'_>) {
    endpoints.at("subsets").each(|_, subset| {
        if subset.at("addresses").is_empty() && subset.at("notReadyAddresses").is_empty() {
            subset.required("must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            subset.at(list).each(|_, address| {
                usable_ip(&address.at("ip"));
                if !is_ip(address.at("ip").text()) {
                    ip(&address.at("ip")); // what is no address is not a usable one either
                }
                address.at("hostname").may_be_valid(names::dns_label);
                if address.at("nodeName").exists() {
                    address.at("nodeName").valid_by(names::dns_subdomain);
                }
            });
        }
        let several = subset.at("ports").list().len() > 1;
        subset.at("ports").each(|_, entry| {
            if several && entry.at("name").is_empty() {
                entry.at("name").required("");
            } else {
                entry.at("name").may_be_valid(names::dns_label);
            }
            port_number(&entry.at("port"));
            entry.at("protocol").required_one_of(&PROTOCOLS);
            entry.at("appProtocol").may_be_qualified();
        });
    });
}

/// An address that a packet can be sent to.
fn usable_ip(field: &Field<'_>) {
    ip(field);
    if let Ok(address) = field.text().parse::<std::net::IpAddr>() {
        let link_local = match address {
            std::net::IpAddr::V4(v4) => v4.is_link_local(),
            std::net::IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
        };
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local {
            field.invalid("may not be unspecified, loopback, link-local or multicast");
        }
    }
}

pub(super) fn endpoint_slice(slice: &Field<'_>, old: Option<&Value>) {
    /// Addresses that one endpoint may have.
    const MAX_ADDRESSES: usize = 100;
    let kind = slice.at("addressType");
    kind.required_one_of(&["FQDN", "IPv4", "IPv6"]);
    if let Some(old) = old {
        super::rules::immutable(&kind, &old["addressType"]);
    }
    let endpoints = slice.at("endpoints");
    // What was taken once stays.
    let unchanged = old.is_some_and(|old| &old["endpoints"] == endpoints.value());
    let checked = if unchanged { endpoints.holding(&Value::Null) } else { endpoints };
    checked.each(|_, endpoint| {
        let addresses = endpoint.at("addresses");
        if addresses.is_empty() {
            addresses.required("must contain at least 1 address");
        } else if addresses.list().len() > MAX_ADDRESSES {
            addresses.invalid("must have at most 100 items");
        }
        addresses.each(|_, address| match kind.text() {
            "IPv4" | "IPv6" => match address.text().parse::<std::net::IpAddr>() {
                Err(_) => address.invalid("must be a valid IP address"),
                Ok(ip) => {
                    if ip.is_ipv4() != (kind.text() == "IPv4") {
                        addresses.invalid(&format!("must be an {} address", kind.text()));
                    }
                    usable_ip(&address);
                }
            },
            "FQDN" if address.is_empty() => address.required(""),
            "FQDN" => {
                address.valid_by(names::dns_subdomain);
                if names::dns_subdomain(address.text()).is_ok() && !address.text().contains('.') {
                    address.invalid("should be a domain with at least two segments separated by dots");
                }
            }
            _ => {}
        });
        if endpoint.at("hostname").exists() {
            endpoint.at("hostname").valid_by(names::dns_label);
        }
        if endpoint.at("nodeName").exists() {
            endpoint.at("nodeName").valid_by(names::dns_subdomain);
        }
        let hints = endpoint.at("hints");
        hints.at("forZones").each(|_, zone| zone.at("name").valid_by(names::label_value));
        hints.at("forNodes").each(|_, node| node.at("name").valid_by(names::dns_subdomain));
    });
    let mut names: Vec<String> = Vec::new();
    slice.at("ports").each(|_, entry| {
        let name = entry.at("name");
        if names.iter().any(|n| n == name.text()) {
            name.duplicate();
        }
        names.push(name.text().to_owned());
        name.may_be_valid(names::dns_label);
        entry.at("protocol").required_one_of_or_empty(&PROTOCOLS);
        entry.at("appProtocol").may_be_qualified();
    });
}

impl Field<'_> {
    fn required_one_of_or_empty(&self, allowed: &[&str]) {
        if self.exists() { self.one_of(allowed) } else { self.required("") }
    }
}
