//! A set of numbers below a bound, with random free ones: addresses of a range, ports.

/// Numbers from 0 to a bound.
#[derive(Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    size: usize,
    used: usize,
    /// Free numbers are taken at and above this first; the lower band is for those who ask for a number.
    dynamic_from: usize,
}

impl Bitmap {
    /// All free.
    pub fn new(size: usize, dynamic_from: usize) -> Self {
        Self { words: vec![0; size.div_ceil(64)], size, used: 0, dynamic_from: dynamic_from.min(size) }
    }

    /// The bound.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many are taken.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Whether a number is taken.
    pub fn has(&self, at: usize) -> bool {
        at < self.size && self.words[at / 64] & (1 << (at % 64)) != 0
    }

    /// Takes a number; false when it is taken or out of bounds.
    pub fn take(&mut self, at: usize) -> bool {
        if at >= self.size || self.has(at) {
            return false;
        }
        self.words[at / 64] |= 1 << (at % 64);
        self.used += 1;
        true
    }

    /// Gives a number back.
    pub fn release(&mut self, at: usize) {
        if self.has(at) {
            self.words[at / 64] &= !(1 << (at % 64));
            self.used -= 1;
        }
    }

    /// Takes a free number, beginning the search at `random` in the upper band, then in the lower.
    pub fn take_any(&mut self, random: u64) -> Option<usize> {
        let upper = self.dynamic_from..self.size;
        let lower = 0..self.dynamic_from;
        let at = self.free_in(upper, random).or_else(|| self.free_in(lower, random))?;
        self.take(at).then_some(at)
    }

    fn free_in(&self, band: std::ops::Range<usize>, random: u64) -> Option<usize> {
        if band.is_empty() {
            return None;
        }
        let start = band.start + usize::try_from(random % band.len() as u64).unwrap_or(0);
        (start..band.end).chain(band.start..start).find(|at| !self.has(*at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(size in 1usize..300, from in 0usize..300, acts in prop::collection::vec((0u8..3, any::<u64>()), 0..400)) {
            let (mut map, mut model) = (Bitmap::new(size, from), BTreeSet::new());
            for (act, number) in acts {
                let at = usize::try_from(number % 310).unwrap();
                match act {
                    0 => prop_assert_eq!(map.take(at), at < size && model.insert(at)),
                    1 => { map.release(at); model.remove(&at); }
                    _ => match map.take_any(number) {
                        Some(at) => {
                            prop_assert!(at < size && model.insert(at));
                            let upper_full = (from.min(size)..size).all(|n| model.contains(&n));
                            prop_assert!(at >= from.min(size) || upper_full);
                        }
                        None => prop_assert_eq!(model.len(), size),
                    },
                }
                prop_assert_eq!(map.used(), model.len());
            }
        }
    }
}
