//! The book of attachments: one file each, written before anything is made on the machine, removed after everything is unmade.
//!
//! So an address is in use exactly as long as its file is there, and no crash leaks one. Files are not synced: a power loss is a reboot, and at the
//! first start after one the whole book is void, with the namespaces that it told of.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::ipam;
use crate::{AttachError, Attachment, HostPort, PodRequest};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Sandbox ids are file names here.
const MAX_ID: usize = 128;

/// An attachment, as its file has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The sandbox's id.
    pub sandbox: String,
    /// Uid of the pod.
    pub uid: String,
    /// Of the pod.
    pub namespace: String,
    /// Of the pod.
    pub name: String,
    /// One per family.
    pub addresses: Vec<IpAddr>,
    /// Open on the node.
    pub host_ports: Vec<HostPort>,
}

/// All attachments of a cluster on this node.
#[derive(Debug)]
pub struct Book {
    directory: PathBuf,
    netns: PathBuf,
    pods: IpNet,
    records: BTreeMap<String, Record>,
    last: Option<IpAddr>,
}

impl Book {
    /// Opens the book below `state_dir`; after a reboot it is empty.
    pub fn open(state_dir: &Path, pods: IpNet) -> io::Result<Self> {
        let (directory, netns) = (state_dir.join("attachments"), state_dir.join("netns"));
        let (boot, now) = (state_dir.join("boot"), fs::read_to_string(BOOT_ID)?);
        fs::create_dir_all(state_dir)?;
        if fs::read_to_string(&boot).ok().as_deref() != Some(now.as_str()) {
            for old in [&directory, &netns] {
                match fs::remove_dir_all(old) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            fs::write(&boot, now)?;
        }
        fs::create_dir_all(&directory)?;
        fs::create_dir_all(&netns)?;
        let mut records = BTreeMap::new();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(&path)?;
                continue;
            }
            let record: Record = serde_json::from_slice(&fs::read(&path)?)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display())))?;
            records.insert(record.sandbox.clone(), record);
        }
        let last = records.values().flat_map(|record| &record.addresses).max().copied();
        Ok(Self { directory, netns, pods, records, last })
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The record of a sandbox.
    pub fn get(&self, sandbox: &str) -> Option<&Record> {
        self.records.get(sandbox)
    }

    /// Where a sandbox's network namespace is mounted.
    pub fn netns(&self, sandbox: &str) -> PathBuf {
        self.netns.join(sandbox)
    }

    /// A record as the border tells it.
    pub fn attachment(&self, record: &Record) -> Attachment {
        Attachment {
            sandbox: record.sandbox.clone(),
            uid: record.uid.clone(),
            netns: self.netns(&record.sandbox),
            addresses: record.addresses.clone(),
        }
    }

    /// The record of this pod's sandbox; a new one with an address of its own when there is none.
    pub fn enter(&mut self, pod: &PodRequest) -> Result<Record, AttachError> {
        if !is_file_name(&pod.sandbox) {
            let what = format!("sandbox id {:?} is no plain name of at most {MAX_ID} bytes", pod.sandbox);
            return Err(AttachError::System { what, source: io::ErrorKind::InvalidInput.into() });
        }
        if let Some(record) = self.records.get(&pod.sandbox) {
            return Ok(record.clone());
        }
        if let Some((port, by)) = taken(self.records.values(), &pod.host_ports) {
            return Err(AttachError::PortTaken { port: port.host_port, protocol: port.protocol.clone(), by });
        }
        let used: BTreeSet<IpAddr> = self.records.values().flat_map(|record| record.addresses.iter().copied()).collect();
        let address = ipam::pick(self.pods, &used, self.last).ok_or_else(|| AttachError::Exhausted(self.pods.to_string()))?;
        let record = Record {
            sandbox: pod.sandbox.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            addresses: vec![address],
            host_ports: pod.host_ports.clone(),
        };
        self.write(&record)
            .map_err(|source| AttachError::System { what: format!("write down the attachment of {}", pod.sandbox), source })?;
        self.last = Some(address);
        self.records.insert(record.sandbox.clone(), record.clone());
        Ok(record)
    }

    /// Strikes a record out; its addresses are free.
    pub fn strike(&mut self, sandbox: &str) -> io::Result<()> {
        if self.records.contains_key(sandbox) {
            fs::remove_file(self.file(sandbox))?;
            self.records.remove(sandbox);
        }
        Ok(())
    }

    fn file(&self, sandbox: &str) -> PathBuf {
        self.directory.join(format!("{sandbox}.json"))
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let part = self.directory.join(format!("{}.tmp", record.sandbox));
        fs::write(&part, serde_json::to_vec(record)?)?;
        fs::rename(&part, self.file(&record.sandbox))
    }
}

/// The first of these ports that a pod holds already, and the pod's uid.
fn taken<'a>(mut records: impl Iterator<Item = &'a Record>, wanted: &'a [HostPort]) -> Option<(&'a HostPort, String)> {
    let overlap = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
    records.find_map(|record| {
        let clash = wanted.iter().find(|port| {
            let same =
                |held: &HostPort| held.protocol == port.protocol && held.host_port == port.host_port && overlap(held.host_ip, port.host_ip);
            record.host_ports.iter().any(same)
        });
        clash.map(|port| (port, record.uid.clone()))
    })
}

fn is_file_name(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID && !id.starts_with('.') && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests;
