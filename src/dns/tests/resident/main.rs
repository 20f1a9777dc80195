//! The resident as a real process: told, killed, adopted, replaced by a newer program, ended. Needs no privileges: everything is on loopback.

mod api;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU16, Ordering},
    time::{Duration, Instant},
};

use api::Api;
use coracle_client::Informers;
use coracle_dns::{Config, resident};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// As long as a resolver waits before it asks again.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(code) = resident::dispatch(&args) {
        return code;
    }
    // For the runners that list tests before they run them.
    if args.iter().any(|arg| arg == "--list") {
        println!("the_resident: test");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(300), story()).await.expect("it hangs") });
    ExitCode::SUCCESS
}

/// Ends the resident also when the test fails.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn state(&self) -> PathBuf {
        self.directory.path().join("dns")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        coracle_dns::stop(&self.state()).unwrap();
    }
}

/// Raises the flag when it goes, so that whoever waits for it ends also when the test fails.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Role {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Role {
    fn start(api: &Api, state_dir: &Path, program: &Path) -> Self {
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            state_dir: state_dir.into(),
            program: program.into(),
            cluster_domain: "cluster.local".into(),
            cluster_dns: [10, 43, 0, 10].into(),
            node_name: "n".into(),
            cgroup: String::new(),
        };
        let (stop, client) = (CancellationToken::new(), api.client());
        let informers = Informers::new(client.clone());
        let run = coracle_dns::run(config, client, informers, stop.clone());
        Self { stop, task: tokio::spawn(async move { run.await.unwrap() }) }
    }

    /// As when its process ends: the resident is not told.
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn story() {
    let place = Place { directory: tempfile::tempdir().unwrap() };
    let state = place.state();
    let program = std::env::current_exe().unwrap();
    let api = Api::new();
    api.put("namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}));
    api.put("services", service("web", "10.43.0.5"));
    api.put("pods", pod("client", "127.0.0.1"));

    // The EndpointSlice is there: DNS answers.
    let began = Instant::now();
    let role = Role::start(&api, &state, &program);
    let address = slice(&api, |_| true).await;
    println!("answers {:?} after the start", began.elapsed());
    assert_eq!(ask(address, "web.default.svc.cluster.local"), Ok(vec![[10, 43, 0, 5].into()]));
    assert_eq!(ask(address, "WEB.default.svc.Cluster.Local"), Ok(vec![[10, 43, 0, 5].into()]));
    assert_eq!(
        ask(address, "web.default.default.svc.cluster.local"),
        Ok(vec![[10, 43, 0, 5].into()]),
        "one round trip for the asker's search list"
    );
    assert_eq!(ask(address, "no.default.svc.cluster.local"), Err(ResponseCode::NXDomain));
    let kube_dns = until(|| ask(address, "kube-dns.kube-system.svc.cluster.local").ok());
    assert_eq!(kube_dns, [IpAddr::from([10, 43, 0, 10])]);
    malformed(address);

    // A change is answered by at once.
    let began = Instant::now();
    api.put("services", service("db", "10.43.0.6"));
    until(|| ask(address, "db.default.svc.cluster.local").ok());
    println!("a new Service is found after {:?}", began.elapsed());
    let began = Instant::now();
    api.delete("services", "default/db");
    until(|| ask(address, "db.default.svc.cluster.local").err());
    println!("a deleted Service is gone after {:?}", began.elapsed());

    // Killed, it comes back where it was, as it was.
    let first = pid(&state);
    let began = Instant::now();
    kill(first);
    until(|| ask_or_fail(address, "web.default.svc.cluster.local"));
    println!("a killed resident answers again after {:?}", began.elapsed());
    assert_ne!(pid(&state), first);
    assert_eq!(slice(&api, |_| true).await, address);

    // Without the role it answers on, and the next role adopts it.
    role.end().await;
    let second = pid(&state);
    assert_eq!(ask(address, "web.default.svc.cluster.local"), Ok(vec![[10, 43, 0, 5].into()]));
    api.put("services", service("late", "10.43.0.7"));
    let role = Role::start(&api, &state, &program);
    until(|| ask(address, "late.default.svc.cluster.local").ok());
    assert_eq!(pid(&state), second);
    role.end().await;

    // A newer program takes over in the same process, and no question is lost.
    let newer = place.directory.path().join("newer");
    std::fs::copy(&program, &newer).unwrap();
    let (done, asked) = (AtomicBool::new(false), AtomicU16::new(0));
    let role = std::thread::scope(|threads| {
        let done = Raised(&done);
        let (asking, asked) = (done.0, &asked);
        threads.spawn(move || {
            while !asking.load(Ordering::Acquire) {
                assert_eq!(ask(address, "web.default.svc.cluster.local"), Ok(vec![[10, 43, 0, 5].into()]));
                asked.fetch_add(1, Ordering::AcqRel);
            }
        });
        until(|| (asked.load(Ordering::Acquire) > 100).then_some(()));
        let role = Role::start(&api, &state, &newer);
        let exe = PathBuf::from(format!("/proc/{second}/exe"));
        until(|| (std::fs::read_link(&exe).unwrap() == newer).then_some(()));
        let so_far = asked.load(Ordering::Acquire);
        until(|| (asked.load(Ordering::Acquire) > so_far.saturating_add(100)).then_some(()));
        drop(done);
        role
    });
    println!("{} questions while a newer program took over, none lost", asked.load(Ordering::Acquire));
    assert_eq!(pid(&state), second);
    api.put("services", service("later", "10.43.0.8"));
    until(|| ask(address, "later.default.svc.cluster.local").ok());
    memory(second);

    // Ended, nothing is left.
    role.end().await;
    coracle_dns::stop(&state).unwrap();
    assert!(!state.exists() && ask_or_fail(address, "web.default.svc.cluster.local").is_none());
    coracle_dns::stop(&state).expect("nothing there is no error");
}

async fn slice(api: &Api, wanted: impl Fn(&serde_json::Value) -> bool) -> SocketAddr {
    let name = format!("kube-system/{}", coracle_dns::slice_name("n"));
    let found = tokio::time::timeout(PATIENCE, api.until("endpointslices", &name, wanted)).await.expect("no EndpointSlice");
    let ip: IpAddr = found["endpoints"][0]["addresses"][0].as_str().unwrap().parse().unwrap();
    SocketAddr::new(ip, u16::try_from(found["ports"][0]["port"].as_u64().unwrap()).unwrap())
}

fn service(name: &str, ip: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

fn pod(name: &str, ip: &str) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": []}, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})
}

/// Addresses, or the code that says why there are none. No answer within the patience of a pod's resolver is a failure.
fn ask(server: SocketAddr, name: &str) -> Result<Vec<IpAddr>, ResponseCode> {
    exchange(server, name, RESOLVER_PATIENCE).expect("no answer")
}

/// `None`: nobody answers.
fn ask_or_fail(server: SocketAddr, name: &str) -> Option<Vec<IpAddr>> {
    exchange(server, name, Duration::from_millis(200))?.ok()
}

fn exchange(server: SocketAddr, name: &str, patience: Duration) -> Option<Result<Vec<IpAddr>, ResponseCode>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    socket.connect(server).unwrap();
    let mut question = Message::new(7, MessageType::Query, OpCode::Query);
    let mut query = Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A);
    query.set_query_class(DNSClass::IN);
    question.add_query(query);
    socket.send(&question.to_vec().unwrap()).ok()?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).ok()?;
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    if answer.metadata.response_code != ResponseCode::NoError {
        return Some(Err(answer.metadata.response_code));
    }
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    });
    Some(Ok(addresses.collect()))
}

/// Half a question is answered with what is wrong about it; what is none, not at all.
fn malformed(server: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    socket.connect(server).unwrap();
    socket.send(b"short").unwrap();
    socket.send(&[0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w']).unwrap();
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).unwrap();
    let answer = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!((answer.metadata.id, answer.metadata.response_code), (9, ResponseCode::FormErr));
}

/// What cannot be waited for from outside the process is asked for until it is so.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "it did not come");
        // A short rest: two spinning threads would starve the role on a machine of two cores.
        std::thread::sleep(Duration::from_micros(500));
    }
}

fn pid(state: &Path) -> i32 {
    resident::greeting(state, PATIENCE).unwrap().pid
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn memory(pid: i32) {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines: Vec<&str> = rollup.lines().filter(|l| l.starts_with("Pss:") || l.starts_with("Private")).collect();
    println!("memory of the resident: {lines:?}");
}
