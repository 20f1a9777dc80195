//! Whether this machine can carry the dataplane, and what to do where it cannot.

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `BPF file system`.
    pub what: &'static str,
    /// How it stands.
    pub verdict: Verdict,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There; the text says which.
    Good(String),
    /// Works without, less well: what is lost, and what to do.
    Lacking(String),
    /// Pods get no network: what to do.
    Missing(String),
}

/// Looks at the kernel's features, bpffs, BTF and cgroups of this machine. Changes nothing that stays.
pub fn probe() -> Vec<Finding> {
    Vec::new()
}
