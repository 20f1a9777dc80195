//! What the roles of this process ask of the API and how their work queues do, for Prometheus, under the names that client-go gives it.
//!
//! One page for all roles of a process: whoever serves `/metrics` in it shows it.

mod distribution;
mod queue;
mod requests;

use std::fmt::{Display, Write as _};

pub use distribution::Distribution;
pub use queue::{Queue, Working, queue};
pub(crate) use requests::Counted;

/// The page.
pub fn page() -> String {
    let mut out = String::new();
    requests::write(&mut out);
    queue::write(&mut out);
    out
}

/// Opens a family.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} [ALPHA] {help}\n# TYPE {name} {kind}");
}

/// One sample of the family. Labels are names of ours, methods, codes and addresses: nothing in them needs to be escaped.
pub fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (at, (label, text)) in labels.iter().enumerate() {
        let _ = write!(out, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}
