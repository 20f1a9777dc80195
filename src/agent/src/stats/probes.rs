//! `/metrics/probes`: how often probes were asked, and with what result.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::text::{Kind, Text};

/// Whose probe, and which.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Of the pod.
    pub namespace: String,
    /// Of the pod.
    pub pod: String,
    /// Of the pod.
    pub uid: String,
    /// Container.
    pub container: String,
    /// `Startup`, `Readiness` or `Liveness`.
    pub probe: &'static str,
}

/// Counts of all pods that are here.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<Name, [u64; 2]>>);

impl Counts {
    /// A probe was asked.
    pub fn count(&self, name: &Name, ok: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(name) {
            Some(count) => count[usize::from(ok)] += 1,
            None => _ = counts.insert(name.clone(), if ok { [0, 1] } else { [1, 0] }),
        }
    }

    /// The pod is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| name.uid != uid);
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut out = Text::default();
        out.metric(
            "prober_probe_total",
            Kind::Counter,
            "Cumulative number of a liveness, readiness or startup probe for a container by result.",
        );
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, [failed, successful]) in counts.iter() {
            for (result, count) in [("failed", failed), ("successful", successful)] {
                let labels = [
                    ("container", name.container.as_str()),
                    ("namespace", name.namespace.as_str()),
                    ("pod", name.pod.as_str()),
                    ("pod_uid", name.uid.as_str()),
                    ("probe_type", name.probe),
                    ("result", result),
                ];
                if *count > 0 {
                    out.sample("prober_probe_total", &labels, count);
                }
            }
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_until_the_pod_goes() {
        let name = Name { namespace: "n".into(), pod: "p".into(), uid: "u".into(), container: "c".into(), probe: "Liveness" };
        let counts = Counts::default();
        for ok in [true, false, true] {
            counts.count(&name, ok);
        }
        let text = counts.text();
        let labels = "container=\"c\",namespace=\"n\",pod=\"p\",pod_uid=\"u\",probe_type=\"Liveness\"";
        assert!(text.contains(&format!("prober_probe_total{{{labels},result=\"successful\"}} 2\n")), "{text}");
        assert!(text.contains(&format!("prober_probe_total{{{labels},result=\"failed\"}} 1\n")), "{text}");
        counts.forget("u");
        assert!(!counts.text().contains("pod_uid"));
    }
}
