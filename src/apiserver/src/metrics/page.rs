//! The text format of Prometheus: families, their samples, escaped labels.

use std::fmt::{Display, Write as _};

/// Characters of a label: names are shorter, and a path may be as long as a request's head.
const LABEL_CHARS: usize = 253;

/// How much upstream promises about a metric; its pages say so in the help.
#[derive(Clone, Copy, Debug)]
pub enum Stability {
    /// May go.
    Alpha,
    /// May change.
    Beta,
    /// Stays.
    Stable,
}

/// A page that is being written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

// Writing to a String cannot fail: the results of `write!` are dropped below.
impl Page {
    /// Opens a family.
    pub fn family(&mut self, name: &str, kind: &str, stability: Stability, help: &str) {
        let stability = match stability {
            Stability::Alpha => "ALPHA",
            Stability::Beta => "BETA",
            Stability::Stable => "STABLE",
        };
        let _ = writeln!(self.text, "# HELP {name} [{stability}] {help}\n# TYPE {name} {kind}");
    }

    /// One sample of the family.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            escape(text, &mut self.text);
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, stability: Stability, help: &str, value: impl Display) {
        self.family(name, kind, stability, help);
        self.sample(name, &[], value);
    }

    /// The page.
    pub fn finish(self) -> String {
        self.text
    }
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars().take(LABEL_CHARS) {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}
