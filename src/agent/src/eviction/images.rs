//! Which images go when the disk fills: the longest unused first, down to a mark. Pure.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::signals::Level;
use crate::pod::{backoff::later, clock::shifted};

/// Hundredths of the disk in use from which images are removed: upstream's figure.
pub const HIGH_PERCENT: u64 = 85;
/// Hundredths in use down to which.
pub const LOW_PERCENT: u64 = 80;
/// An image that came since then stays: its pod may be about to start.
const YOUNG: Duration = Duration::from_secs(120);

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

    /// Images to remove, in this order, of those that nobody uses (id and size), until `bytes` are gained.
    pub fn plan(&self, images: &[(String, u64)], used: &HashSet<String>, bytes: u64, now: Timestamp) -> Vec<String> {
        let age = |id: &str| self.0.get(id).copied().unwrap_or((now, now));
        let mut idle: Vec<&(String, u64)> = images.iter().filter(|(id, _)| !used.contains(id) && later(age(id).0, YOUNG) <= now).collect();
        idle.sort_by_key(|(id, _)| (age(id).1, age(id).0));
        let mut gained = 0;
        let gains = idle.into_iter().take_while(|(_, size)| {
            let more = gained < bytes;
            gained += size;
            more
        });
        gains.map(|(id, _)| id.clone()).collect()
    }
}

/// Bytes to gain so that the disk is below the low mark, once it is above the high one.
pub fn excess(disk: Level) -> Option<u64> {
    let used = disk.capacity.saturating_sub(disk.available);
    let mark = |percent: u64| disk.capacity / 100 * percent;
    (disk.capacity > 0 && used >= mark(HIGH_PERCENT)).then(|| used - mark(LOW_PERCENT))
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
        let plan = |bytes, now: i64| uses.plan(&sizes, &used(&["d"]), bytes, at(now));
        assert_eq!(plan(30, 100), [] as [&str; 0], "all are young");
        assert_eq!(plan(30, 130), ["a", "c", "b"]);
        assert_eq!(plan(11, 130), ["a", "c"]);
        assert_eq!(plan(0, 130), [] as [&str; 0]);
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, at(230)), ["a", "c", "b", "d"]);
        uses.shift(SignedDuration::from_secs(3600));
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, at(230)), [] as [&str; 0], "as old as by the clock of before");
        assert_eq!(uses.plan(&sizes, &used(&[]), 100, at(3600 + 230)), ["a", "c", "b", "d"]);
        uses.see(std::iter::empty(), &used(&[]), at(300));
        assert!(uses.0.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn the_disk_is_brought_below_the_low_mark() {
        for (available, want) in [(16, None), (15, Some(5)), (0, Some(20))] {
            assert_eq!(excess(Level { available, capacity: 100 }), want, "{available}");
        }
        assert_eq!(excess(Level::default()), None);
    }
}
