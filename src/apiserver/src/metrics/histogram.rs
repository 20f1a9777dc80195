//! Distributions: counts below fixed bounds, without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::page::Page;

/// A distribution. Values are whole units (nanoseconds, bytes); bounds and sums are told in `unit` of them.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [f64],
    unit: f64,
    /// Values up to each bound and above the one before; the last is for those above all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Of durations, told in seconds.
    pub fn seconds(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1e9)
    }

    /// Of sizes and numbers.
    pub fn whole(bounds: &'static [f64]) -> Self {
        Self::new(bounds, 1.0)
    }

    fn new(bounds: &'static [f64], unit: f64) -> Self {
        Self { bounds, unit, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Takes a duration in.
    pub fn took(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes a value in.
    pub fn observe(&self, value: u64) {
        let told = value as f64 / self.unit;
        let at = self.bounds.partition_point(|bound| *bound < told);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Takes in so many values up to the first bound, with this sum.
    pub fn observe_short(&self, count: u64, sum: u64) {
        self.counts[0].fetch_add(count, Ordering::Relaxed);
        self.sum.fetch_add(sum, Ordering::Relaxed);
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Its samples. Nothing when there is no value: a page of zeros helps nobody.
    pub fn write(&self, page: &mut Page, name: &str, labels: &[(&str, &str)]) {
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        if self.count() == 0 {
            return;
        }
        for (at, count) in self.counts.iter().enumerate() {
            below += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let with_bound: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            page.sample(&bucket, &with_bound, below);
        }
        page.sample(&format!("{name}_sum"), labels, self.sum.load(Ordering::Relaxed) as f64 / self.unit);
        page.sample(&format!("{name}_count"), labels, below);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_below_it() {
        let histogram = Histogram::seconds(&[0.005, 1.0]);
        for millis in [1, 5, 6, 1000, 2000] {
            histogram.took(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        histogram.write(&mut page, "x", &[("a", "b\"")]);
        let wanted = "x_bucket{a=\"b\\\"\",le=\"0.005\"} 2\nx_bucket{a=\"b\\\"\",le=\"1\"} 4\nx_bucket{a=\"b\\\"\",le=\"+Inf\"} 5\n\
                      x_sum{a=\"b\\\"\"} 3.012\nx_count{a=\"b\\\"\"} 5\n";
        assert_eq!(page.finish(), wanted);
    }
}
