//! What is counted of the rules of custom resources in CEL: how long they take to be compiled, and to be asked.

use std::time::Instant;

use coracle_api::custom::Served;

use super::{
    histogram::Histogram,
    page::{Page, Stability},
};

/// Seconds: what a Prometheus client takes that is told nothing else, as upstream's is.
const DURATIONS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Both distributions.
#[derive(Debug)]
pub struct Rules {
    compilation: Histogram,
    evaluation: Histogram,
}

impl Default for Rules {
    fn default() -> Self {
        Self { compilation: Histogram::seconds(DURATIONS), evaluation: Histogram::seconds(DURATIONS) }
    }
}

impl Rules {
    /// Judges an object by the definition of its kind, if it has one. Rules are compiled at the first write of a kind.
    pub fn judge<T>(&self, definition: Option<&Served>, judge: impl FnOnce() -> T) -> T {
        let Some(definition) = definition else { return judge() };
        let (begun, compiled) = (Instant::now(), definition.is_compiled());
        if !definition.checks().has_rules {
            return judge();
        }
        if !compiled {
            self.compilation.took(begun.elapsed());
        }
        let begun = Instant::now();
        let out = judge();
        self.evaluation.took(begun.elapsed());
        out
    }

    /// Writes the families.
    pub fn write(&self, page: &mut Page) {
        for (name, help, histogram) in [
            ("apiserver_cel_compilation_duration_seconds", "How long rules of custom resources take to be compiled.", &self.compilation),
            ("apiserver_cel_evaluation_duration_seconds", "How long objects take to be judged by rules.", &self.evaluation),
        ] {
            page.family(name, "histogram", Stability::Alpha, help);
            histogram.write(page, name, &[]);
        }
    }
}
