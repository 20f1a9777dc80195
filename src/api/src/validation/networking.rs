//! Ingresses, network policies, address ranges.

use serde_json::Value;

use super::field::Field;
use super::rules::{cidr, immutable, is_cidr, label_selector, port_name, port_number, wildcard_subdomain};
use crate::catalogue::Resource;
use crate::names;

pub(super) fn check(resource: &Resource, object: &Field<'_>, old: Option<&Value>) {
    let spec = object.at("spec");
    match resource.plural.as_str() {
        "ingresses" => ingress(&spec),
        "ingressclasses" => ingress_class(&spec, old),
        "networkpolicies" => policy(&spec),
        "servicecidrs" => {
            let ranges = spec.at("cidrs");
            if ranges.is_empty() {
                ranges.required("at least one CIDR required");
            } else if ranges.list().len() > 2 {
                ranges.invalid("may only hold up to 2 values");
            }
            ranges.each(|_, range| cidr(&range));
            if let Some(old) = old {
                unchanging_ranges(&ranges, &old["spec"]["cidrs"]);
            }
        }
        "ipaddresses" => {
            let parent = spec.at("parentRef");
            if !parent.exists() {
                parent.required("");
                return;
            }
            parent.at("group").may_be_valid(names::dns_subdomain);
            for name in ["resource", "name"] {
                parent.at(name).must_be_valid(names::path_segment);
            }
            parent.at("namespace").may_be_valid(names::path_segment);
        }
        _ => {}
    }
}

/// Services have their addresses from these: all that may come is a range of the other family.
fn unchanging_ranges(ranges: &Field<'_>, old: &Value) {
    let before = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let kept = ranges.list().len() == before.len() || (before.len() == 1 && ranges.list().len() == 2);
    if !kept {
        return immutable(ranges, old);
    }
    ranges.each(|i, range| {
        if let Some(before) = before.get(i) {
            immutable(&range, before);
        }
    });
}

fn ingress(spec: &Field<'_>) {
    if spec.at("rules").is_empty() && !spec.at("defaultBackend").exists() {
        spec.invalid("either `defaultBackend` or `rules` must be specified");
    }
    if spec.at("defaultBackend").exists() {
        backend(&spec.at("defaultBackend"));
    }
    spec.at("rules").each(|_, rule| {
        let host = rule.at("host");
        if super::rules::is_ip(host.text()) {
            host.invalid("must be a DNS name, not an IP address");
        } else {
            host.may_be_valid(wildcard_subdomain);
        }
        let http = rule.at("http");
        if !http.exists() {
            return;
        }
        http.at("paths").must_exist();
        http.at("paths").each(|_, entry| {
            let (path, kind) = (entry.at("path"), entry.at("pathType"));
            if !kind.exists() {
                kind.required("pathType must be specified");
                return;
            }
            {
                match kind.text() {
                    "Exact" | "Prefix" if !path.text().starts_with('/') => path.invalid("must be an absolute path"),
                    "Exact" | "Prefix" => {
                        for part in ["//", "/./", "/../", "%2f", "%2F"] {
                            if path.text().contains(part) {
                                path.invalid(&format!("must not contain '{part}'"));
                            }
                        }
                    }
                    "ImplementationSpecific" if !path.is_empty() && !path.text().starts_with('/') => {
                        path.invalid("must be an absolute path")
                    }
                    "ImplementationSpecific" => {}
                    _ => kind.not_supported(&["Exact", "ImplementationSpecific", "Prefix"]),
                }
            }
            backend(&entry.at("backend"));
        });
    });
    spec.at("tls").each(|_, tls| {
        tls.at("hosts").each(|_, host| host.valid_by(wildcard_subdomain));
    });
    let class = spec.at("ingressClassName");
    if class.exists() {
        class.valid_by(names::dns_subdomain);
    }
}

fn backend(backend: &Field<'_>) {
    let (service, resource) = (backend.at("service"), backend.at("resource"));
    match (service.exists(), resource.exists()) {
        (true, true) => return backend.invalid("cannot set both resource and service backends"),
        (false, false) => return backend.invalid("resource or service backend is required"),
        (false, true) => {
            let group = resource.at("apiGroup");
            if group.exists() && !group.is_empty() {
                group.valid_by(names::dns_subdomain);
            }
            for name in ["kind", "name"] {
                resource.at(name).must_exist();
            }
            return;
        }
        (true, false) => {}
    }
    let name = service.at("name");
    name.must_be_valid(names::dns_1035_label);
    let port = service.at("port");
    let (named, number) = (port.at("name"), port.at("number"));
    match (named.is_empty(), number.number() == 0) {
        (false, false) => backend.invalid("cannot set both port name & port number"),
        (true, true) => backend.required("port name or number is required"),
        (false, true) => named.all_invalid(port_name(named.text())),
        (true, false) => port_number(&number),
    }
}

fn ingress_class(spec: &Field<'_>, old: Option<&Value>) {
    /// Longest name of a controller, in bytes.
    const MAX_CONTROLLER: usize = 250;
    let controller = spec.at("controller");
    if controller.must_exist() {
        if controller.text().len() > MAX_CONTROLLER {
            controller.too_long(MAX_CONTROLLER);
        }
        let (domain, path) = controller.text().split_once('/').unwrap_or((controller.text(), ""));
        if path.is_empty() || names::dns_subdomain(domain).is_err() {
            controller.invalid("must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
    }
    let parameters = spec.at("parameters");
    if parameters.exists() {
        let group = parameters.at("apiGroup");
        if group.exists() {
            group.valid_by(names::dns_subdomain);
        }
        for name in ["kind", "name"] {
            parameters.at(name).must_be_valid(names::path_segment);
        }
        let (scope, namespace) = (parameters.at("scope"), parameters.at("namespace"));
        match scope.text() {
            "Namespace" if !namespace.exists() || namespace.is_empty() => {
                namespace.required("is required when parameters.scope is set to 'Namespace'")
            }
            "Namespace" => namespace.valid_by(names::dns_label),
            "Cluster" if namespace.exists() => namespace.forbidden("should not be set when parameters.scope is set to 'Cluster'"),
            "Cluster" => {}
            _ => scope.not_supported(&["Cluster", "Namespace"]),
        }
    }
    if let Some(old) = old {
        immutable(&controller, &old["spec"]["controller"]);
    }
}

fn policy(spec: &Field<'_>) {
    label_selector(&spec.at("podSelector"));
    for (rules, peers) in [("ingress", "from"), ("egress", "to")] {
        spec.at(rules).each(|_, rule| {
            rule.at("ports").each(|_, port| {
                port.at("protocol").optional_one_of(&["SCTP", "TCP", "UDP"]);
                let (number, end) = (port.at("port"), port.at("endPort"));
                if number.value().is_string() {
                    if end.exists() {
                        end.invalid("may not be specified when `port` is non-numeric");
                    }
                    number.all_invalid(port_name(number.text()));
                } else if number.exists() {
                    port_number(&number);
                    if end.exists() {
                        if end.number() < number.number() {
                            end.invalid("must be greater than or equal to `port`");
                        }
                        port_number(&end);
                    }
                } else if end.exists() {
                    end.invalid("may not be specified when `port` is not specified");
                }
            });
            rule.at(peers).each(|_, peer| self::peer(&peer));
        });
    }
    let types = spec.at("policyTypes");
    if types.list().len() > 2 {
        types.invalid("may not specify more than two policyTypes");
    } else {
        types.each(|_, kind| kind.one_of(&["Egress", "Ingress"]));
    }
}

fn peer(peer: &Field<'_>) {
    let (pods, namespaces, block) = (peer.at("podSelector"), peer.at("namespaceSelector"), peer.at("ipBlock"));
    label_selector(&pods);
    label_selector(&namespaces);
    if block.exists() {
        let range = block.at("cidr");
        if range.is_empty() {
            range.required("");
        } else {
            cidr(&range);
            block.at("except").each(|_, except| {
                if !is_cidr(except.text()) {
                    cidr(&except);
                } else if is_cidr(range.text()) && !is_within(except.text(), range.text()) {
                    except.invalid("must be a strict subset of `cidr`");
                }
            });
        }
        if pods.exists() || namespaces.exists() {
            peer.forbidden("may not specify both ipBlock and another peer");
        }
    } else if !pods.exists() && !namespaces.exists() {
        peer.required("must specify a peer");
    }
}

/// Whether an address range lies inside another and is smaller.
fn is_within(inner: &str, outer: &str) -> bool {
    let parse = |text: &str| -> Option<(std::net::IpAddr, u32)> {
        let (ip, bits) = text.split_once('/')?;
        Some((ip.parse().ok()?, bits.parse().ok()?))
    };
    let bits_of = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(ip) => (u128::from(u32::from(ip)) << 96, true),
        std::net::IpAddr::V6(ip) => (u128::from(ip), false),
    };
    let (Some((a, a_bits)), Some((b, b_bits))) = (parse(inner), parse(outer)) else { return false };
    let ((a, a_four), (b, b_four)) = (bits_of(a), bits_of(b));
    let mask = u128::MAX.checked_shl(128 - b_bits).unwrap_or(0);
    a_four == b_four && a_bits > b_bits && a & mask == b & mask
}
