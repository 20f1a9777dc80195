//! The text format of Prometheus, version 0.0.4.

use std::fmt::{Display, Write as _};

/// A growing text.
#[derive(Debug, Default)]
pub struct Text(String);

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

impl Text {
    /// Begins a metric; its samples follow.
    pub fn metric(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", help.replace('\\', "\\\\").replace('\n', "\\n"));
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.line(name, labels, value);
        self.0.push('\n');
    }

    /// A sample of this time, in milliseconds.
    pub fn sample_at(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display, milliseconds: i64) {
        self.line(name, labels, value);
        let _ = writeln!(self.0, " {milliseconds}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = write!(self.0, " {value}");
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// Nanoseconds as seconds.
pub fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.metric("m", Kind::Gauge, "Help.");
        text.sample("m", &[("a", "x\"y\\z\n'"), ("b", "")], 1.5);
        text.sample_at("m", &[], 2, 99);
        assert_eq!(text.finish(), "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"y\\\\z\\n'\",b=\"\"} 1.5\nm 2 99\n");
    }
}
