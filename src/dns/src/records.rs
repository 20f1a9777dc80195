//! What the cluster's DNS knows: Services with the addresses behind them, and which pod asks from which address.
//!
//! The table is what is sent to the resident and kept on disk, so it is small and plain; [`Change`] is one step from a table to the next.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

/// The whole table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Names of Services by namespace, then name.
    pub services: BTreeMap<String, BTreeMap<String, Service>>,
    /// Namespaces that exist without any Service, too.
    pub namespaces: BTreeMap<String, ()>,
    /// Namespace of the pod at an address.
    pub pods: BTreeMap<IpAddr, String>,
    /// Service (namespace, name, hostname or empty) at an address: for PTR.
    #[serde(skip)]
    pub reverse: BTreeMap<IpAddr, Vec<(String, String, String)>>,
}

/// One Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Virtual addresses; none for headless Services and external names.
    pub ips: Vec<IpAddr>,
    /// `spec.externalName`, without the last dot.
    pub external: Option<String>,
    /// Named ports of a Service with virtual addresses.
    pub ports: Vec<Port>,
    /// Addresses behind a headless Service, those that are to be found.
    pub endpoints: Vec<Endpoint>,
}

/// A named port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// Its number.
    pub number: u16,
}

/// An address behind a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// The address.
    pub ip: IpAddr,
    /// `hostname` of the pod, if the Service is its subdomain.
    pub hostname: Option<String>,
    /// Named ports there.
    pub ports: Vec<Port>,
}

impl Endpoint {
    /// Its label under the Service: the host name, else the address with dashes.
    pub fn label(&self) -> String {
        self.hostname.clone().unwrap_or_else(|| dashed(self.ip))
    }
}

/// `10.1.2.3` as `10-1-2-3`.
pub fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// A step from one table to the next. Applying it twice is as good as once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// The whole table anew.
    All(Box<Records>),
    /// A Service appeared, changed, or is gone.
    Service {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
        /// `None`: gone.
        service: Option<Service>,
    },
    /// A namespace exists, or not.
    Namespace {
        /// Its name.
        name: String,
        /// Whether it does.
        exists: bool,
    },
    /// A pod has an address, or nobody has.
    Pod {
        /// The address.
        ip: IpAddr,
        /// Its pod's namespace.
        namespace: Option<String>,
    },
}

impl Records {
    /// Takes the step.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::All(mut records) => {
                records.index();
                *self = *records;
            }
            Change::Service { namespace, name, service } => {
                self.unlink(&namespace, &name);
                match service {
                    Some(service) => {
                        self.services.entry(namespace.clone()).or_default().insert(name.clone(), service);
                        self.link(&namespace, &name);
                    }
                    None => {
                        if let Some(names) = self.services.get_mut(&namespace) {
                            names.remove(&name);
                            if names.is_empty() {
                                self.services.remove(&namespace);
                            }
                        }
                    }
                }
            }
            Change::Namespace { name, exists: true } => drop(self.namespaces.insert(name, ())),
            Change::Namespace { name, exists: false } => drop(self.namespaces.remove(&name)),
            Change::Pod { ip, namespace: Some(namespace) } => drop(self.pods.insert(ip, namespace)),
            Change::Pod { ip, namespace: None } => drop(self.pods.remove(&ip)),
        }
    }

    /// The Service of this name.
    pub fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        self.services.get(namespace)?.get(name)
    }

    /// Whether a namespace of this name is known.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name) || self.services.contains_key(name)
    }

    /// How many names it holds.
    pub fn len(&self) -> usize {
        self.services.values().map(BTreeMap::len).sum()
    }

    /// Whether it holds no Service.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Fills the reverse index, which is not sent.
    pub fn index(&mut self) {
        self.reverse.clear();
        let names: Vec<(String, String)> =
            self.services.iter().flat_map(|(ns, names)| names.keys().map(|n| (ns.clone(), n.clone()))).collect();
        names.iter().for_each(|(namespace, name)| self.link(namespace, name));
    }

    fn link(&mut self, namespace: &str, name: &str) {
        for (ip, label) in self.addresses(namespace, name) {
            self.reverse.entry(ip).or_default().push((namespace.into(), name.into(), label));
        }
    }

    fn unlink(&mut self, namespace: &str, name: &str) {
        for (ip, _) in self.addresses(namespace, name) {
            if let Some(names) = self.reverse.get_mut(&ip) {
                names.retain(|(ns, n, _)| (ns.as_str(), n.as_str()) != (namespace, name));
                if names.is_empty() {
                    self.reverse.remove(&ip);
                }
            }
        }
    }

    fn addresses(&self, namespace: &str, name: &str) -> Vec<(IpAddr, String)> {
        let Some(service) = self.service(namespace, name) else { return Vec::new() };
        let own = service.ips.iter().map(|ip| (*ip, String::new()));
        let named = service.endpoints.iter().filter_map(|e| Some((e.ip, e.hostname.clone()?)));
        own.chain(named).collect()
    }
}
