//! The request handler: asks the records, forwards what they do not know, sends the answer.

use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use hickory_proto::{
    op::{Edns, Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::{Record, RecordType},
};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_server::{
    net::runtime::Time,
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::sync::Semaphore;

use crate::{
    answer::{Answer, answer},
    message,
    records::Records,
    upstream::Upstream,
};

/// Questions on their way upstream at once; further ones are told that we fail, and ask again.
const MAX_FORWARDS: usize = 512;
/// Of an answer over UDP to those who can take more than 512 bytes (RFC 6891; fits the smallest IPv6 path).
const UDP_PAYLOAD_BYTES: u16 = 1232;

/// Answers from a table that others change. Clones share everything.
#[derive(Clone)]
pub struct Handler {
    records: Arc<RwLock<Records>>,
    domain: Arc<str>,
    upstream: Upstream,
    forwards: Arc<Semaphore>,
}

impl Handler {
    /// A handler for `domain`; while `upstream` has nobody, external names fail.
    pub fn new(records: Arc<RwLock<Records>>, domain: String, upstream: Upstream) -> Self {
        Self { records, domain: domain.into(), upstream, forwards: Arc::new(Semaphore::new(MAX_FORWARDS)) }
    }

    async fn reply(&self, request: &Request) -> Reply {
        if request.metadata.message_type != MessageType::Query || request.metadata.op_code != OpCode::Query {
            return Reply::code(ResponseCode::NotImp);
        }
        let [query] = request.queries.queries() else { return Reply::code(ResponseCode::FormErr) };
        let (name, record_type) = (query.original().name(), query.query_type());
        let found = {
            let records = self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            answer(&records, &self.domain, &message::plain(name), message::kind(record_type), request.src().ip().to_canonical())
        };
        match found {
            Answer::Found { records, additional } => Reply {
                authoritative: true,
                answers: message::records(name, &records),
                additionals: message::records(name, &additional),
                ..Reply::code(ResponseCode::NoError)
            },
            Answer::NoData => self.nothing(ResponseCode::NoError),
            Answer::NoName => self.nothing(ResponseCode::NXDomain),
            Answer::Forward { aliases, name: target, search } => {
                let aliases = message::records(name, &aliases);
                match self.forward(&target, record_type).await {
                    Forwarded::Found(records) => {
                        Reply { answers: aliases.into_iter().chain(records).collect(), ..Reply::code(ResponseCode::NoError) }
                    }
                    // The name may exist with other types: then saying that it does not would spoil their answers.
                    Forwarded::Nothing(ResponseCode::NXDomain, _) if search => self.nothing(ResponseCode::NXDomain),
                    Forwarded::Failed if search && !self.upstream.exists() => self.nothing(ResponseCode::NXDomain),
                    Forwarded::Nothing(code, soa) => {
                        Reply { answers: aliases, authorities: soa.into_iter().map(|soa| *soa).collect(), ..Reply::code(code) }
                    }
                    Forwarded::Failed => Reply::code(ResponseCode::ServFail),
                }
            }
        }
    }

    fn nothing(&self, code: ResponseCode) -> Reply {
        Reply { authoritative: true, authorities: message::start_of_authority(&self.domain).into_iter().collect(), ..Reply::code(code) }
    }

    async fn forward(&self, name: &str, record_type: RecordType) -> Forwarded {
        let (Some(upstream), Some(name), Ok(_permit)) = (self.upstream.resolver(), message::absolute(name), self.forwards.try_acquire())
        else {
            return Forwarded::Failed;
        };
        match upstream.lookup(name, record_type).await {
            Ok(lookup) => Forwarded::Found(lookup.answers().to_vec()),
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords { response_code, soa, .. }))) => {
                Forwarded::Nothing(response_code, soa.map(|soa| Box::new(soa.as_ref().clone().into_record_of_rdata())))
            }
            Err(_) => Forwarded::Failed,
        }
    }
}

enum Forwarded {
    Found(Vec<Record>),
    Nothing(ResponseCode, Option<Box<Record>>),
    Failed,
}

struct Reply {
    code: ResponseCode,
    authoritative: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn code(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.recursion_available = self.upstream.exists();
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, UDP_PAYLOAD_BYTES));
            edns
        });
        let none: [Record; 0] = [];
        let message = MessageResponseBuilder::new(&request.queries, edns.as_ref()).build(
            metadata,
            &reply.answers,
            &reply.authorities,
            &none,
            &reply.additionals,
        );
        match response.send_response(message).await {
            Ok(info) => info,
            // The asker is gone; there is nobody to tell.
            Err(_) => ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() }),
        }
    }
}

#[cfg(test)]
mod tests;
