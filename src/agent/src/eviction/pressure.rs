//! When a node is short of memory, disk or pids, and for how long it says so. Pure.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::signals::{Level, Signals};
use crate::pod::{backoff::later, clock::shifted};

/// A condition stays for so long after its cause is gone, if nobody says otherwise: a node that is short now and then would draw pods and end
/// them again. Upstream's default.
const TRANSITION: Duration = Duration::from_secs(300);

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
    /// The amount of so much in all.
    pub fn amount(self, capacity: u64) -> u64 {
        match self {
            Least::Of(amount) => amount,
            Least::Percent(percent) => capacity / 100 * percent,
        }
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// `memory.available`
    Memory,
    /// `nodefs.available`
    Disk,
    /// `nodefs.inodesFree`
    Inodes,
    /// `imagefs.available`
    Images,
    /// `imagefs.inodesFree`
    ImageInodes,
    /// `containerfs.available`: what containers write is where images are.
    Containers,
    /// `containerfs.inodesFree`
    ContainerInodes,
    /// `pid.available`
    Pids,
}

impl Signal {
    /// All of them.
    pub const ALL: [Signal; 8] = [
        Signal::Memory,
        Signal::Disk,
        Signal::Inodes,
        Signal::Images,
        Signal::ImageInodes,
        Signal::Containers,
        Signal::ContainerInodes,
        Signal::Pids,
    ];

    /// As upstream names it.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::Disk => "nodefs.available",
            Signal::Inodes => "nodefs.inodesFree",
            Signal::Images => "imagefs.available",
            Signal::ImageInodes => "imagefs.inodesFree",
            Signal::Containers => "containerfs.available",
            Signal::ContainerInodes => "containerfs.inodesFree",
            Signal::Pids => "pid.available",
        }
    }

    /// By that name.
    pub fn of(name: &str) -> Option<Signal> {
        Signal::ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// What runs short.
    pub fn resource(self) -> Resource {
        match self {
            Signal::Memory => Resource::Memory,
            Signal::Disk | Signal::Images | Signal::Containers => Resource::Disk,
            Signal::Inodes | Signal::ImageInodes | Signal::ContainerInodes => Resource::Inodes,
            Signal::Pids => Resource::Pids,
        }
    }

    fn level(self, signals: &Signals) -> Level {
        match self {
            Signal::Memory => signals.memory,
            Signal::Disk => signals.disk,
            Signal::Inodes => signals.inodes,
            Signal::Images | Signal::Containers => signals.image_disk,
            Signal::ImageInodes | Signal::ContainerInodes => signals.image_inodes,
            Signal::Pids => signals.pids,
        }
    }

    /// Whether images that go make room for it. Where they have a disk of their own, they are on no other.
    pub fn is_of_images(self, signals: &Signals) -> bool {
        match self {
            Signal::Memory | Signal::Pids => false,
            Signal::Disk | Signal::Inodes => !signals.images_apart,
            Signal::Images | Signal::ImageInodes | Signal::Containers | Signal::ContainerInodes => true,
        }
    }
}

/// What must be left of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// Of what.
    pub signal: Signal,
    /// How much.
    pub least: Least,
    /// For how long less is borne; `None` is a hard threshold: not at all, and pods that are ended for it get no grace either.
    pub grace: Option<Duration>,
    /// Once it was crossed, so much more must be left before it counts as held again.
    pub reclaim: Option<Least>,
}

/// When the node is short of something, and what it does then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Each signal at most once hard and once soft.
    pub thresholds: Vec<Threshold>,
    /// The longest grace of a pod that is ended for a soft threshold.
    pub most_grace: Duration,
    /// How long a condition outlives its cause.
    pub transition: Duration,
}

/// What upstream has, save for the disk: there it is what k3s has, as the disk of a small machine is shared with much else and often nine
/// tenths full.
impl Default for Settings {
    fn default() -> Self {
        let hard = |signal, least| Threshold { signal, least, grace: None, reclaim: None };
        let thresholds = vec![
            hard(Signal::Memory, Least::Of(100 << 20)),
            hard(Signal::Disk, Least::Percent(5)),
            hard(Signal::Inodes, Least::Percent(5)),
            hard(Signal::Pids, Least::Percent(10)),
        ];
        Self { thresholds, most_grace: Duration::ZERO, transition: TRANSITION }
    }
}

impl Settings {
    /// The hard threshold of a signal.
    pub fn hard(&self, signal: Signal) -> Option<Least> {
        self.thresholds.iter().find(|t| t.signal == signal && t.grace.is_none()).map(|t| t.least)
    }

    /// Sets what must be left of a signal, hard or after a grace.
    pub fn set(&mut self, signal: Signal, least: Least, grace: Option<Duration>) {
        match self.thresholds.iter_mut().find(|t| t.signal == signal && t.grace.is_some() == grace.is_some()) {
            Some(threshold) => (threshold.least, threshold.grace) = (least, grace),
            None => self.thresholds.push(Threshold { signal, least, grace, reclaim: None }),
        }
    }
}

/// A threshold that is crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub signal: Signal,
    /// What must be left.
    pub threshold: u64,
    /// What is left.
    pub available: u64,
    /// Pods that are ended for it get their grace.
    pub soft: bool,
}

/// What came of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// What the node's conditions say from now on.
    pub pressure: Pressure,
    /// What something must be done about: memory first, and hard before soft.
    pub shortages: Vec<Shortage>,
    /// When the grace of something ends that is short now.
    pub look_again: Option<Timestamp>,
}

/// Remembers since when and until when each was short.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Thresholds by their place, since when they are crossed, and whether something was done about it.
    crossed: Vec<(usize, Timestamp, bool)>,
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Memory {
    /// The machine's clock has jumped: what was seen is as old as before.
    pub fn shift(&mut self, by: SignedDuration) {
        let conditions = [&mut self.memory, &mut self.disk, &mut self.pids].into_iter().flatten();
        for at in conditions.chain(self.crossed.iter_mut().map(|(_, since, _)| since)) {
            *at = shifted(*at, by);
        }
    }

    /// Takes a look in.
    pub fn see(&mut self, signals: &Signals, settings: &Settings, now: Timestamp) -> Sight {
        let mut sight = Sight::default();
        let mut crossed = Vec::new();
        for (place, threshold) in settings.thresholds.iter().enumerate() {
            let level = threshold.signal.level(signals);
            let before = self.crossed.iter().find(|(at, ..)| *at == place);
            let least = threshold.least.amount(level.capacity);
            // Who was short before must have gained some more to be no longer short.
            let more = threshold.reclaim.filter(|_| before.is_some_and(|(.., acted)| *acted));
            let wanted = least.saturating_add(more.map_or(0, |more| more.amount(level.capacity)));
            if level.capacity == 0 || level.available >= wanted {
                continue;
            }
            let since = before.map_or(now, |(_, since, _)| *since);
            let until = later(since, threshold.grace.unwrap_or_default());
            crossed.push((place, since, until <= now));
            match threshold.signal.resource() {
                Resource::Memory => self.memory = Some(now),
                Resource::Disk | Resource::Inodes => self.disk = Some(now),
                Resource::Pids => self.pids = Some(now),
            }
            if until > now {
                sight.look_again = sight.look_again.into_iter().chain([until]).min();
                continue;
            }
            let soft = threshold.grace.is_some();
            sight.shortages.push(Shortage { signal: threshold.signal, threshold: least, available: level.available, soft });
        }
        self.crossed = crossed;
        sight.shortages.sort_by_key(|s| (s.signal != Signal::Memory, s.soft, s.signal));
        let on = |seen: Option<Timestamp>| seen.is_some_and(|at| at == now || later(at, settings.transition) > now);
        sight.pressure = Pressure { memory: on(self.memory), disk: on(self.disk), pids: on(self.pids) };
        sight
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

    fn well() -> Signals {
        Signals {
            memory: level(1 << 30, 4 << 30),
            disk: level(50, 100),
            inodes: level(50, 100),
            image_disk: level(50, 100),
            image_inodes: level(50, 100),
            images_apart: false,
            pids: level(50, 100),
        }
    }

    #[test]
    fn thresholds_are_crossed_from_above() {
        let check = |signals: Signals, settings: &Settings, want: &[Signal]| {
            let sight = Memory::default().see(&signals, settings, at(0));
            let got: Vec<Signal> = sight.shortages.iter().map(|s| s.signal).collect();
            assert_eq!(got, want, "{signals:?}");
        };
        let (well, usual) = (well(), Settings::default());
        check(well, &usual, &[]);
        check(Signals { memory: level(100 << 20, 4 << 30), disk: level(50, 1000), ..well }, &usual, &[]);
        check(Signals { memory: level((100 << 20) - 1, 4 << 30), ..well }, &usual, &[Signal::Memory]);
        check(Signals { disk: level(49, 1000), inodes: level(49, 1000), ..well }, &usual, &[Signal::Disk, Signal::Inodes]);
        check(Signals { pids: level(9, 100), ..well }, &usual, &[Signal::Pids]);
        check(Signals::default(), &usual, &[]);
        let mut images = usual.clone();
        images.set(Signal::Images, Least::Percent(60), None);
        images.set(Signal::ImageInodes, Least::Of(1), None);
        check(well, &images, &[Signal::Images]);
        images.set(Signal::Memory, Least::Of(2 << 30), Some(Duration::ZERO));
        check(well, &images, &[Signal::Memory, Signal::Images]);
    }

    #[test]
    fn a_condition_outlives_its_cause_for_a_while() {
        let low_inodes = Signals { inodes: level(1, 100), ..well() };
        let low_memory = Signals { memory: level(1, 4 << 30), ..well() };
        let (mut memory, settings) = (Memory::default(), Settings::default());
        let mut see = |signals, second| memory.see(&signals, &settings, at(second)).pressure;
        let none = Pressure::default();
        assert_eq!(see(well(), 0), none);
        assert_eq!(see(low_inodes, 10), Pressure { disk: true, ..none });
        assert_eq!(see(low_memory, 300), Pressure { disk: true, memory: true, ..none });
        assert_eq!(see(well(), 310), Pressure { memory: true, ..none });
        assert_eq!(see(well(), 600), none);
        let at_once = Settings { transition: Duration::ZERO, ..Settings::default() };
        let mut memory = Memory::default();
        assert!(memory.see(&low_memory, &at_once, at(0)).pressure.memory);
        assert!(!memory.see(&well(), &at_once, at(1)).pressure.memory);
    }

    #[test]
    fn a_soft_threshold_is_borne_for_its_grace_and_told_at_once() {
        let mut settings = Settings::default();
        settings.set(Signal::Memory, Least::Of(2 << 30), Some(Duration::from_secs(30)));
        let (low, lower) = (well(), Signals { memory: level(50 << 20, 4 << 30), ..well() });
        let enough = Signals { memory: level(3 << 30, 4 << 30), ..well() };
        let mut memory = Memory::default();
        for (signals, second, shorts, again) in [
            (low, 0, &[][..], Some(30)),
            (low, 29, &[], Some(30)),
            (low, 30, &[(2 << 30, true)], None),
            (lower, 40, &[(100 << 20, false), (2 << 30, true)], None),
            (enough, 50, &[], None),
            (low, 60, &[], Some(90)),
        ] {
            let sight = memory.see(&signals, &settings, at(second));
            let got: Vec<_> = sight.shortages.iter().map(|s| (s.threshold, s.soft)).collect();
            assert_eq!((got.as_slice(), sight.look_again, sight.pressure.memory), (shorts, again.map(at), true), "{second}");
        }
    }

    #[test]
    fn what_was_acted_on_is_short_until_more_is_gained() {
        let mut settings = Settings::default();
        settings.thresholds[0].reclaim = Some(Least::Of(50 << 20));
        let mut memory = Memory::default();
        for (available, short) in [(120, false), (99, true), (120, true), (149, true), (150, false), (120, false)] {
            let signals = Signals { memory: level(available << 20, 4 << 30), ..well() };
            assert_eq!(!memory.see(&signals, &settings, at(0)).shortages.is_empty(), short, "{available}");
        }
    }

    #[test]
    fn a_clock_that_jumps_makes_nothing_older() {
        let mut settings = Settings::default();
        settings.set(Signal::Memory, Least::Of(2 << 30), Some(Duration::from_secs(30)));
        let mut memory = Memory::default();
        memory.see(&well(), &settings, at(0));
        memory.shift(SignedDuration::from_secs(-100_000));
        assert!(memory.see(&well(), &settings, at(29 - 100_000)).shortages.is_empty());
        assert_eq!(memory.see(&well(), &settings, at(30 - 100_000)).shortages.len(), 1);
        let enough = Signals { memory: level(3 << 30, 4 << 30), ..well() };
        assert!(memory.see(&enough, &settings, at(329 - 100_000)).pressure.memory);
        assert!(!memory.see(&enough, &settings, at(330 - 100_000)).pressure.memory, "nothing lasts longer");
    }

    #[test]
    fn signals_have_upstreams_names() {
        for signal in Signal::ALL {
            assert_eq!(Signal::of(signal.name()), Some(signal));
        }
        assert_eq!(Signal::of("swap.available"), None);
    }
}
