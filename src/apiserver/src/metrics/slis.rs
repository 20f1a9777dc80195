//! `/metrics/slis`: what the checks of health came to, for who watches the server's service level (KEP-3466).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{
    family::Family,
    page::{Page, Stability},
};

/// What the checks came to; nothing of those that nobody asked for.
#[derive(Debug, Default)]
pub struct Slis {
    /// By name and type: the last part of the path that was asked.
    checks: Family<2, Outcomes>,
}

#[derive(Debug, Default)]
struct Outcomes {
    passed: AtomicU64,
    failed: AtomicU64,
    /// The last one.
    passes: AtomicBool,
}

impl Slis {
    /// A check was made.
    pub fn checked(&self, name: &str, kind: &str, passed: bool) {
        let outcomes = &self.checks.get([name, kind], Outcomes::default).value;
        let count = if passed { &outcomes.passed } else { &outcomes.failed };
        count.fetch_add(1, Ordering::Relaxed);
        outcomes.passes.store(passed, Ordering::Relaxed);
    }

    /// The page.
    pub fn page(&self) -> String {
        let (mut page, all) = (Page::default(), self.checks.all());
        let (now, total) = ("kubernetes_healthcheck", "kubernetes_healthchecks_total");
        page.family(now, "gauge", Stability::Stable, "Whether a check of health passed when it was last made.");
        for series in &all {
            let [name, kind] = &series.labels;
            page.sample(now, &[("name", name), ("type", kind)], u8::from(series.value.passes.load(Ordering::Relaxed)));
        }
        page.family(total, "counter", Stability::Stable, "Checks of health that were made.");
        for series in &all {
            let [name, kind] = &series.labels;
            for (status, count) in [("error", &series.value.failed), ("success", &series.value.passed)] {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    page.sample(total, &[("name", name), ("status", status), ("type", kind)], count);
                }
            }
        }
        page.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_told_as_they_were_last_and_counted_by_how_they_ended() {
        let slis = Slis::default();
        for (name, kind, passed) in
            [("ping", "livez", true), ("etcd", "readyz", true), ("etcd", "readyz", false), ("etcd", "readyz", false)]
        {
            slis.checked(name, kind, passed);
        }
        let page = slis.page();
        let samples: Vec<&str> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            "kubernetes_healthcheck{name=\"etcd\",type=\"readyz\"} 0",
            "kubernetes_healthcheck{name=\"ping\",type=\"livez\"} 1",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"error\",type=\"readyz\"} 2",
            "kubernetes_healthchecks_total{name=\"etcd\",status=\"success\",type=\"readyz\"} 1",
            "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"livez\"} 1",
        ];
        assert_eq!(samples, wanted);
        assert!(
            page.contains("# TYPE kubernetes_healthcheck gauge\n") && page.contains("kubernetes_healthchecks_total [STABLE]"),
            "{page}"
        );
    }
}
