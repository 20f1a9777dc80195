//! Questions over real sockets, with real name servers behind: what goes upstream, how often, and what comes back.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr as _,
    sync::Mutex,
    time::Duration,
};

use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, rdata::A},
};
use hickory_resolver::config::NameServerConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    records::{Change, Service},
    resident::udp,
    upstream,
};

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// More addresses than a plain answer over UDP can hold, and fewer than one of 1232 bytes can.
const MANY: u8 = 60;

/// A name server on loopback; ends with the test.
struct Server {
    address: SocketAddr,
    /// What it was asked, and over what.
    asked: Arc<Mutex<Vec<(&'static str, String)>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start() -> Self {
        // The port that is free for UDP may be taken for TCP.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("address")).await {
                break (udp, tcp);
            }
        };
        let (address, asked, mut tasks) = (udp.local_addr().expect("address"), Arc::<Mutex<Vec<_>>>::default(), JoinSet::new());
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let answer = Self::answer("udp", &buffer[..length], &log);
                let _ = udp.send_to(&answer, from).await;
            }
        });
        let log = Arc::clone(&asked);
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                while let Ok(length) = stream.read_u16().await {
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.expect("a whole question");
                    let answer = Self::answer("tcp", &question, &log);
                    stream.write_u16(answer.len() as u16).await.expect("write");
                    stream.write_all(&answer).await.expect("write");
                }
            }
        });
        Self { address, asked, _tasks: tasks }
    }

    /// By the first label: `big` does not fit into UDP, `no` does not exist, `brief` and `day` live that long, others a minute.
    fn answer(over: &'static str, question: &[u8], log: &Mutex<Vec<(&'static str, String)>>) -> Vec<u8> {
        let question = Message::from_vec(question).expect("a question");
        let query = question.queries[0].clone();
        let name = message::plain(query.name());
        log.lock().expect("lock").push((over, name.clone()));
        let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        let (ttl, count) = match name.split('.').next() {
            Some("big") if over == "udp" => {
                answer.metadata.truncation = true;
                (0, 0)
            }
            Some("big") => (60, MANY),
            Some("no") => {
                answer.metadata.response_code = ResponseCode::NXDomain;
                answer.authorities.extend(message::start_of_authority("test"));
                (0, 0)
            }
            Some("brief") => (0, 1),
            Some("day") => (86_400, 1),
            _ => (60, 1),
        };
        let address = |n| Record::from_rdata(query.name().clone(), ttl, RData::A(A::new(192, 0, 2, n)));
        answer.answers.extend((1..=count).map(address));
        answer.to_vec().expect("an answer")
    }

    fn asked(&self) -> Vec<(&'static str, String)> {
        self.asked.lock().expect("lock").clone()
    }

    fn config(&self) -> NameServerConfig {
        server_at(self.address)
    }
}

fn server_at(address: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(address.ip());
    config.connections.iter_mut().for_each(|connection| connection.port = address.port());
    config
}

/// Our own server, with a Service `web` and a pod of namespace `default` at 127.0.0.1; ends with the test.
struct Dns {
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Dns {
    async fn start(servers: Vec<NameServerConfig>, cache: u64) -> Self {
        let upstream = match servers.as_slice() {
            [] => Upstream::default(),
            _ => Upstream::fixed(upstream::resolver(servers, cache).expect("resolver")),
        };
        let mut records = Records::default();
        let web = Service { ips: vec![[10, 43, 0, 5].into()], ..Service::default() };
        for change in [
            Change::Namespace { name: "default".into(), exists: true },
            Change::Pod { ip: Ipv4Addr::LOCALHOST.into(), namespace: Some("default".into()) },
            Change::Service { namespace: "default".into(), name: "web".into(), service: Some(web) },
        ] {
            records.apply(change);
        }
        let handler = Handler::new(Arc::new(RwLock::new(records)), "cluster.local".into(), upstream);
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        let (address, mut tasks) = (socket.local_addr().expect("address"), JoinSet::new());
        tasks.spawn(udp::serve(socket, handler, CancellationToken::new()));
        Self { address, _tasks: tasks }
    }

    /// One question, one answer; `room` is what the asker can take beyond the plain size.
    async fn ask_with(&self, name: &str, room: Option<u16>) -> Message {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
        socket.connect(self.address).await.expect("connect");
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.metadata.recursion_desired = true;
        question.add_query(Query::query(Name::from_str(&format!("{name}.")).expect("a name"), RecordType::A));
        question.edns = room.map(|room| {
            let mut edns = Edns::new();
            edns.set_max_payload(room);
            edns
        });
        socket.send(&question.to_vec().expect("a question")).await.expect("send");
        let mut buffer = [0; 4096];
        let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer in time").expect("an answer");
        Message::from_vec(&buffer[..length]).expect("a message")
    }

    async fn ask(&self, name: &str) -> (ResponseCode, Vec<IpAddr>) {
        let answer = self.ask_with(name, Some(1232)).await;
        let addresses = answer.answers.iter().filter_map(|record| match &record.data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            _ => None,
        });
        (answer.metadata.response_code, addresses.collect())
    }
}

fn first() -> (ResponseCode, Vec<IpAddr>) {
    (ResponseCode::NoError, vec![[192, 0, 2, 1].into()])
}

#[tokio::test]
async fn what_is_cut_off_is_asked_for_again_over_tcp() {
    let server = Server::start().await;
    let dns = Dns::start(vec![server.config()], 16).await;
    let (code, addresses) = dns.ask("big.test").await;
    assert_eq!((code, addresses.len()), (ResponseCode::NoError, usize::from(MANY)));
    assert_eq!(server.asked(), [("udp", "big.test".to_owned()), ("tcp", "big.test".to_owned())]);
    // Who can take less is told that it is not all, and comes by TCP itself.
    let plain = dns.ask_with("big.test", None).await;
    assert!(plain.metadata.truncation && plain.answers.len() < MANY.into());
    assert_eq!(server.asked().len(), 2, "it was remembered");
}

#[tokio::test]
async fn a_dead_server_is_passed_over() {
    let (server, silent) = (Server::start().await, UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind"));
    // Nobody is behind a socket that was closed: the kernel says so at once.
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind").local_addr().expect("address");
    for dead in [silent.local_addr().expect("address"), closed] {
        let dns = Dns::start(vec![server_at(dead), server.config()], 16).await;
        assert_eq!(dns.ask("a.test").await, first(), "{dead}");
    }
    assert_eq!(Dns::start(vec![server_at(closed)], 16).await.ask("a.test").await, (ResponseCode::ServFail, Vec::new()));
}

#[tokio::test]
async fn answers_are_remembered_as_long_as_they_say_and_we_allow() {
    let server = Server::start().await;
    let dns = Dns::start(vec![server.config()], 16).await;
    let times = |name: &str| server.asked().iter().filter(|(_, asked)| asked == name).count();
    for _ in 0..3 {
        assert_eq!(dns.ask("minute.test").await, first());
        assert_eq!(dns.ask("brief.test").await, first());
        assert_eq!(dns.ask("no.test").await, (ResponseCode::NXDomain, Vec::new()));
    }
    assert_eq!((times("minute.test"), times("brief.test"), times("no.test")), (1, 3, 1));
    let day = dns.ask_with("day.test", None).await;
    assert!(day.answers.iter().all(|record| (1..=300).contains(&record.ttl)), "{:?}", day.answers);
}

#[tokio::test]
async fn memory_of_answers_has_a_bound() {
    const NAMES: usize = 512;
    let server = Server::start().await;
    let dns = Dns::start(vec![server.config()], 16).await;
    for _ in 0..2 {
        for n in 0..NAMES {
            assert_eq!(dns.ask(&format!("n{n}.test")).await, first());
        }
    }
    // Some more than sixteen may be there until the cache tidies up, but nothing like all.
    assert!(server.asked().len() > NAMES + NAMES / 2, "{} of {} went upstream", server.asked().len(), 2 * NAMES);
}

#[tokio::test]
async fn short_and_external_names_cost_a_pod_one_round_trip() {
    let server = Server::start().await;
    let dns = Dns::start(vec![server.config()], 16).await;
    // What a pod's resolver asks first, with the search list of its resolv.conf.
    assert_eq!(dns.ask("web.default.svc.cluster.local").await, (ResponseCode::NoError, vec![[10, 43, 0, 5].into()]));
    assert_eq!(dns.ask("web.default.default.svc.cluster.local").await, (ResponseCode::NoError, vec![[10, 43, 0, 5].into()]));
    assert!(server.asked().is_empty(), "names of the cluster stay in it");
    assert_eq!(dns.ask("www.example.test.default.svc.cluster.local").await, first());
    assert_eq!(dns.ask("no.test.default.svc.cluster.local").await, (ResponseCode::NXDomain, Vec::new()));
    assert_eq!(server.asked(), [("udp", "www.example.test".to_owned()), ("udp", "no.test".to_owned())]);
}

#[tokio::test]
async fn without_anybody_upstream_the_cluster_still_answers() {
    let dns = Dns::start(Vec::new(), 16).await;
    assert_eq!(dns.ask("web.default.svc.cluster.local").await, (ResponseCode::NoError, vec![[10, 43, 0, 5].into()]));
    assert_eq!(dns.ask("www.example.test").await, (ResponseCode::ServFail, Vec::new()));
    assert_eq!(dns.ask("www.example.test.default.svc.cluster.local").await, (ResponseCode::NXDomain, Vec::new()));
    assert!(!dns.ask_with("www.example.test", None).await.metadata.recursion_available);
}
