//! Cluster addresses and node ports of Services: given once each, taken back when the Service goes. What is given is read off the Services
//! themselves at start, so nothing else has to survive; the IPAddress objects say it to others.

pub mod bitmap;
pub mod range;
pub mod records;

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnet::IpNet;
use serde_json::Value;

use bitmap::Bitmap;
use range::{Range, RangeError};

/// What a Service holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Cluster addresses.
    pub addresses: Vec<IpAddr>,
    /// Node ports, the one of health checks included; each once.
    pub ports: Vec<u16>,
}

impl Holding {
    /// Read off a Service.
    pub fn of(service: &Value) -> Self {
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Self::default();
        }
        let mut addresses: Vec<IpAddr> =
            spec["clusterIPs"].as_array().into_iter().flatten().filter_map(|ip| ip.as_str()?.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(spec["clusterIP"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        let node_ports = spec["ports"].as_array().into_iter().flatten().map(|port| &port["nodePort"]);
        let mut ports: Vec<u16> =
            node_ports.chain([&spec["healthCheckNodePort"]]).filter_map(|n| u16::try_from(n.as_u64()?).ok()).filter(|n| *n > 0).collect();
        ports.sort_unstable();
        ports.dedup();
        Self { addresses, ports }
    }

    /// What this one holds and the other does not.
    pub fn without(&self, other: &Self) -> Self {
        Self {
            addresses: self.addresses.iter().filter(|a| !other.addresses.contains(a)).copied().collect(),
            ports: self.ports.iter().filter(|p| !other.ports.contains(p)).copied().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ports.is_empty()
    }
}

/// Why a number was not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// No such range.
    #[error("the provided network does not match the current range")]
    OutOfRange,
    /// Somebody has it.
    #[error("provided IP is already allocated")]
    AddressTaken,
    /// Somebody has it.
    #[error("provided port is already allocated")]
    PortTaken,
    /// The bounds.
    #[error("provided port is not in the valid range. The range of valid ports is {}-{}", .0.start(), .0.end())]
    PortOutOfRange(RangeInclusive<u16>),
    /// None is left.
    #[error("range is full")]
    Full,
}

#[derive(Debug)]
struct Pools {
    /// Those of the configuration first.
    ranges: Vec<Offer>,
    /// How many of them are of the configuration.
    configured: usize,
    first_port: u16,
    ports: Bitmap,
}

#[derive(Debug)]
struct Offer {
    range: Range,
    /// Whether new addresses are given of it: one that goes keeps those that are given.
    open: bool,
}

/// The allocator; clones share it.
#[derive(Clone, Debug)]
pub struct Services {
    pools: Arc<Mutex<Pools>>,
    port_bounds: RangeInclusive<u16>,
}

impl Services {
    /// Of comma-separated CIDRs, the cluster's first family first.
    pub fn new(cidrs: &str, node_ports: RangeInclusive<u16>) -> Result<Self, RangeError> {
        let ranges = cidrs.split(',').map(Range::parse).collect::<Result<Vec<_>, _>>()?;
        let size = usize::from(node_ports.end().saturating_sub(*node_ports.start())) + 1;
        // Upstream: a thirty-second of the range, at least 16, at most 128.
        let dynamic_from = if size < 16 { 0 } else { (size / 32).clamp(16, 128) };
        let configured = ranges.len();
        let ranges = ranges.into_iter().map(|range| Offer { range, open: true }).collect();
        let pools = Pools { ranges, configured, first_port: *node_ports.start(), ports: Bitmap::new(size, dynamic_from) };
        Ok(Self { pools: Arc::new(Mutex::new(pools)), port_bounds: node_ports })
    }

    fn lock(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The families that addresses can be had of, the cluster's own first.
    pub fn families(&self) -> Vec<&'static str> {
        let pools = self.lock();
        pools.ranges.iter().take(pools.configured).map(|offer| offer.range.family()).collect()
    }

    /// The first address of the first range: the one of the Service `kubernetes`.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.lock().ranges.first().map(|offer| offer.range.first())
    }

    /// Offers these networks beside those of the configuration; `open` ones give new addresses. `taken` are the addresses that somebody has.
    pub fn offer(&self, networks: &[(IpNet, bool)], taken: impl IntoIterator<Item = IpAddr>) {
        let mut pools = self.lock();
        // Also what is on its way, and in no Service yet.
        let taken: Vec<IpAddr> = pools.ranges.iter().flat_map(|offer| offer.range.given()).chain(taken).collect();
        let configured = pools.configured;
        let mut others = pools.ranges.split_off(configured);
        for (network, open) in networks {
            let network = network.trunc();
            if pools.ranges.iter().any(|offer| offer.range.network() == network) {
                continue;
            }
            let known = others.iter().position(|offer| offer.range.network() == network).map(|at| others.remove(at).range);
            let fresh = || {
                let mut range = Range::of(network)?;
                for address in &taken {
                    range.take(*address);
                }
                Some(range)
            };
            pools.ranges.extend(known.or_else(fresh).map(|range| Offer { range, open: *open }));
        }
    }

    /// Somebody has this address.
    pub fn mark(&self, address: IpAddr) {
        self.lock().mark(address);
    }

    /// Marks what a stored Service holds; what is outside of the ranges is left alone.
    pub fn restore(&self, holding: &Holding) {
        let mut pools = self.lock();
        for address in &holding.addresses {
            pools.mark(*address);
        }
        for port in &holding.ports {
            pools.take_port(*port);
        }
    }

    /// Begins to take things for one write.
    pub fn begin(&self) -> Reservation {
        Reservation { services: self.clone(), taken: Holding::default() }
    }

    /// Takes back what a Service held.
    pub fn release(&self, holding: &Holding) {
        if holding.is_empty() {
            return;
        }
        let mut pools = self.lock();
        for address in &holding.addresses {
            pools.ranges.iter_mut().for_each(|offer| offer.range.release(*address));
        }
        for port in &holding.ports {
            if let Some(at) = port.checked_sub(pools.first_port) {
                pools.ports.release(at.into());
            }
        }
    }
}

impl Pools {
    /// Takes an address in all ranges that have it.
    fn mark(&mut self, address: IpAddr) {
        for offer in &mut self.ranges {
            offer.range.take(address);
        }
    }

    fn is_taken(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|offer| offer.range.has(address))
    }

    fn take_port(&mut self, port: u16) -> bool {
        port.checked_sub(self.first_port).is_some_and(|at| self.ports.take(at.into()))
    }
}

/// What a write has taken and not yet kept: dropped, all of it is given back.
#[derive(Debug)]
pub struct Reservation {
    services: Services,
    taken: Holding,
}

impl Reservation {
    /// Takes this address.
    pub fn address(&mut self, address: IpAddr) -> Result<(), AllocateError> {
        let mut pools = self.services.lock();
        if !pools.ranges.iter().any(|offer| offer.open && offer.range.contains(address)) {
            return Err(AllocateError::OutOfRange);
        }
        if pools.is_taken(address) {
            return Err(AllocateError::AddressTaken);
        }
        pools.mark(address);
        drop(pools);
        self.taken.addresses.push(address);
        Ok(())
    }

    /// Takes any address of a family.
    pub fn any_address(&mut self, family: &str, random: u64) -> Result<IpAddr, AllocateError> {
        let mut pools = self.services.lock();
        let offered = |offer: &Offer| offer.open && offer.range.family() == family;
        if !pools.ranges.iter().any(offered) {
            return Err(AllocateError::OutOfRange);
        }
        let mut offers = pools.ranges.iter_mut().filter(|offer| offered(offer));
        // One that is taken in an overlapping range is taken here, too: they are always marked together.
        let address = offers.find_map(|offer| offer.range.take_any(random)).ok_or(AllocateError::Full)?;
        pools.mark(address);
        drop(pools);
        self.taken.addresses.push(address);
        Ok(address)
    }

    /// Takes this port.
    pub fn port(&mut self, port: u16) -> Result<(), AllocateError> {
        if !self.services.port_bounds.contains(&port) {
            return Err(AllocateError::PortOutOfRange(self.services.port_bounds.clone()));
        }
        if !self.services.lock().take_port(port) {
            return Err(AllocateError::PortTaken);
        }
        self.taken.ports.push(port);
        Ok(())
    }

    /// Takes any port.
    pub fn any_port(&mut self, random: u64) -> Result<u16, AllocateError> {
        let mut pools = self.services.lock();
        let at = pools.ports.take_any(random).ok_or(AllocateError::Full)?;
        let port = u16::try_from(at).ok().and_then(|at| pools.first_port.checked_add(at)).ok_or(AllocateError::Full)?;
        drop(pools);
        self.taken.ports.push(port);
        Ok(port)
    }

    /// The families that there are.
    pub fn families(&self) -> Vec<&'static str> {
        self.services.families()
    }

    /// The write stands: nothing is given back.
    pub fn keep(mut self) {
        self.taken = Holding::default();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.services.release(&self.taken);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_is_given_twice_whoever_asks_at_once() {
        let services = Services::new("10.43.0.0/24", 30000..=30199).unwrap();
        let workers: Vec<_> = (0..8u64)
            .map(|seed| {
                let services = services.clone();
                std::thread::spawn(move || {
                    let mut mine = Vec::new();
                    for step in 0..25 {
                        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(step);
                        // Every other write fails and gives back what it took.
                        let mut lost = services.begin();
                        let _ = (lost.any_address("IPv4", random), lost.any_port(random));
                        drop(lost);
                        let mut write = services.begin();
                        mine.push((write.any_address("IPv4", random), write.any_port(random)));
                        write.keep();
                    }
                    mine
                })
            })
            .collect();
        let all: Vec<_> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
        let addresses: HashSet<_> = all.iter().map(|(address, _)| address.clone().unwrap()).collect();
        let ports: HashSet<_> = all.iter().map(|(_, port)| port.clone().unwrap()).collect();
        assert_eq!((addresses.len(), ports.len()), (200, 200));
        assert_eq!(services.begin().any_port(1), Err(AllocateError::Full));
        services.release(&Holding { addresses: vec![], ports: vec![30007] });
        assert_eq!(services.begin().any_port(1), Ok(30007));
    }

    #[test]
    fn ranges_come_and_go_and_share_what_is_taken() {
        let services = Services::new("10.43.0.0/30", 30000..=30009).unwrap();
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let keep = |wanted: Option<&str>| {
            let mut write = services.begin();
            let got = match wanted {
                Some(address) => write.address(ip(address)).map(|()| ip(address)),
                None => write.any_address("IPv4", 0),
            };
            write.keep();
            got
        };
        assert!(keep(None).is_ok() && keep(None).is_ok());
        assert_eq!(keep(None), Err(AllocateError::Full));
        assert_eq!(keep(Some("10.44.0.1")), Err(AllocateError::OutOfRange));
        let taken = || [ip("10.43.0.1"), ip("10.43.0.2")];
        services.offer(&[(net("10.43.0.0/29"), true), (net("10.43.0.0/30"), true)], taken());
        let more: HashSet<_> = (0..4).map(|_| keep(None).unwrap()).collect();
        // The /30's broadcast address is an ordinary one of the /29.
        assert!(more.len() == 4 && taken().iter().all(|address| !more.contains(address)), "{more:?}");
        assert_eq!(keep(None), Err(AllocateError::Full));
        services.release(&Holding { addresses: vec![ip("10.43.0.5")], ports: vec![] });
        services.offer(&[(net("10.43.0.0/29"), false)], taken());
        assert_eq!((keep(None), keep(Some("10.43.0.5"))), (Err(AllocateError::Full), Err(AllocateError::OutOfRange)));
        assert_eq!(services.families(), ["IPv4"]);
    }

    #[test]
    fn what_a_service_holds_is_read_off_it() {
        let service = serde_json::json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9", "fd00::9"],
            "healthCheckNodePort": 30001, "ports": [{"nodePort": 30053, "protocol": "UDP"}, {"nodePort": 30053}, {"port": 1}]}});
        let holding = Holding::of(&service);
        assert_eq!((holding.addresses.len(), holding.ports), (2, vec![30001, 30053]));
        let headless = serde_json::json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        assert_eq!(Holding::of(&headless), Holding::default());
    }
}
