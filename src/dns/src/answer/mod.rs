//! What a question is answered with: a plain function of the records, the question and who asks (Kubernetes DNS specification 1.1.0).
//!
//! Short and external names cost one round trip: a resolver asks `name.<its namespace>.svc.<domain>` first and would walk its search list in
//! vain, so the first question is answered with what the walk would have found in the end. The asker's namespace is known by its address.

use std::net::IpAddr;

use crate::records::{Records, Service, dashed};

/// Of every record that we make, in seconds; short, because endpoints come and go.
pub const TTL_SECONDS: u32 = 5;

/// Aliases of the cluster's own that are followed: a longer chain is a mistake, or a ring.
const MAX_ALIASES: usize = 8;

/// What is asked, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Services' ports and hosts.
    Srv,
    /// Names of an address.
    Ptr,
    /// Text.
    Txt,
    /// An alias.
    Cname,
    /// Everything there is.
    Any,
    /// Anything else: we have none of it.
    Other,
}

/// One record of an answer; names are without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// CNAME.
    Alias(String),
    /// SRV: port and target.
    Service(u16, String),
    /// PTR.
    Pointer(String),
    /// TXT.
    Text(String),
}

/// An answer, or where to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Records, each under its name, in order; and addresses of SRV targets.
    Found {
        /// `(name, data)`.
        records: Vec<(String, Data)>,
        /// The same, beside the answer.
        additional: Vec<(String, Data)>,
    },
    /// The name exists, but not with this type.
    NoData,
    /// There is no such name.
    NoName,
    /// Ask upstream for this name; what comes is put behind the aliases that lead to it.
    Forward {
        /// Aliases from the question to `name`.
        aliases: Vec<(String, Data)>,
        /// What to ask for.
        name: String,
        /// When upstream knows no such name either: say `NoName` of the question, without the aliases.
        search: bool,
    },
}

/// Answers `name` (lower case, without the last dot) for the asker at `from`.
pub fn answer(records: &Records, domain: &str, name: &str, kind: Kind, from: IpAddr) -> Answer {
    if let Some(ip) = reversed(name) {
        return pointer(records, domain, name, ip, kind);
    }
    let Some(relative) = below(name, domain) else {
        return Answer::Forward { aliases: Vec::new(), name: name.to_owned(), search: false };
    };
    let answer = match in_domain(records, domain, name, relative, kind) {
        Answer::NoName => searched(records, domain, name, relative, kind, from).unwrap_or(Answer::NoName),
        answer => answer,
    };
    followed(records, domain, kind, answer)
}

/// An external name of the cluster's own domain is answered here: upstream knows none of them.
fn followed(records: &Records, domain: &str, kind: Kind, mut answer: Answer) -> Answer {
    for _ in 0..MAX_ALIASES {
        let Answer::Forward { aliases, name, search } = &answer else { return answer };
        let Some(relative) = below(name, domain) else { return answer };
        let mut chain = aliases.clone();
        answer = match in_domain(records, domain, name, relative, kind) {
            Answer::Found { records, additional } => {
                chain.extend(records);
                Answer::Found { records: chain, additional }
            }
            Answer::Forward { aliases, name, .. } => {
                chain.extend(aliases);
                Answer::Forward { aliases: chain, name, search: false }
            }
            Answer::NoName if *search => Answer::NoName,
            // The alias is all there is to tell.
            Answer::NoData | Answer::NoName => Answer::Found { records: chain, additional: Vec::new() },
        };
    }
    match answer {
        Answer::Forward { aliases, .. } => Answer::Found { records: aliases, additional: Vec::new() },
        answer => answer,
    }
}

/// `relative` is the name without the domain.
fn in_domain(records: &Records, domain: &str, name: &str, relative: &str, kind: Kind) -> Answer {
    let labels: Vec<&str> = if relative.is_empty() { Vec::new() } else { relative.split('.').collect() };
    match labels[..] {
        [] | ["svc"] | ["pod"] => Answer::NoData,
        ["dns-version"] => typed(name, kind, &[Data::Text("1.1.0".into())]),
        [namespace, "svc" | "pod"] => exists(records.has_namespace(namespace)),
        [ip, namespace, "pod"] => match undashed(ip).filter(|_| records.has_namespace(namespace)) {
            Some(ip) => typed(name, kind, &[Data::Address(ip)]),
            None => Answer::NoName,
        },
        [service, namespace, "svc"] => match records.service(namespace, service) {
            Some(found) => of_service(found, name, kind),
            None => Answer::NoName,
        },
        [host, service, namespace, "svc"] if !host.starts_with('_') => match records.service(namespace, service) {
            Some(found) => of_host(found, name, host, kind),
            None => Answer::NoName,
        },
        // `_tcp.web.ns.svc`: an empty name above the SRV records.
        [_, service, namespace, "svc"] => exists(records.service(namespace, service).is_some()),
        [port, protocol, service, namespace, "svc"] => {
            match (records.service(namespace, service), port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(found), Some(port), Some(protocol)) => of_port(found, domain, name, (service, namespace), (port, protocol), kind),
                _ => Answer::NoName,
            }
        }
        _ => Answer::NoName,
    }
}

fn of_service(service: &Service, name: &str, kind: Kind) -> Answer {
    if let Some(external) = &service.external {
        let alias = (name.to_owned(), Data::Alias(external.clone()));
        return match kind {
            Kind::Cname => Answer::Found { records: vec![alias], additional: Vec::new() },
            _ => Answer::Forward { aliases: vec![alias], name: external.clone(), search: false },
        };
    }
    if kind == Kind::Srv {
        return all_ports(service, name);
    }
    let addresses: Vec<Data> = service.ips.iter().copied().chain(service.endpoints.iter().map(|e| e.ip)).map(Data::Address).collect();
    // A headless Service without endpoints has no address: that is no name, as the specification has it.
    if addresses.is_empty() { Answer::NoName } else { typed(name, kind, &addresses) }
}

fn of_host(service: &Service, name: &str, host: &str, kind: Kind) -> Answer {
    let matching: Vec<Data> = service
        .endpoints
        .iter()
        .filter(|e| e.label().eq_ignore_ascii_case(host) || dashed(e.ip) == host)
        .map(|e| Data::Address(e.ip))
        .collect();
    if matching.is_empty() { Answer::NoName } else { typed(name, kind, &matching) }
}

/// SRV of the Service's own name: every named port.
fn all_ports(service: &Service, name: &str) -> Answer {
    let mut pairs: Vec<(&str, &str)> = service
        .ports
        .iter()
        .chain(service.endpoints.iter().flat_map(|e| &e.ports))
        .map(|p| (p.name.as_str(), p.protocol.as_str()))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let (mut records, mut additional) = (Vec::new(), Vec::new());
    for pair in pairs {
        if let Answer::Found { records: more, additional: beside } = targets(service, name, name, pair) {
            records.extend(more);
            additional.extend(beside.into_iter().filter(|b| !additional.contains(b)).collect::<Vec<_>>());
        }
    }
    if records.is_empty() { Answer::NoData } else { Answer::Found { records, additional } }
}

fn of_port(service: &Service, domain: &str, name: &str, (svc, ns): (&str, &str), port: (&str, &str), kind: Kind) -> Answer {
    let base = format!("{svc}.{ns}.svc.{domain}");
    match targets(service, &base, name, port) {
        Answer::NoData => Answer::NoName,
        found if matches!(kind, Kind::Srv | Kind::Any) => found,
        _ => Answer::NoData,
    }
}

/// SRV records of one named port, and the addresses of their targets. `base` is the Service's own name.
fn targets(service: &Service, base: &str, name: &str, (port, protocol): (&str, &str)) -> Answer {
    let (mut records, mut additional) = (Vec::new(), Vec::new());
    let meant = |p: &&crate::records::Port| p.name.eq_ignore_ascii_case(port) && p.protocol == protocol && !p.name.is_empty();
    for found in service.ports.iter().filter(meant) {
        records.push((name.to_owned(), Data::Service(found.number, base.to_owned())));
        additional.extend(service.ips.iter().map(|ip| (base.to_owned(), Data::Address(*ip))));
    }
    for endpoint in &service.endpoints {
        for found in endpoint.ports.iter().filter(meant) {
            let target = format!("{}.{base}", endpoint.label());
            additional.push((target.clone(), Data::Address(endpoint.ip)));
            records.push((name.to_owned(), Data::Service(found.number, target)));
        }
    }
    if records.is_empty() { Answer::NoData } else { Answer::Found { records, additional } }
}

fn pointer(records: &Records, domain: &str, name: &str, ip: IpAddr, kind: Kind) -> Answer {
    let Some(names) = records.reverse.get(&ip) else {
        return Answer::Forward { aliases: Vec::new(), name: name.to_owned(), search: false };
    };
    let full = |(ns, svc, host): &(String, String, String)| {
        let dot = if host.is_empty() { "" } else { "." };
        Data::Pointer(format!("{host}{dot}{svc}.{ns}.svc.{domain}"))
    };
    typed(name, kind, &names.iter().map(full).collect::<Vec<_>>())
}

/// What a walk of the search list that begins at `name` would find; `None`: this is not the beginning of one.
fn searched(records: &Records, domain: &str, name: &str, relative: &str, kind: Kind, from: IpAddr) -> Option<Answer> {
    let namespace = records.pods.get(&from)?;
    let short = relative.strip_suffix(".svc")?.strip_suffix(namespace.as_str())?.strip_suffix('.').filter(|s| !s.is_empty())?;
    // A label with an underscore at the front is a service's port, which nobody searches for.
    for next in [format!("{short}.svc"), short.to_owned()] {
        let full = format!("{next}.{domain}");
        let alias = || (name.to_owned(), Data::Alias(full.clone()));
        match in_domain(records, domain, &full, &next, kind) {
            Answer::NoName => {}
            Answer::Found { records, additional } => {
                return Some(Answer::Found { records: std::iter::once(alias()).chain(records).collect(), additional });
            }
            Answer::Forward { aliases, name, search } => {
                return Some(Answer::Forward { aliases: std::iter::once(alias()).chain(aliases).collect(), name, search });
            }
            // The resolver would stop here too: the name exists.
            Answer::NoData => return Some(Answer::NoData),
        }
    }
    Some(Answer::Forward { aliases: vec![(name.to_owned(), Data::Alias(short.to_owned()))], name: short.to_owned(), search: true })
}

/// Those of the wanted type; `NoData` when there are none.
fn typed(name: &str, kind: Kind, data: &[Data]) -> Answer {
    let wanted = |d: &&Data| match d {
        Data::Address(IpAddr::V4(_)) => matches!(kind, Kind::A | Kind::Any),
        Data::Address(IpAddr::V6(_)) => matches!(kind, Kind::Aaaa | Kind::Any),
        Data::Alias(_) => matches!(kind, Kind::Cname | Kind::Any),
        Data::Service(..) => matches!(kind, Kind::Srv | Kind::Any),
        Data::Pointer(_) => matches!(kind, Kind::Ptr | Kind::Any),
        Data::Text(_) => matches!(kind, Kind::Txt | Kind::Any),
    };
    let records: Vec<(String, Data)> = data.iter().filter(wanted).map(|d| (name.to_owned(), d.clone())).collect();
    if records.is_empty() { Answer::NoData } else { Answer::Found { records, additional: Vec::new() } }
}

fn exists(yes: bool) -> Answer {
    if yes { Answer::NoData } else { Answer::NoName }
}

/// The part of `name` in front of `domain`; empty for the domain itself.
fn below<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    match name.strip_suffix(domain)? {
        "" => Some(""),
        rest => rest.strip_suffix('.'),
    }
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` stands for.
fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let mut parts: Vec<&str> = octets.split('.').collect();
        parts.reverse();
        return (parts.len() == 4).then(|| parts.join(".").parse().ok())?;
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let mut digits: Vec<&str> = nibbles.split('.').collect();
    digits.reverse();
    if digits.len() != 32 || digits.iter().any(|d| d.len() != 1) {
        return None;
    }
    u128::from_str_radix(&digits.concat(), 16).ok().map(|bits| IpAddr::V6(bits.into()))
}

/// The address that a label with dashes stands for.
fn undashed(label: &str) -> Option<IpAddr> {
    label.replace('-', ".").parse().ok().map(IpAddr::V4).or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

#[cfg(test)]
mod tests;
