//! Questions by UDP. A loop of our own: when it ends, every question that it took is answered first, and the next program takes the others.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use hickory_proto::{
    op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode},
    rr::Record,
    serialize::binary::{BinDecodable as _, BinDecoder, BinEncodable as _, BinEncoder},
};
use hickory_server::{
    net::{NetError, runtime::TokioTime, xfer::Protocol},
    server::{Request, RequestHandler as _, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponse,
};
use tokio::{net::UdpSocket, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::handler::Handler;

/// Of a question: more than any resolver sends.
const MAX_QUESTION_BYTES: usize = 4096;
/// Questions that are being answered at once; more than go upstream, so that those of the cluster never wait for these.
const MAX_QUESTIONS: usize = 1024;
/// Of an answer to those who say nothing of what they can take (RFC 1035).
const PLAIN_PAYLOAD_BYTES: u16 = 512;
/// At the end, for answers from upstream. Meanwhile nobody takes questions, and a resolver waits five seconds.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Answers until `end`, and then what was taken before it.
pub async fn serve(socket: UdpSocket, handler: Handler, end: CancellationToken) {
    let socket = Arc::new(socket);
    let mut answering = JoinSet::new();
    let mut buffer = vec![0; MAX_QUESTION_BYTES];
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => break,
            Some(_) = answering.join_next() => {}
            taken = socket.recv_from(&mut buffer), if answering.len() < MAX_QUESTIONS => match taken {
                // Nobody can be told at port 0.
                Ok((_, from)) if from.port() == 0 => {}
                Ok((length, from)) => drop(answering.spawn(answer(buffer[..length].to_vec(), socket.clone(), from, handler.clone()))),
                // An asker of before is gone, or memory is short; neither is the socket's end.
                Err(error) => tracing::debug!(%error, "a question could not be taken"),
            },
        }
    }
    let all = async { while answering.join_next().await.is_some() {} };
    let _ = timeout(LAST_ANSWERS, all).await;
}

async fn answer(question: Vec<u8>, socket: Arc<UdpSocket>, from: SocketAddr, handler: Handler) {
    let header = Header::read(&mut BinDecoder::new(&question));
    // What is no message gets no answer, nor does an answer: two servers could go on like that for ever.
    let Some(header) = header.ok().filter(|header| header.metadata.message_type == MessageType::Query) else { return };
    let answers = Answers { socket, from };
    match Request::from_bytes(question, from, Protocol::Udp) {
        Ok(request) => drop(handler.handle_request::<_, TokioTime>(&request, answers).await),
        Err(_) => {
            if let Ok(bytes) = refusal(header.metadata.id, header.metadata.op_code, ResponseCode::FormErr) {
                let _ = answers.send(&bytes).await;
            }
        }
    }
}

/// A header that says what is wrong, and nothing more.
fn refusal(id: u16, op_code: OpCode, code: ResponseCode) -> Result<Vec<u8>, NetError> {
    let mut metadata = Metadata::new(id, MessageType::Response, op_code);
    metadata.response_code = code;
    let mut bytes = Vec::new();
    Header { metadata, counts: HeaderCounts::default() }.emit(&mut BinEncoder::new(&mut bytes))?;
    Ok(bytes)
}

/// The way back to one asker.
#[derive(Clone)]
struct Answers {
    socket: Arc<UdpSocket>,
    from: SocketAddr,
}

impl Answers {
    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send_to(bytes, self.from).await.map(drop)
    }
}

#[async_trait]
impl ResponseHandler for Answers {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let (id, op_code) = (response.metadata().id, response.metadata().op_code);
        let room = response.edns().map_or(PLAIN_PAYLOAD_BYTES, |edns| edns.max_payload());
        let mut bytes = Vec::with_capacity(PLAIN_PAYLOAD_BYTES.into());
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(room);
        match response.destructive_emit(&mut encoder) {
            Ok(info) => {
                self.send(&bytes).await?;
                Ok(info)
            }
            Err(error) => {
                self.send(&refusal(id, op_code, ResponseCode::ServFail)?).await?;
                Err(error.into())
            }
        }
    }
}
