//! Who wants which frontend, and what is installed: the memory between two plans. Pure.

use std::collections::{BTreeMap, BTreeSet};

use coracle_client::Key;
use coracle_ebpf_common::Frontend;

use super::{
    desired::Desired,
    plan::{self, Dump, Installed, Op},
};

/// Whose frontends they are. Where two want the same, the lesser has it: a host port goes before a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The host ports of a sandbox.
    Sandbox(String),
    /// A Service.
    Service(Key),
}

/// The memory.
#[derive(Debug, Default)]
pub struct Ledger {
    claims: BTreeMap<Frontend, BTreeMap<Owner, Desired>>,
    owned: BTreeMap<Owner, BTreeSet<Frontend>>,
    installed: BTreeMap<Frontend, Installed>,
    last_id: u32,
}

impl Ledger {
    /// Begins with (or goes back to) what the maps hold; claims are kept.
    pub fn adopt(&mut self, dump: &Dump) -> Vec<Op> {
        let (installed, ops) = plan::adopt(dump);
        self.last_id = installed.values().map(|of| of.id).max().unwrap_or(0).max(self.last_id);
        self.installed = installed;
        ops
    }

    /// These, and no others, are the owner's frontends from now on.
    pub fn set(&mut self, owner: &Owner, wanted: BTreeMap<Frontend, Desired>) -> Vec<Op> {
        let before = self.owned.remove(owner).unwrap_or_default();
        let touched: BTreeSet<Frontend> = before.iter().chain(wanted.keys()).copied().collect();
        for frontend in before {
            if let Some(claims) = self.claims.get_mut(&frontend) {
                claims.remove(owner);
                if claims.is_empty() {
                    self.claims.remove(&frontend);
                }
            }
        }
        if !wanted.is_empty() {
            self.owned.insert(owner.clone(), wanted.keys().copied().collect());
        }
        for (frontend, desired) in wanted {
            self.claims.entry(frontend).or_default().insert(owner.clone(), desired);
        }
        touched.into_iter().flat_map(|frontend| self.settle(frontend)).collect()
    }

    /// Removes what nobody claims: for when all owners have spoken.
    pub fn prune(&mut self) -> Vec<Op> {
        let unclaimed: Vec<_> = self.installed.keys().filter(|frontend| !self.claims.contains_key(frontend)).copied().collect();
        unclaimed.into_iter().flat_map(|frontend| self.settle(frontend)).collect()
    }

    fn settle(&mut self, frontend: Frontend) -> Vec<Op> {
        let desired = self.claims.get(&frontend).and_then(|claims| claims.values().next());
        let fresh_id = self.last_id.wrapping_add(1).max(1);
        let old = self.installed.get(&frontend);
        if old.is_none() && desired.is_some() {
            self.last_id = fresh_id;
        }
        let (ops, new) = plan::plan(frontend, old, desired, fresh_id);
        match new {
            Some(new) => self.installed.insert(frontend, new),
            None => self.installed.remove(&frontend),
        };
        ops
    }
}
