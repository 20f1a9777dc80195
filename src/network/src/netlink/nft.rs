//! The nftables table of a cluster: what leaves its pods for elsewhere leaves with the node's address.

use std::io;

use super::{Request, Socket};
use crate::Cidr;

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
/// `NFPROTO_IPV4`.
const FAMILY: u8 = 2;
const CHAIN: &str = "postrouting";
/// Where the source of packets is translated, by nftables' convention.
const PRIORITY: u32 = 100;
const HOOK_POSTROUTING: u32 = 4;
const REGISTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
/// Offsets in the IPv4 header.
const SOURCE: u32 = 12;
const TARGET: u32 = 16;
const EQUAL: u32 = 0;
const UNEQUAL: u32 = 1;

/// The table's name.
pub fn table(cluster_id: &str) -> String {
    format!("coracle-{cluster_id}")
}

/// Makes (or replaces, in one transaction) the table: what comes from `pods` and goes beyond `cluster` is masqueraded.
pub fn masquerade(socket: &mut Socket, cluster_id: &str, pods: Cidr, cluster: Cidr) -> io::Result<()> {
    let table = table(cluster_id);
    let rule = [matches(SOURCE, EQUAL, pods)?, matches(TARGET, UNEQUAL, cluster)?];
    let requests = vec![
        new_table(&table),
        delete_table(&table),
        new_table(&table),
        request(NEWCHAIN, libc::NLM_F_CREATE)
            .text(1, &table)
            .text(3, CHAIN)
            .text(7, "nat")
            .nested(4, |hook| hook.attribute(1, &HOOK_POSTROUTING.to_be_bytes()).attribute(2, &PRIORITY.to_be_bytes())),
        request(NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND).text(1, &table).text(2, CHAIN).nested(4, |mut list| {
            for expression in rule.into_iter().flatten() {
                list = list.nested(1, expression);
            }
            list.nested(1, |element| element.text(1, "masq").nested(2, |data| data))
        }),
    ];
    socket.transact(batch(BATCH_BEGIN), requests, batch(BATCH_END))
}

/// Removes the table; that there is none is no error.
pub fn remove(socket: &mut Socket, cluster_id: &str) -> io::Result<()> {
    let table = table(cluster_id);
    socket.transact(batch(BATCH_BEGIN), vec![new_table(&table), delete_table(&table)], batch(BATCH_END))
}

fn new_table(name: &str) -> Request {
    request(NEWTABLE, libc::NLM_F_CREATE).text(1, name)
}

fn delete_table(name: &str) -> Request {
    request(DELTABLE, 0).text(1, name)
}

type Expression = Box<dyn FnOnce(Request) -> Request>;

/// Loads an address of the IPv4 header, keeps its prefix, compares it.
fn matches(offset: u32, operator: u32, range: Cidr) -> io::Result<[Expression; 3]> {
    let std::net::IpAddr::V4(network) = range.address() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{range} is not an IPv4 range")));
    };
    let mask = u32::MAX.checked_shl(32 - u32::from(range.prefix())).unwrap_or(0).to_be_bytes();
    Ok([
        expression("payload", move |data| {
            let data = data.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &NETWORK_HEADER.to_be_bytes());
            data.attribute(3, &offset.to_be_bytes()).attribute(4, &4u32.to_be_bytes())
        }),
        expression("bitwise", move |data| {
            let data = data.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &REGISTER.to_be_bytes()).attribute(3, &4u32.to_be_bytes());
            data.nested(4, |value| value.attribute(1, &mask)).nested(5, |value| value.attribute(1, &[0; 4]))
        }),
        expression("cmp", move |data| {
            let data = data.attribute(1, &REGISTER.to_be_bytes()).attribute(2, &operator.to_be_bytes());
            data.nested(3, |value| value.attribute(1, &network.octets()))
        }),
    ])
}

fn expression(name: &'static str, data: impl FnOnce(Request) -> Request + 'static) -> Expression {
    Box::new(move |element| element.text(1, name).nested(2, data))
}

fn request(kind: u16, flags: i32) -> Request {
    Request::new(kind, flags).raw(&[FAMILY, 0, 0, 0])
}

fn batch(kind: u16) -> Request {
    Request::new(kind, 0).raw(&[0, 0, 0, SUBSYSTEM as u8])
}
