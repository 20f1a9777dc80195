//! From two looks at a node to what it and its containers use. Pure.

use std::collections::BTreeMap;

/// A container.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// What was read of a thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Since its start.
    pub(super) cpu_nanoseconds: u64,
    /// When that was, in milliseconds since the epoch.
    pub(super) at: i64,
    pub(super) memory_bytes: u64,
    /// In milliseconds since the epoch; 0 is unknown.
    pub(super) started_at: i64,
}

/// What was read at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Look {
    pub(super) node: Sample,
    pub(super) containers: BTreeMap<Name, Sample>,
}

/// What a thing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Figures {
    /// Nanoseconds of CPU per second.
    pub(super) cpu: u64,
    /// Bytes.
    pub(super) memory: u64,
    /// The end of the time that `cpu` is the mean of, in milliseconds since the epoch.
    pub(super) at: i64,
    /// How long that was, in milliseconds.
    pub(super) window: i64,
}

/// What a node and its containers use.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) node: Option<Figures>,
    pub(super) containers: BTreeMap<Name, Figures>,
}

/// Of two looks.
pub(super) fn usage(before: &Look, now: &Look) -> Usage {
    let containers = now.containers.iter().filter_map(|(name, sample)| Some((name.clone(), figures(before.containers.get(name), sample)?)));
    Usage { node: figures(Some(&before.node), &now.node), containers: containers.collect() }
}

/// `None`: the two say nothing of now.
fn figures(before: Option<&Sample>, now: &Sample) -> Option<Figures> {
    if now.at == 0 {
        return None;
    }
    let same = before.filter(|before| before.at > 0 && before.at < now.at && before.started_at == now.started_at);
    let same = same.filter(|before| before.cpu_nanoseconds <= now.cpu_nanoseconds);
    // One that has begun since is looked at from its start, when it had used nothing.
    let (used, from) = match same {
        Some(before) => (now.cpu_nanoseconds - before.cpu_nanoseconds, before.at),
        None if now.started_at > 0 && now.started_at < now.at => (now.cpu_nanoseconds, now.started_at),
        None => return None,
    };
    let window = now.at - from;
    let cpu = u128::from(used) * 1000 / u128::from(window.unsigned_abs());
    Some(Figures { cpu: u64::try_from(cpu).unwrap_or(u64::MAX), memory: now.memory_bytes, at: now.at, window })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_looks_make_figures() {
        let sample = |cpu, at, started| Sample { cpu_nanoseconds: cpu, at, memory_bytes: 4096, started_at: started };
        for (case, before, now, expected) in [
            ("a second of CPU in two", Some(sample(1_000_000_000, 10_000, 1)), sample(2_000_000_000, 12_000, 1), Some((500_000_000, 2000))),
            ("it has begun since", None, sample(500, 12_000, 11_000), Some((500, 1000))),
            ("it has begun anew", Some(sample(9_000, 10_000, 1)), sample(500, 12_000, 11_000), Some((500, 1000))),
            ("one and the same look", Some(sample(1, 10_000, 0)), sample(1, 10_000, 0), None),
            ("no start is known", None, sample(1, 10_000, 0), None),
            ("nothing was read", None, Sample::default(), None),
        ] {
            let got = figures(before.as_ref(), &now).map(|figures| (figures.cpu, figures.window));
            assert_eq!(got, expected, "{case}");
        }
    }
}
