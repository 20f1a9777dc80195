//! Reads `/metrics/resource` of a node (Prometheus' text format 0.0.4) as far as it is looked at here. Pure; what is not understood is passed over.

use super::window::{Look, Name, Sample};

/// One look; samples without a time of their own are of `now`, in milliseconds.
pub(super) fn look(text: &str, now: i64) -> Look {
    let mut look = Look::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, labels, value, at)) = sample(line) else { continue };
        let at = at.unwrap_or(now);
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone()).unwrap_or_default();
        let of_container = || Name { namespace: label("namespace"), pod: label("pod"), container: label("container") };
        match name {
            "node_cpu_usage_seconds_total" => look.node.cpu(value, at),
            "node_memory_working_set_bytes" => look.node.memory(value),
            "container_cpu_usage_seconds_total" => look.containers.entry(of_container()).or_default().cpu(value, at),
            "container_memory_working_set_bytes" => look.containers.entry(of_container()).or_default().memory(value),
            "container_start_time_seconds" => look.containers.entry(of_container()).or_default().started(value),
            _ => {}
        }
    }
    look
}

impl Sample {
    fn cpu(&mut self, seconds: f64, at: i64) {
        (self.cpu_nanoseconds, self.at) = ((seconds * 1e9) as u64, at);
    }

    fn memory(&mut self, bytes: f64) {
        self.memory_bytes = bytes as u64;
    }

    fn started(&mut self, seconds: f64) {
        self.started_at = (seconds * 1e3) as i64;
    }
}

type Line<'a> = (&'a str, Vec<(&'a str, String)>, f64, Option<i64>);

fn sample(line: &str) -> Option<Line<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside.trim_start_matches(' ');
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.push((label.trim(), value));
            rest = after.trim_start_matches([',', ' ']);
        }
        rest = &rest[1..];
    }
    let mut figures = rest.split_whitespace();
    let value: f64 = figures.next()?.parse().ok()?;
    Some((name, labels, value, figures.next().and_then(|at| at.parse().ok())))
}

/// A value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => out.push('\n'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_text() {
        let text = "# HELP container_cpu_usage_seconds_total x\n# TYPE container_cpu_usage_seconds_total counter\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\\\"\\\\q\"} 1.5 1700000000000\n\
            container_memory_working_set_bytes{container=\"c\",namespace=\"n\",pod=\"p\\\"\\\\q\"} 4.096e+03 1700000000000\n\
            container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\\\"\\\\q\"} 1.7e9\n\
            node_cpu_usage_seconds_total 7 1700000000001\nnode_memory_working_set_bytes 8\nother{a=\"b\"} 1\nbroken{a=\n\n";
        let look = look(text, 5);
        let name = Name { namespace: "n".into(), pod: "p\"\\q".into(), container: "c".into() };
        let sample = Sample { cpu_nanoseconds: 1_500_000_000, at: 1_700_000_000_000, memory_bytes: 4096, started_at: 1_700_000_000_000 };
        assert_eq!(look.containers.into_iter().collect::<Vec<_>>(), [(name, sample)]);
        assert_eq!((look.node.cpu_nanoseconds, look.node.at, look.node.memory_bytes), (7_000_000_000, 1_700_000_000_001, 8));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z_{}=\", \\\\n0-9.\n]{0,120}") {
            let _ = look(&text, 0);
        }
    }
}
