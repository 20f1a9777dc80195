//! What went over the interfaces of a network namespace.

use std::fs;

/// Of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that came.
    pub received_bytes: u64,
    /// Packets that came.
    pub received_packets: u64,
    /// That came and were broken.
    pub received_errors: u64,
    /// That came and were dropped.
    pub received_dropped: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Packets that went.
    pub sent_packets: u64,
    /// That could not go.
    pub sent_errors: u64,
    /// That were to go and were dropped.
    pub sent_dropped: u64,
}

/// The pod's interface.
pub const INTERFACE: &str = "eth0";

/// Of the pod's interface, as a process in it sees it.
pub fn of_process(pid: u32) -> Option<Traffic> {
    parse(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?, INTERFACE)
}

fn parse(table: &str, interface: &str) -> Option<Traffic> {
    let line = table.lines().find_map(|l| l.trim_start().strip_prefix(interface)?.strip_prefix(':'))?;
    let figures: Vec<u64> = line.split_whitespace().map_while(|f| f.parse().ok()).collect();
    let &[
        received_bytes,
        received_packets,
        received_errors,
        received_dropped,
        ..,
        sent_bytes,
        sent_packets,
        sent_errors,
        sent_dropped,
        _,
        _,
        _,
        _,
    ] = figures.as_slice()
    else {
        return None;
    };
    Some(Traffic {
        received_bytes,
        received_packets,
        received_errors,
        received_dropped,
        sent_bytes,
        sent_packets,
        sent_errors,
        sent_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
                     face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
                     lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n  \
                     eth0: 1266      13    1    2    0     0          0         0      936      11    3    4    0     0       0          0\n";
        let got = parse(table, "eth0").expect("it is there");
        assert_eq!((got.received_bytes, got.received_packets, got.received_errors, got.received_dropped), (1266, 13, 1, 2));
        assert_eq!((got.sent_bytes, got.sent_packets, got.sent_errors, got.sent_dropped), (936, 11, 3, 4));
        assert_eq!(parse(table, "eth"), None);
    }
}
