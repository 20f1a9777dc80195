//! /etc/hosts, /etc/resolv.conf and the host name of a pod.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::pod::spec;

/// Host names longer than that are cut by Linux.
const HOSTNAME_BYTES: usize = 63;
/// Search domains that resolvers take.
const SEARCHES: usize = 32;
/// Bytes of the search list that resolvers take.
const SEARCH_BYTES: usize = 2048;
/// Nameservers that resolvers ask.
const NAMESERVERS: usize = 3;

/// Host name in the pod, and its full name where it has a subdomain.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec_ = pod.spec.as_ref();
    let of = |get: fn(&PodSpec) -> &Option<String>| spec_.and_then(|s| get(s).clone()).filter(|n| !n.is_empty());
    if let Some(name) = of(|s| &s.hostname_override) {
        return (name, None);
    }
    let mut short = of(|s| &s.hostname).unwrap_or_else(|| spec::name(pod).to_owned());
    if short.len() > HOSTNAME_BYTES {
        short.truncate(short.floor_char_boundary(HOSTNAME_BYTES));
        short.truncate(short.trim_end_matches(['-', '.']).len());
    }
    let full = of(|s| &s.subdomain).map(|sub| format!("{short}.{sub}.{}.svc.{cluster_domain}", spec::namespace(pod)));
    match full {
        Some(full) if spec_.and_then(|s| s.set_hostname_as_fqdn) == Some(true) => (full.clone(), Some(full)),
        full => (short, full),
    }
}

/// The hosts file of a pod in its own network.
pub fn hosts(pod: &Pod, addresses: &[IpAddr], cluster_domain: &str) -> String {
    let (name, full) = hostname(pod, cluster_domain);
    let mut out = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for address in addresses {
        match full.as_ref().filter(|f| **f != name) {
            Some(full) => out.push_str(&format!("{address}\t{full}\t{name}\n")),
            None => out.push_str(&format!("{address}\t{name}\n")),
        }
    }
    out + &aliases(pod)
}

/// The hosts file of a pod in the node's network: the node's own, and the pod's aliases.
pub fn node_hosts(pod: &Pod, of_node: &str) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{of_node}{}", aliases(pod))
}

fn aliases(pod: &Pod) -> String {
    let aliases = pod.spec.as_ref().and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases.iter().map(|a| format!("{}\t{}\n", a.ip, a.hostnames.as_deref().unwrap_or_default().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

/// A resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// `nameserver` lines.
    pub nameservers: Vec<String>,
    /// The `search` line.
    pub searches: Vec<String>,
    /// The `options` line.
    pub options: Vec<(String, Option<String>)>,
}

impl Resolver {
    /// Reads a resolv.conf; what it does not know it leaves out.
    pub fn parse(text: &str) -> Self {
        let mut out = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => out.nameservers.extend(words.next().map(str::to_owned)),
                Some("search") => out.searches = words.map(|w| if w == "." { w } else { w.trim_end_matches('.') }.to_owned()).collect(),
                Some("options") => out.options = words.map(option).collect(),
                _ => {}
            }
        }
        out
    }

    /// As a file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if !self.searches.is_empty() {
            out.push_str(&format!("search {}\n", self.searches.join(" ")));
        }
        for server in &self.nameservers {
            out.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            let words: Vec<String> =
                self.options.iter().map(|(k, v)| v.as_ref().map_or_else(|| k.clone(), |v| format!("{k}:{v}"))).collect();
            out.push_str(&format!("options {}\n", words.join(" ")));
        }
        out
    }
}

fn option(word: &str) -> (String, Option<String>) {
    word.split_once(':').map_or_else(|| (word.to_owned(), None), |(k, v)| (k.to_owned(), Some(v.to_owned())))
}

/// What the cluster gives.
#[derive(Clone, Debug)]
pub struct ClusterDns<'a> {
    /// Addresses of the cluster's DNS.
    pub nameservers: &'a [IpAddr],
    /// `cluster.local`.
    pub domain: &'a str,
}

/// The pod's resolver by its dnsPolicy and dnsConfig; `of_node` is the node's.
pub fn resolver(pod: &Pod, of_node: &Resolver, cluster: &ClusterDns<'_>) -> Resolver {
    let spec_ = pod.spec.as_ref();
    let policy = spec_.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec_.and_then(|s| s.host_network) == Some(true);
    let use_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !host_network,
        _ => false,
    } && !cluster.nameservers.is_empty();
    let mut out = if policy == "None" {
        Resolver::default()
    } else if use_cluster {
        let domain = cluster.domain;
        let own = [format!("{}.svc.{domain}", spec::namespace(pod)), format!("svc.{domain}"), domain.to_owned()];
        let mut searches: Vec<String> = own.into_iter().collect();
        searches.extend(of_node.searches.iter().filter(|s| *s != ".").cloned());
        Resolver {
            nameservers: cluster.nameservers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        }
    } else {
        of_node.clone()
    };
    if let Some(config) = spec_.and_then(|s| s.dns_config.as_ref()) {
        out.nameservers.extend(config.nameservers.iter().flatten().cloned());
        out.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let value = option.value.clone().filter(|v| !v.is_empty());
            match out.options.iter_mut().find(|(n, _)| *n == name) {
                Some(old) => old.1 = value,
                None => out.options.push((name, value)),
            }
        }
    }
    bounded(out)
}

fn bounded(mut resolver: Resolver) -> Resolver {
    let once = |list: Vec<String>| {
        let mut out: Vec<String> = Vec::new();
        for item in list {
            if !out.contains(&item) {
                out.push(item);
            }
        }
        out
    };
    resolver.nameservers = once(resolver.nameservers);
    resolver.nameservers.truncate(NAMESERVERS);
    resolver.searches = once(resolver.searches);
    resolver.searches.truncate(SEARCHES);
    while resolver.searches.iter().map(|s| s.len() + 1).sum::<usize>() > SEARCH_BYTES {
        resolver.searches.pop();
    }
    resolver
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": spec })).expect("a pod")
    }

    #[test]
    fn host_names() {
        let of = |spec: Value| hostname(&pod(spec), "cluster.local");
        let full = "box.sub.ns.svc.cluster.local";
        assert_eq!(of(json!({})), ("p".into(), None));
        assert_eq!(of(json!({ "hostname": "box", "subdomain": "sub" })), ("box".into(), Some(full.into())));
        assert_eq!(of(json!({ "hostname": "box", "subdomain": "sub", "setHostnameAsFQDN": true })), (full.into(), Some(full.into())));
        assert_eq!(of(json!({ "hostnameOverride": "very.other.name" })), ("very.other.name".into(), None));
    }

    #[test]
    fn hosts_files() {
        let pod = pod(json!({ "hostname": "box", "subdomain": "sub", "hostAliases": [{ "ip": "10.1.2.3", "hostnames": ["one", "two"] }] }));
        let text = hosts(&pod, &["10.42.0.2".parse().expect("ip")], "cluster.local");
        let end = "10.42.0.2\tbox.sub.ns.svc.cluster.local\tbox\n\n# Entries added by HostAliases.\n10.1.2.3\tone\ttwo\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn resolvers() {
        let node = Resolver::parse("# x\nnameserver 1.1.1.1\nsearch corp.example.\noptions rotate ndots:2\n");
        let servers = ["10.43.0.10".parse().expect("ip")];
        let cluster = ClusterDns { nameservers: &servers, domain: "cluster.local" };
        let of = |spec: Value| resolver(&pod(spec), &node, &cluster).text();
        assert_eq!(
            of(json!({})),
            "search ns.svc.cluster.local svc.cluster.local cluster.local corp.example\nnameserver 10.43.0.10\noptions ndots:5\n"
        );
        assert_eq!(of(json!({ "hostNetwork": true })), "search corp.example\nnameserver 1.1.1.1\noptions rotate ndots:2\n");
        assert_eq!(of(json!({ "dnsPolicy": "Default" })), of(json!({ "hostNetwork": true })));
        let config = json!({ "nameservers": ["192.0.2.9"], "searches": ["a.example"], "options": [{ "name": "ndots", "value": "1" }, { "name": "edns0" }] });
        assert_eq!(
            of(json!({ "dnsPolicy": "None", "dnsConfig": config })),
            "search a.example\nnameserver 192.0.2.9\noptions ndots:1 edns0\n"
        );
        assert!(of(json!({ "dnsConfig": config })).ends_with("nameserver 10.43.0.10\nnameserver 192.0.2.9\noptions ndots:1 edns0\n"));
    }
}
