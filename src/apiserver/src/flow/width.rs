//! How many seats a request takes: lists by what they read, writes by whom they wake. Pure; upstream's numbers.

use std::time::Duration;

/// Objects that a list reads per seat.
const OBJECTS_PER_SEAT: u64 = 100;
/// Watchers that a write wakes per seat.
const WATCHERS_PER_SEAT: u64 = 10;
/// Most seats of one request.
const MOST: u64 = 10;
/// How long the events of a write keep a seat.
const EVENTS: Duration = Duration::from_millis(5);
/// Of a level's seats, how many one request may take: 15 percent.
const LEVEL_PERCENT: u64 = 15;

/// What a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Seats while it is served.
    pub seats: u32,
    /// Seats after that, for its events.
    pub after: u32,
    /// For how long.
    pub lasts: Duration,
}

impl Width {
    /// One seat.
    pub const ONE: Self = Self { seats: 1, after: 0, lasts: Duration::ZERO };

    /// What must be free for it to begin.
    pub fn most(&self) -> u32 {
        self.seats.max(self.after)
    }
}

fn bound(nominal: u32) -> u64 {
    (u64::from(nominal) * LEVEL_PERCENT).div_ceil(100).clamp(1, MOST)
}

/// A list, or a watch that begins with what is there, of so many objects; with a page's length where only that is read.
pub fn list(stored: usize, page: Option<usize>, nominal: u32) -> Width {
    let read = page.map_or(stored as u64, |page| 2 * page.min(stored) as u64);
    Width { seats: read.div_ceil(OBJECTS_PER_SEAT).clamp(1, bound(nominal)) as u32, ..Width::ONE }
}

/// A write that so many watchers hear of.
pub fn write(watchers: usize, nominal: u32) -> Width {
    let watchers = watchers as u64;
    if watchers < WATCHERS_PER_SEAT {
        return Width::ONE;
    }
    let wanted = watchers.div_ceil(WATCHERS_PER_SEAT);
    let after = wanted.min(bound(nominal));
    // Fewer seats, for longer.
    Width { seats: 1, after: after as u32, lasts: EVENTS.mul_f64(wanted as f64 / after as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths() {
        for (stored, page, nominal, seats) in [
            (0, None, 100, 1),
            (100, None, 100, 1),
            (101, None, 100, 2),
            (5000, None, 100, 10),
            (5000, None, 20, 3),
            (5000, Some(100), 100, 2),
            (10, Some(500), 100, 1),
            (5000, None, 0, 1),
        ] {
            assert_eq!(list(stored, page, nominal).seats, seats, "{stored} {page:?} {nominal}");
        }
        assert_eq!(write(9, 100), Width::ONE);
        assert_eq!(write(10, 100), Width { seats: 1, after: 1, lasts: EVENTS });
        assert_eq!(write(1000, 100), Width { seats: 1, after: 10, lasts: EVENTS * 10 });
    }
}
