//! A bounded set of series that are found by their labels without allocation.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, PoisonError, RwLock},
};

/// Series of one family; what comes beyond them goes into one without names, so that nobody fills the memory with odd requests.
const SERIES: usize = 2048;

/// Series by labels.
#[derive(Debug)]
pub struct Family<const N: usize, S> {
    hasher: RandomState,
    series: RwLock<HashMap<u64, Arc<Series<N, S>>>>,
}

/// One series.
#[derive(Debug)]
pub struct Series<const N: usize, S> {
    /// In the family's order.
    pub labels: [Box<str>; N],
    /// What it counts.
    pub value: S,
}

impl<const N: usize, S> Default for Family<N, S> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), series: RwLock::default() }
    }
}

impl<const N: usize, S> Family<N, S> {
    /// The series with these labels, made at its first mention.
    pub fn get(&self, labels: [&str; N], make: impl Fn() -> S) -> Arc<Series<N, S>> {
        let hash = self.hasher.hash_one(labels);
        let same = |series: &Arc<Series<N, S>>| series.labels.iter().zip(labels).all(|(own, label)| **own == *label);
        if let Some(found) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&hash).filter(|series| same(series)) {
            return Arc::clone(found);
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&hash);
        if let Some(found) = known.filter(|series| same(series)) {
            return Arc::clone(found);
        }
        // Two label sets of one hash are as good as never seen; the second counts without its names.
        let labels = if known.is_some() || all.len() >= SERIES { [""; N] } else { labels };
        let new = || Arc::new(Series { labels: labels.map(Box::from), value: make() });
        Arc::clone(all.entry(self.hasher.hash_one(labels)).or_insert_with(new))
    }

    /// Keeps the series whose labels these are; who counts in another one just now counts for nobody.
    pub fn retain(&self, stays: impl Fn(&[Box<str>; N]) -> bool) {
        self.series.write().unwrap_or_else(PoisonError::into_inner).retain(|_, series| stays(&series.labels));
    }

    /// All, in the order of their labels.
    pub fn all(&self) -> Vec<Arc<Series<N, S>>> {
        let mut all: Vec<_> = self.series.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn odd_labels_do_not_fill_the_memory() {
        let family = Family::<2, AtomicU64>::default();
        let add = |a: &str, b: &str| family.get([a, b], AtomicU64::default).value.fetch_add(1, Ordering::Relaxed);
        assert_eq!((add("x", "y"), add("x", "y"), add("xy", "")), (0, 1, 0));
        for number in 0..2 * SERIES {
            add("n", &number.to_string());
        }
        let all = family.all();
        assert_eq!(all.len(), SERIES + 1);
        assert_eq!(all.iter().map(|series| series.value.load(Ordering::Relaxed)).sum::<u64>(), 3 + 2 * SERIES as u64);
        assert_eq!(add("x", "y"), 2, "who has a series keeps it");
        family.retain(|[first, _]| **first != *"n");
        assert_eq!((family.all().len(), add("x", "y"), add("n", "1")), (3, 3, 0), "what is forgotten makes room");
    }
}
