//! Answers as DNS messages: the question's own spelling is kept, whatever case it was asked in (RFC 1035, RFC 2308).

use std::{net::IpAddr, str::FromStr as _};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, PTR, SOA, SRV, TXT},
};

use crate::answer::{Data, Kind, TTL_SECONDS};

/// What a record type is to us.
pub fn kind(record_type: RecordType) -> Kind {
    match record_type {
        RecordType::A => Kind::A,
        RecordType::AAAA => Kind::Aaaa,
        RecordType::SRV => Kind::Srv,
        RecordType::PTR => Kind::Ptr,
        RecordType::TXT => Kind::Txt,
        RecordType::CNAME => Kind::Cname,
        RecordType::ANY => Kind::Any,
        _ => Kind::Other,
    }
}

/// The name in lower case, without the last dot.
pub fn plain(name: &Name) -> String {
    let mut text = name.to_lowercase().to_ascii();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

/// Records of the answer; what belongs to the question's name is written as the question was.
pub fn records(question: &Name, answers: &[(String, Data)]) -> Vec<Record> {
    let asked = plain(question);
    answers.iter().filter_map(|(name, data)| record(question, &asked, name, data)).collect()
}

/// `None`: a name that DNS does not allow; validation keeps such names out of the cluster.
fn record(question: &Name, asked: &str, name: &str, data: &Data) -> Option<Record> {
    let owner = if name == asked { question.clone() } else { absolute(name)? };
    let data = match data {
        Data::Address(IpAddr::V4(ip)) => RData::A(A(*ip)),
        Data::Address(IpAddr::V6(ip)) => RData::AAAA(AAAA(*ip)),
        Data::Alias(to) => RData::CNAME(CNAME(absolute(to)?)),
        Data::Service(port, to) => RData::SRV(SRV::new(0, 100, *port, absolute(to)?)),
        Data::Pointer(to) => RData::PTR(PTR(absolute(to)?)),
        Data::Text(text) => RData::TXT(TXT::new(vec![text.clone()])),
    };
    Some(Record::from_rdata(owner, TTL_SECONDS, data))
}

/// Says how long a "no" may be remembered.
pub fn start_of_authority(domain: &str) -> Option<Record> {
    let data =
        SOA::new(absolute(&format!("ns.dns.{domain}"))?, absolute(&format!("hostmaster.{domain}"))?, 1, 7200, 1800, 86_400, TTL_SECONDS);
    Some(Record::from_rdata(absolute(domain)?, TTL_SECONDS, RData::SOA(data)))
}

/// `name` from the root down.
pub fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_str(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
