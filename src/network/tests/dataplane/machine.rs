//! A node in a network namespace: uplink to an "outside", dataplane, pods, sockets wherever one is wanted.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use coracle_client::Informers;
use coracle_network::{Attachment, Config, Dataplane, PodNetwork, PodRequest, teardown};
use nix::sched::{CloneFlags, setns, unshare};
use tokio_util::sync::CancellationToken;

use super::api::Api;

/// Longest time that a thing which must happen may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(5);
pub const NODE_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub const OUTSIDE_IP: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A network namespace, by a descriptor that keeps it.
#[derive(Clone)]
pub struct Space(Arc<OwnedFd>);

impl Space {
    pub fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
            let space = Self::open(Path::new("/proc/thread-self/ns/net"));
            run("ip link set lo up");
            space
        });
        made.join().expect("thread")
    }

    pub fn open(path: &Path) -> Self {
        Self(Arc::new(File::open(path).expect("namespace").into()))
    }

    /// Runs `work` inside, on a thread of its own. Sockets that it opens stay inside for good.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let space = self.clone();
        let worker = thread::spawn(move || {
            setns(&*space.0, CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        });
        worker.join().expect("thread")
    }

    /// A path to it, for programs.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

pub fn run(line: &str) {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().expect("program");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A pod with its attachment.
#[derive(Clone)]
pub struct Pod {
    pub attachment: Attachment,
    pub space: Space,
}

impl Pod {
    pub fn ip(&self) -> IpAddr {
        self.attachment.addresses[0]
    }
}

/// The node, as a test sees it.
pub struct Machine {
    pub api: Api,
    pub node: Space,
    pub outside: Space,
    pub config: Config,
    pub dataplane: Arc<Dataplane>,
    pub shutdown: CancellationToken,
}

/// Runs a test on a node of its own; takes the node down after it, also when it fails.
pub fn on_machine<F: Future<Output = ()>>(root_hooks: bool, test: impl FnOnce(Machine) -> F + Send + 'static) {
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    on_shared(&node_space(), n, root_hooks, test);
}

/// The same, on a given node: several clusters side by side.
pub fn on_shared<F: Future<Output = ()>>(
    spaces: &(Space, Space),
    n: u32,
    root_hooks: bool,
    test: impl FnOnce(Machine) -> F + Send + 'static,
) {
    let (node, outside) = spaces.clone();
    let id = format!("t{}-{n}", std::process::id());
    let cgroup = cgroup_root().join(format!("coracle-{id}"));
    let directory = tempfile::tempdir().expect("directory");
    let state_dir = directory.path().join("network");
    let (undo_id, undo_dir, undo_cgroup, undo_node) = (id.clone(), state_dir.clone(), cgroup.clone(), node.clone());
    let config = Config {
        cluster_id: id,
        state_dir,
        pod_cidr: format!("10.42.{n}.0/24").parse().expect("range"),
        cluster_cidr: "10.42.0.0/16".parse().expect("range"),
        service_cidr: "10.43.0.0/16".parse().expect("range"),
        node_name: "node".into(),
        node_ip: NODE_IP.into(),
        cgroup,
        root_hooks,
    };
    let space = node.clone();
    let worker = thread::spawn(move || {
        setns(&*space.0, CloneFlags::CLONE_NEWNET).expect("setns");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let (api, shutdown) = (Api::new(), CancellationToken::new());
            let dataplane = Dataplane::start(config.clone(), Informers::new(api.client()), shutdown.clone())
                .await
                .unwrap_or_else(|e| panic!("{}", chain(&e)));
            test(Machine { api, node, outside, config, dataplane, shutdown }).await;
        });
    });
    let result = worker.join();
    undo_node.run(move || teardown(&undo_id, &undo_dir).expect("teardown"));
    let _ = std::fs::remove_dir(undo_cgroup);
    // After the teardown, which unmounts what is below it.
    directory.close().expect("an empty directory goes");
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// A node and the outside beyond its uplink.
pub fn node_space() -> (Space, Space) {
    let (node, outside) = (Space::new(), Space::new());
    let path = outside.path();
    node.run(move || {
        run("ip link add up0 type veth peer name out0");
        run(&format!("ip link set out0 netns {path}"));
        run(&format!("ip addr add {NODE_IP}/24 dev up0"));
        run("ip link set up0 up");
    });
    outside.run(|| {
        run(&format!("ip addr add {OUTSIDE_IP}/24 dev out0"));
        run("ip link set out0 up");
    });
    (node, outside)
}

impl Machine {
    pub async fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, Vec::new()).await
    }

    pub async fn pod_with(&self, name: &str, host_ports: Vec<coracle_network::HostPort>) -> Pod {
        let request = PodRequest {
            sandbox: format!("{name}-sandbox"),
            namespace: "default".into(),
            name: name.into(),
            uid: format!("{name}-uid"),
            host_ports,
        };
        let attachment = self.dataplane.attach(&request).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
        Pod { space: Space::open(&attachment.netns), attachment }
    }

    /// Ends the user space as a crash would (nothing is taken down), and starts it anew.
    pub async fn restart(&mut self) {
        self.shutdown.cancel();
        self.shutdown = CancellationToken::new();
        self.dataplane = Dataplane::start(self.config.clone(), Informers::new(self.api.client()), self.shutdown.clone())
            .await
            .unwrap_or_else(|e| panic!("{}", chain(&e)));
    }

    /// Waits until the condition holds: the watch is asynchronous.
    pub async fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        start.elapsed()
    }
}

/// A TCP server that answers each connection with its name and the peer's address, then echoes.
pub fn serve_tcp(space: &Space, port: u16, name: &str) {
    let listener = space.run(move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bind"));
    let name = name.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let name = name.clone();
            thread::spawn(move || {
                let Ok(peer) = stream.peer_addr() else { return };
                let _ = stream.write_all(format!("{name} {}\n", peer.ip()).as_bytes());
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// A UDP server that answers each datagram with its name.
pub fn serve_udp(space: &Space, address: Ipv4Addr, port: u16, name: &str) {
    let socket = space.run(move || UdpSocket::bind((address, port)).expect("bind"));
    let name = name.to_owned();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), from);
        }
    });
}

/// Connects from a namespace and reads the server's first line: `name peer`.
pub fn ask_tcp(space: &Space, to: SocketAddr) -> io::Result<(TcpStream, String)> {
    space.run(move || {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        let line = read_line(&mut stream)?;
        Ok((stream, line))
    })
}

/// The name of who answers.
pub fn who(space: &Space, to: SocketAddr) -> Option<String> {
    let (_, line) = ask_tcp(space, to).ok()?;
    line.split(' ').next().map(str::to_owned)
}

pub fn echo(stream: &mut TcpStream, text: &str) -> io::Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut back = vec![0; text.len()];
    stream.read_exact(&mut back)?;
    if back == text.as_bytes() { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

pub fn ask_udp(space: &Space, to: SocketAddr) -> io::Result<String> {
    space.run(move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        socket.connect(to)?;
        socket.send(b"?")?;
        let mut buffer = [0; 2048];
        let read = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
    })
}

fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let (mut line, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        if byte[0] == b'\n' {
            return Ok(line);
        }
        line.push(char::from(byte[0]));
    }
}

/// Where cgroups of version 2 are mounted.
pub fn cgroup_root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
    let mut of_type = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.get(2) == Some(&"cgroup2"));
    PathBuf::from(of_type.next().expect("a cgroup2 mount")[1])
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Asks from a process of its own that is in a cgroup, so that the socket hooks see it: `Ok("name peer-as-the-client-sees-it")`.
pub fn ask_in_cgroup(space: &Space, cgroup: &Path, protocol: &str, to: SocketAddr) -> Result<String, String> {
    let (cgroup, what) = (cgroup.display().to_string(), format!("{protocol} {to}"));
    let output = space.run(move || {
        let program = std::env::current_exe().expect("test program");
        let mut command = Command::new(program);
        command.args(["machine::child", "--exact", "--ignored", "--nocapture"]).env("CHILD_CGROUP", cgroup).env("CHILD_ASKS", what);
        command.output().expect("child")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let answer = text.lines().find_map(|line| line.split("ANSWER ").nth(1)).unwrap_or_else(|| panic!("no answer in {text}"));
    match answer.strip_prefix("ok ") {
        Some(answer) => Ok(answer.to_owned()),
        None => Err(answer.trim_start_matches("error ").to_owned()),
    }
}

/// The other process of [`ask_in_cgroup`]; as a test of its own it has nothing to do.
#[test]
#[ignore = "started by ask_in_cgroup"]
fn child() {
    let (Ok(cgroup), Ok(asks)) = (std::env::var("CHILD_CGROUP"), std::env::var("CHILD_ASKS")) else { return };
    std::fs::write(Path::new(&cgroup).join("cgroup.procs"), std::process::id().to_string()).expect("join the cgroup");
    let (protocol, to) = asks.split_once(' ').expect("protocol and address");
    let to: SocketAddr = to.parse().expect("address");
    let ask = || -> io::Result<String> {
        match protocol {
            "tcp" => {
                let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
                stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                let line = read_line(&mut stream)?;
                Ok(format!("{} {}", line.split(' ').next().unwrap_or_default(), stream.peer_addr()?))
            }
            "udp" | "udp-connected" => {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.set_read_timeout(Some(Duration::from_secs(2)))?;
                if protocol == "udp" {
                    socket.send_to(b"?", to)?;
                } else {
                    socket.connect(to)?;
                    socket.send(b"?")?;
                }
                let mut buffer = [0; 2048];
                let (read, from) = socket.recv_from(&mut buffer)?;
                Ok(format!("{} {from}", String::from_utf8_lossy(&buffer[..read])))
            }
            other => panic!("{other}"),
        }
    };
    match ask() {
        Ok(answer) => println!("\nANSWER ok {answer}"),
        Err(error) => println!("\nANSWER error {:?}", error.kind()),
    }
}
