//! When a node is short of memory, disk or pids, and for how long it says so. Pure.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::signals::{Level, Signals};
use crate::pod::backoff::later;

/// A condition stays for so long after its cause is gone: a node that is short now and then would draw pods and end them again.
pub const TRANSITION: Duration = Duration::from_secs(300);

/// Of what a node is short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk, bytes or inodes.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

/// A resource that can run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `memory`
    Memory,
    /// `ephemeral-storage`
    Disk,
    /// `inodes`
    Inodes,
    /// `pids`
    Pids,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Resource::Memory => "memory",
            Resource::Disk => "ephemeral-storage",
            Resource::Inodes => "inodes",
            Resource::Pids => "pids",
        })
    }
}

/// What must be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Least {
    /// So many.
    Of(u64),
    /// So many hundredths of all.
    Percent(u64),
}

impl Least {
    fn amount(self, capacity: u64) -> u64 {
        match self {
            Least::Of(amount) => amount,
            Least::Percent(percent) => capacity / 100 * percent,
        }
    }
}

/// What must be left of each. `Default` is what upstream has, save for the disk: there it is what k3s has, as the disk of a small machine is shared
/// with much else and often nine tenths full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Bytes of memory.
    pub memory: Least,
    /// Bytes of disk.
    pub disk: Least,
    /// Inodes.
    pub inodes: Least,
    /// Process ids.
    pub pids: Least,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { memory: Least::Of(100 << 20), disk: Least::Percent(5), inodes: Least::Percent(5), pids: Least::Percent(10) }
    }
}

/// A threshold that is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub resource: Resource,
    /// What must be left.
    pub threshold: u64,
    /// What is left.
    pub available: u64,
}

/// The thresholds that are crossed, memory first.
pub fn shortages(signals: &Signals, least: &Thresholds) -> Vec<Shortage> {
    let of = |resource, level: Level, least: Least| {
        let threshold = least.amount(level.capacity);
        (level.capacity > 0 && level.available < threshold).then_some(Shortage { resource, threshold, available: level.available })
    };
    let all = [
        of(Resource::Memory, signals.memory, least.memory),
        of(Resource::Disk, signals.disk, least.disk),
        of(Resource::Inodes, signals.inodes, least.inodes),
        of(Resource::Pids, signals.pids, least.pids),
    ];
    all.into_iter().flatten().collect()
}

/// Remembers when each shortage was last seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Memory {
    /// Takes a sight in; what the node's conditions say from now on.
    pub fn see(&mut self, shortages: &[Shortage], now: Timestamp) -> Pressure {
        for shortage in shortages {
            match shortage.resource {
                Resource::Memory => self.memory = Some(now),
                Resource::Disk | Resource::Inodes => self.disk = Some(now),
                Resource::Pids => self.pids = Some(now),
            }
        }
        let on = |seen: Option<Timestamp>| seen.is_some_and(|at| later(at, TRANSITION) > now);
        Pressure { memory: on(self.memory), disk: on(self.disk), pids: on(self.pids) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    fn level(available: u64, capacity: u64) -> Level {
        Level { available, capacity }
    }

    #[test]
    fn thresholds_are_crossed_from_above() {
        let check = |signals: Signals, want: &[Resource]| {
            let got: Vec<Resource> = shortages(&signals, &Thresholds::default()).iter().map(|s| s.resource).collect();
            assert_eq!(got, want, "{signals:?}");
        };
        let well = Signals { memory: level(1 << 30, 4 << 30), disk: level(50, 100), inodes: level(50, 100), pids: level(50, 100) };
        check(well, &[]);
        check(Signals { memory: level(100 << 20, 4 << 30), disk: level(50, 1000), ..well }, &[]);
        check(Signals { memory: level((100 << 20) - 1, 4 << 30), ..well }, &[Resource::Memory]);
        check(Signals { disk: level(49, 1000), inodes: level(49, 1000), ..well }, &[Resource::Disk, Resource::Inodes]);
        check(Signals { pids: level(9, 100), ..well }, &[Resource::Pids]);
        check(Signals::default(), &[]);
    }

    #[test]
    fn a_condition_outlives_its_cause_by_five_minutes() {
        let short = |resource| [Shortage { resource, threshold: 2, available: 1 }];
        let mut memory = Memory::default();
        assert_eq!(memory.see(&[], at(0)), Pressure::default());
        assert_eq!(memory.see(&short(Resource::Inodes), at(10)), Pressure { disk: true, ..Pressure::default() });
        assert_eq!(memory.see(&short(Resource::Memory), at(300)), Pressure { disk: true, memory: true, ..Pressure::default() });
        assert_eq!(memory.see(&[], at(310)), Pressure { memory: true, ..Pressure::default() });
        assert_eq!(memory.see(&[], at(600)), Pressure::default());
    }
}
