//! What the resident keeps in its state directory: its settings, who it is, its last records; and its sockets.

use std::{
    fs,
    io::{self, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::records::Records;

/// TCP connections that wait to be taken.
const TCP_BACKLOG: i32 = 128;

/// Settings, written by the role before it starts the resident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Address to listen on; port 0: the one of last time, else any.
    pub listen: SocketAddr,
    /// `cluster.local`.
    pub cluster_domain: String,
    /// Where the node's name servers stand.
    pub resolv_conf: PathBuf,
    /// Control group of the cluster, relative to the hierarchies; empty: none.
    #[serde(default)]
    pub cgroup: String,
}

/// Who the resident is, written by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its process.
    pub pid: i32,
    /// When that process began, in clock ticks since boot: a pid alone may be somebody else's by now.
    pub started: u64,
    /// Where it answers.
    pub address: SocketAddr,
}

/// The state directory.
#[derive(Debug)]
pub struct State {
    directory: PathBuf,
    /// Settings of this run.
    pub config: Settings,
}

impl State {
    /// Reads the settings in the directory.
    pub fn load(directory: &Path) -> io::Result<Self> {
        let config = read(&directory.join("settings.json"))?;
        Ok(Self { directory: directory.to_owned(), config })
    }

    /// The records of last time; none when there are none that can be read. The role tells all of them anew, so that is no end.
    pub fn records(&self) -> Records {
        let mut records = read(&self.directory.join("records.json")).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                eprintln!("coracle dns: the records of last time are not used: {error}");
            }
            Records::default()
        });
        records.index();
        records
    }

    /// Keeps the records, whole or not at all.
    pub fn keep(&self, records: &Records) -> io::Result<()> {
        write(&self.directory.join("records.json"), records)
    }

    /// Tells who we are and where we answer.
    pub fn announce(&self, address: SocketAddr) -> io::Result<()> {
        let pid = own_pid();
        let started = process_start(pid).ok_or_else(|| io::Error::other("/proc does not know this process"))?;
        write(&self.directory.join("resident.json"), &Identity { pid, started, address })
    }

    /// The port of last time, 0 when there was none: clients that know it go on.
    pub fn last_port(&self) -> u16 {
        identity(&self.directory).map_or(0, |i| i.address.port())
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Where commands of the resident in this directory go.
pub fn control(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

/// Where it writes what it has to complain about; begun anew by each.
pub fn log(directory: &Path) -> PathBuf {
    directory.join("resident.log")
}

/// The last line of its log; empty when it had nothing to say.
pub fn last_words(directory: &Path) -> String {
    let log = fs::read_to_string(log(directory)).unwrap_or_default();
    log.lines().last().unwrap_or_default().to_owned()
}

/// The settings in this directory, if there are any that can be read.
pub fn settings(directory: &Path) -> Option<Settings> {
    read(&directory.join("settings.json")).ok()
}

/// Settings for the next resident, or for one that becomes another program.
pub fn keep_settings(directory: &Path, settings: &Settings) -> io::Result<()> {
    write(&directory.join("settings.json"), settings)
}

/// The resident that announced itself in this directory; it may be dead.
pub fn identity(directory: &Path) -> Option<Identity> {
    read(&directory.join("resident.json")).ok()
}

/// The number of this process.
pub fn own_pid() -> i32 {
    nix::unistd::getpid().as_raw()
}

/// When a process began, in clock ticks since boot (proc(5), field 22); `None`: there is none, or it is a zombie.
pub fn process_start(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    (fields.next()? != "Z").then(|| fields.nth(18)?.parse().ok())?
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {e}", path.display())))
}

/// Whole or not at all.
pub fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::File::create(&fresh)?.write_all(&serde_json::to_vec(value)?)?;
    fs::rename(fresh, path)
}

/// The two sockets of the server.
#[derive(Debug)]
pub struct Sockets {
    /// Questions by UDP.
    pub udp: UdpSocket,
    /// Questions by TCP.
    pub tcp: TcpListener,
}

impl Sockets {
    /// Binds both to one port: that of `address`, else `last` if it is free, else any.
    pub fn bind(address: SocketAddr, last: u16) -> io::Result<Self> {
        let wanted = if address.port() == 0 { last } else { address.port() };
        let mut result = Self::bind_to(SocketAddr::new(address.ip(), wanted));
        // Any port: what is free for UDP may be taken for TCP, so a few tries.
        for _ in 0..if address.port() == 0 { 16 } else { 0 } {
            if result.is_ok() {
                break;
            }
            result = Self::bind_to(SocketAddr::new(address.ip(), 0));
        }
        result
    }

    fn bind_to(address: SocketAddr) -> io::Result<Self> {
        let udp = UdpSocket::from(Self::socket(SockType::Datagram, address)?);
        let tcp = Self::socket(SockType::Stream, udp.local_addr()?)?;
        listen(&tcp, Backlog::new(TCP_BACKLOG)?)?;
        Ok(Self { udp, tcp: tcp.into() })
    }

    /// The address need not be there yet: whoever makes the pod network may come after us.
    fn socket(kind: SockType, address: SocketAddr) -> io::Result<OwnedFd> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        setsockopt(&fd, sockopt::IpFreebind, &true)?;
        if kind == SockType::Stream {
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address))
            .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("cannot listen on {address}: {e}")))?;
        Ok(fd)
    }

    /// Takes over those that the program before us left open across its exec.
    pub fn inherit(udp: &str, tcp: &str) -> io::Result<Self> {
        let fd = |text: &str| {
            let number: i32 =
                text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("{text:?} is no descriptor")))?;
            // SAFETY: the numbers come from `Kept::arguments` of the program that we replaced; nobody else in this process owns them.
            let owned = unsafe { OwnedFd::from_raw_fd(number) };
            fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
            Ok::<_, io::Error>(owned)
        };
        Ok(Self { udp: fd(udp)?.into(), tcp: fd(tcp)?.into() })
    }

    /// Second descriptors of both, for the program after us.
    pub fn keep(&self) -> io::Result<Kept> {
        Ok(Kept { udp: self.udp.try_clone()?.into(), tcp: self.tcp.try_clone()?.into() })
    }
}

/// Descriptors that can survive an exec.
#[derive(Debug)]
pub struct Kept {
    udp: OwnedFd,
    tcp: OwnedFd,
}

impl Kept {
    /// Lets them survive, and says their numbers.
    pub fn arguments(&self) -> io::Result<[String; 2]> {
        for fd in [&self.udp, &self.tcp] {
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok([self.udp.as_raw_fd().to_string(), self.tcp.as_raw_fd().to_string()])
    }
}
