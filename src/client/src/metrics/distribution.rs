//! How durations are spread: counts below fixed bounds, without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::sample;

/// Counts of durations, told in seconds.
#[derive(Debug)]
pub struct Distribution {
    bounds: &'static [f64],
    /// Up to each bound and above the one before; the last is for those above all.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Distribution {
    /// With these bounds, in seconds.
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum_ns: AtomicU64::new(0) }
    }

    /// One more.
    pub fn took(&self, duration: Duration) {
        let at = self.bounds.partition_point(|bound| *bound < duration.as_secs_f64());
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_ns.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Its samples; none while it is empty.
    pub fn write(&self, out: &mut String, name: &str, labels: &[(&str, &str)]) {
        let counts: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        if all == 0 {
            return;
        }
        let (bucket, mut below) = (format!("{name}_bucket"), 0);
        for (at, count) in counts.iter().enumerate() {
            below += count;
            let bound = self.bounds.get(at).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            let with_bound: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            sample(out, &bucket, &with_bound, below);
        }
        sample(out, &format!("{name}_sum"), labels, self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
        sample(out, &format!("{name}_count"), labels, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_is_below_it() {
        let spread = Distribution::new(&[0.005, 1.0]);
        let mut page = String::new();
        spread.write(&mut page, "x", &[]);
        assert_eq!(page, "", "nothing is told of nothing");
        for millis in [1, 5, 6, 1000, 2000] {
            spread.took(Duration::from_millis(millis));
        }
        spread.write(&mut page, "x", &[("a", "b")]);
        let wanted = "x_bucket{a=\"b\",le=\"0.005\"} 2\nx_bucket{a=\"b\",le=\"1\"} 4\nx_bucket{a=\"b\",le=\"+Inf\"} 5\n\
                      x_sum{a=\"b\"} 3.012\nx_count{a=\"b\"} 5\n";
        assert_eq!(page, wanted);
    }
}
