//! The nftables table of a cluster: what leaves its pods for elsewhere leaves with the node's address.
//!
//! rtnetlink does not speak nftables; the same authors' message types do. A batch is one datagram to the kernel, carried out whole or not at all.

use std::io;

use ipnet::Ipv4Net;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
    nftables::{
        Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, InetHookNumber, NfTablesMessage, Operator, Payload,
        Register, RuleAttribute, RuleMessage, TableAttribute, TableMessage,
    },
    none::ControlMessage,
};
use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    sys::{Socket, protocols::NETLINK_NETFILTER},
};

const CHAIN: &str = "postrouting";
/// Where the source of packets is translated, by nftables' convention.
const PRIORITY: u32 = 100;
/// Expressions hand an address on in this register.
const REGISTER: Register = Register::Reg1;
/// Offsets count from the IPv4 header.
const NETWORK_HEADER: u32 = 1;
const SOURCE: u32 = 12;
const TARGET: u32 = 16;
const ADDRESS_BYTES: u32 = 4;
/// `struct nlmsghdr` and what follows it begin at multiples of this many bytes.
const ALIGN: usize = 4;

/// The table's name.
pub fn table(cluster_id: &str) -> String {
    format!("coracle-{cluster_id}")
}

/// Whether the kernel has netfilter's netlink.
pub fn available() -> bool {
    Socket::new(NETLINK_NETFILTER).is_ok()
}

/// Makes (or replaces, in one transaction) the table: what comes from `pods` and goes beyond `cluster` is masqueraded.
pub fn masquerade(cluster_id: &str, pods: Ipv4Net, cluster: Ipv4Net) -> io::Result<()> {
    let table = table(cluster_id);
    let chain = ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.clone()),
            ChainAttribute::Name(CHAIN.into()),
            ChainAttribute::Type("nat".into()),
            ChainAttribute::Hook(vec![Hook::Number(InetHookNumber::PostRouting.into()), Hook::Priority(PRIORITY)]),
        ],
    };
    let masquerade = Expressions::Other { expression_type: "masq".into(), attributes: Vec::new() };
    let expressions =
        matches(SOURCE, Operator::Equal, pods).into_iter().chain(matches(TARGET, Operator::NotEqual, cluster)).chain([masquerade]);
    let rule = RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.clone()),
            RuleAttribute::Chain(CHAIN.into()),
            RuleAttribute::Expressions(expressions.map(Into::into).collect()),
        ],
    };
    transact(vec![
        new_table(&table),
        delete_table(&table),
        new_table(&table),
        (NfTablesMessage::NewChain(chain), NLM_F_CREATE),
        (NfTablesMessage::NewRule(rule), NLM_F_CREATE | NLM_F_APPEND),
    ])
}

/// Removes the table; that there is none is no error.
pub fn remove(cluster_id: &str) -> io::Result<()> {
    let table = table(cluster_id);
    transact(vec![new_table(&table), delete_table(&table)])
}

/// A message, and its flags beyond those that all have.
type Step = (NfTablesMessage, u16);

fn new_table(name: &str) -> Step {
    (NfTablesMessage::NewTable(TableMessage { attributes: vec![TableAttribute::Name(name.into())] }), NLM_F_CREATE)
}

fn delete_table(name: &str) -> Step {
    (NfTablesMessage::DeleteTable(TableMessage { attributes: vec![TableAttribute::Name(name.into())] }), 0)
}

/// Loads an address of the IPv4 header, keeps its prefix, compares it.
fn matches(offset: u32, operator: Operator, range: Ipv4Net) -> [Expressions; 3] {
    let value = |octets: [u8; 4]| DataAttribute::Value(octets.into());
    [
        Expressions::Payload(vec![
            Payload::DestinationRegister(REGISTER),
            Payload::Base(NETWORK_HEADER),
            Payload::Offset(offset),
            Payload::Len(ADDRESS_BYTES),
        ]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(REGISTER),
            Bitwise::DestinationRegister(REGISTER),
            Bitwise::Length(ADDRESS_BYTES),
            Bitwise::Mask(value(range.netmask().octets())),
            Bitwise::Xor(value([0; 4])),
        ]),
        Expressions::Cmp(vec![Cmp::SourceRegister(REGISTER), Cmp::Op(operator), Cmp::Data(value(range.network().octets()))]),
    ]
}

/// Carries all steps out, or none. The first refusal is told; only the steps are acknowledged, not the frame round them.
fn transact(steps: Vec<Step>) -> io::Result<()> {
    let mut open = steps.len();
    let frame = |message| message_of(NetfilterProtoFamily::Unspec, u8::from(NetfilterSubsystem::NfTables).into(), message, 0);
    let mut batch = vec![frame(ControlMessage::BatchBegin)];
    batch.extend(steps.into_iter().map(|(step, flags)| message_of(NetfilterProtoFamily::IPv4, 0, step, flags | NLM_F_ACK)));
    batch.push(frame(ControlMessage::BatchEnd));

    let mut bytes = Vec::new();
    for (sequence, mut message) in (1..).zip(batch) {
        message.header.sequence_number = sequence;
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    let socket = Socket::new(NETLINK_NETFILTER)?;
    socket.send(&bytes, 0)?;
    while open > 0 {
        let (answers, _) = socket.recv_from_full()?;
        let mut rest = answers.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            if let NetlinkPayload::Error(word) = answer.payload {
                if word.code.is_some() {
                    return Err(word.to_io());
                }
                open = open.saturating_sub(1);
            }
            rest = rest.get((answer.header.length as usize).next_multiple_of(ALIGN)..).unwrap_or_default();
        }
    }
    Ok(())
}

fn message_of(
    family: NetfilterProtoFamily,
    resource: u16,
    message: impl Into<NetfilterMessageInner>,
    flags: u16,
) -> NetlinkMessage<NetfilterMessage> {
    let mut message = NetlinkMessage::from(NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), message));
    message.header.flags = NLM_F_REQUEST | flags;
    message
}
