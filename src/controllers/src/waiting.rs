//! What a key waits for, as typed reasons that `coracle why` prints.

use std::fmt;

use jiff::Timestamp;

/// One thing that has to happen before the key is where its spec wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Pods that exist but are not available yet.
    PodsAvailable {
        /// Not yet.
        missing: i32,
        /// Wanted.
        wanted: i32,
    },
    /// Pods of the old revision that still run.
    OldPodsGone {
        /// How many.
        left: i32,
    },
    /// Pods that are being deleted.
    PodsTerminating {
        /// How many.
        left: i32,
    },
    /// `spec.paused` is set.
    Paused,
    /// A ReplicaSet's controller has not seen its newest spec yet.
    Observed {
        /// Its name.
        replica_set: String,
    },
    /// Objects that hold finalizers or graceful deletions.
    ContentGone {
        /// How many objects.
        left: usize,
        /// Of which kinds.
        kinds: Vec<String>,
    },
    /// A sign of life of a node.
    Heartbeat {
        /// The last one.
        since: Timestamp,
    },
    /// Dependents that block the deletion of their owner.
    DependentsGone {
        /// How many.
        left: usize,
    },
    /// That nobody uses the object any more.
    Unused {
        /// Who does.
        by: String,
    },
    /// An address of a Service that is in no other range.
    AddressFree {
        /// The address.
        address: std::net::IpAddr,
    },
    /// Nothing but time.
    Time {
        /// Until then.
        until: Timestamp,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::PodsAvailable { missing, wanted } => write!(f, "{missing} of {wanted} pods are not available yet"),
            Waiting::OldPodsGone { left } => write!(f, "{left} pods of older revisions still run"),
            Waiting::PodsTerminating { left } => write!(f, "{left} pods are being deleted"),
            Waiting::Paused => f.write_str("spec.paused is set"),
            Waiting::Observed { replica_set } => write!(f, "ReplicaSet {replica_set} has not acted on its newest spec yet"),
            Waiting::ContentGone { left, kinds } => write!(f, "{left} objects are still there ({})", kinds.join(", ")),
            Waiting::Heartbeat { since } => write!(f, "the node has given no sign of life since {since}"),
            Waiting::DependentsGone { left } => write!(f, "{left} dependents are still there"),
            Waiting::Unused { by } => write!(f, "{by} uses it"),
            Waiting::AddressFree { address } => write!(f, "address {address} is in use and in no other range"),
            Waiting::Time { until } => write!(f, "until {until}"),
        }
    }
}
