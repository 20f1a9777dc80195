//! Which images go when the disk fills: the longest unused first, down to a mark. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::signals::Level;
use crate::pod::{backoff::later, clock::shifted};

/// When images that nobody uses are removed, and which. The default is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// Hundredths of the disk in use from which images are removed; 100 is never.
    pub high_percent: u64,
    /// Hundredths in use down to which.
    pub low_percent: u64,
    /// An image that came since then stays: its pod may be about to start.
    pub least_age: Duration,
    /// One that nobody has used for so long goes, however much room there is; `None`: none does.
    pub most_age: Option<Duration>,
}

impl Default for Collection {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, least_age: Duration::from_secs(120), most_age: None }
    }
}

/// When images were seen first and used last, by id.
#[derive(Clone, Debug, Default)]
pub struct Uses(HashMap<String, (Timestamp, Timestamp)>);

impl Uses {
    /// Takes in which images there are, and which of them are used now.
    pub fn see<'a>(&mut self, images: impl Iterator<Item = &'a str>, used: &HashSet<String>, now: Timestamp) {
        let mut next = HashMap::new();
        for id in images {
            let (first, last) = self.0.remove(id).unwrap_or((now, now));
            next.insert(id.to_owned(), (first, if used.contains(id) { now } else { last }));
        }
        self.0 = next;
    }

    /// The machine's clock has jumped: what was seen is as old as before.
    pub fn shift(&mut self, by: SignedDuration) {
        for (first, last) in self.0.values_mut() {
            (*first, *last) = (shifted(*first, by), shifted(*last, by));
        }
    }

    /// Images to remove, in this order, of those that nobody uses (id and size): those that are too old, then others until `bytes` are gained.
    pub fn plan(&self, images: &[(String, u64)], used: &HashSet<String>, bytes: u64, how: &Collection, now: Timestamp) -> Plan {
        let age = |id: &str| self.0.get(id).copied().unwrap_or((now, now));
        let mut idle: Vec<&(String, u64)> =
            images.iter().filter(|(id, _)| !used.contains(id) && later(age(id).0, how.least_age) <= now).collect();
        idle.sort_by_key(|(id, _)| (age(id).1, age(id).0));
        // The longest unused stand first.
        let old = idle.iter().filter(|(id, _)| how.most_age.is_some_and(|most| later(age(id).1, most) < now)).count();
        let mut gained = idle[..old].iter().map(|(_, size)| size).sum::<u64>();
        let gains = idle[old..].iter().take_while(|(_, size)| {
            let more = gained < bytes;
            gained += size;
            more
        });
        let ids = |list: &[&(String, u64)]| list.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        let room = old + gains.count();
        Plan { too_old: ids(&idle[..old]), for_room: ids(&idle[old..room]) }
    }
}

/// Images to remove, each list in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Because nobody has used them for long.
    pub too_old: Vec<String>,
    /// Because room is needed.
    pub for_room: Vec<String>,
}

/// Bytes to gain so that the disk is below the low mark, once it is above the high one.
pub fn excess(disk: Level, how: &Collection) -> Option<u64> {
    let used = disk.capacity.saturating_sub(disk.available);
    let mark = |percent: u64| disk.capacity / 100 * percent;
    (disk.capacity > 0 && how.high_percent < 100 && used >= mark(how.high_percent)).then(|| used - mark(how.low_percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).expect("a time")
    }

    #[test]
    fn the_longest_unused_go_until_enough_is_gained() {
        let ids = ["a", "b", "c", "d"];
        let used = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect::<HashSet<_>>();
        let sizes = ids.map(|id| (id.to_owned(), 10));
        let mut uses = Uses::default();
        uses.see(ids[..3].iter().copied(), &used(&["a"]), at(0));
        uses.see(ids[..3].iter().copied(), &used(&["b"]), at(60));
        uses.see(ids.iter().copied(), &used(&["d"]), at(100));
        let usual = Collection::default();
        let plan = |bytes, now: i64| uses.plan(&sizes, &used(&["d"]), bytes, &usual, at(now)).for_room;
        assert_eq!(plan(30, 100), [] as [&str; 0], "all are young");
        assert_eq!(plan(30, 130), ["a", "c", "b"]);
        assert_eq!(plan(11, 130), ["a", "c"]);
        assert_eq!(plan(0, 130), [] as [&str; 0]);
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, &usual, at(230)).for_room, ["a", "c", "b", "d"]);
        uses.shift(SignedDuration::from_secs(3600));
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, &usual, at(230)).for_room, [] as [&str; 0], "as old as by the clock of before");
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, &usual, at(3600 + 230)).for_room, ["a", "c", "b", "d"]);
        uses.see(std::iter::empty(), &used(&[]), at(300));
        assert!(uses.0.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn what_nobody_has_used_for_long_goes_without_need() {
        let sizes = ["a", "b", "c"].map(|id| (id.to_owned(), 10));
        let used = |ids: &[&str]| ids.iter().map(|i| (*i).to_owned()).collect::<HashSet<_>>();
        let mut uses = Uses::default();
        uses.see(["a", "b", "c"].into_iter(), &used(&["b", "c"]), at(0));
        uses.see(["a", "b", "c"].into_iter(), &used(&["b", "c"]), at(500));
        let how = Collection { most_age: Some(Duration::from_secs(600)), ..Collection::default() };
        let check = |now: i64, bytes: u64, too_old: &[&str], for_room: &[&str]| {
            let plan = uses.plan(&sizes, &used(&["c"]), bytes, &how, at(now));
            assert_eq!(
                (plan.too_old, plan.for_room),
                (too_old.iter().map(|s| (*s).to_owned()).collect(), for_room.iter().map(|s| (*s).to_owned()).collect()),
                "{now} {bytes}"
            );
        };
        check(600, 0, &[], &[]);
        check(601, 0, &["a"], &[]);
        check(601, 10, &["a"], &[]);
        check(601, 11, &["a"], &["b"]);
        check(1000, 0, &["a"], &[]);
        check(500 + 601, 0, &["a", "b"], &[]);
    }

    #[test]
    fn the_disk_is_brought_below_the_low_mark() {
        for (available, want) in [(16, None), (15, Some(5)), (0, Some(20))] {
            assert_eq!(excess(Level { available, capacity: 100 }, &Collection::default()), want, "{available}");
        }
        assert_eq!(excess(Level::default(), &Collection::default()), None);
        let own = |high_percent, low_percent| Collection { high_percent, low_percent, ..Collection::default() };
        assert_eq!(excess(Level { available: 39, capacity: 100 }, &own(60, 10)), Some(51));
        assert_eq!(excess(Level { available: 0, capacity: 100 }, &own(100, 10)), None);
    }
}
