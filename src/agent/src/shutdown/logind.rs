//! logind over the system bus: how long it waits for inhibitors, an inhibitor of our own, and its word that the machine goes down.
//!
//! The pattern is systemd's "delay" inhibitor: the machine waits until the descriptor is closed, up to `InhibitDelayMaxSec`.

use std::{
    fs, io,
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg},
};
use std::os::fd::AsRawFd as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::UnixStream,
};

use super::wire::{Kind, MAX_BYTES, Message, WireError};

/// Where the system bus listens, unless `DBUS_SYSTEM_BUS_ADDRESS` says otherwise.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// How long logind may take for an answer.
const ANSWER: Duration = Duration::from_secs(25);
/// Bytes of a line of the greeting.
const LINE_BYTES: usize = 512;
/// Bytes that are read at once.
const READ_BYTES: usize = 4096;
/// Descriptors that come with one read: logind sends one.
const DESCRIPTORS: usize = 4;
/// Looks at logind's delay after it was told of a new one, each after twice the time of the last.
const LOOKS: u32 = 5;
/// The first of them.
const FIRST_LOOK: Duration = Duration::from_millis(100);

const LOGIND: &str = "org.freedesktop.login1";
const LOGIND_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";

/// Why logind cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// The socket.
    #[error("cannot speak to the system bus")]
    Bus(#[from] io::Error),
    /// The greeting.
    #[error("the system bus does not take us: {0:?}")]
    Greeting(String),
    /// Its messages.
    #[error("the system bus is not understood")]
    Wire(#[from] WireError),
    /// Its refusal.
    #[error("{member} was refused: {error}: {text}")]
    Refused {
        /// What was asked.
        member: &'static str,
        /// Name of the error.
        error: String,
        /// In words.
        text: String,
    },
    /// Its answer.
    #[error("the answer to {0} is not what it should be")]
    Answer(&'static str),
    /// No answer.
    #[error("no answer to {0}")]
    Silent(&'static str),
    /// logind's bound.
    #[error("logind waits {have:?} for inhibitors, and {want:?} are needed (InhibitDelayMaxSec)")]
    Delay {
        /// As it is.
        have: Duration,
        /// As it should be.
        want: Duration,
    },
}

/// The path of the system bus's socket.
pub fn system_bus() -> PathBuf {
    let given = std::env::var("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_default();
    let first = given.split(';').find_map(|address| address.strip_prefix("unix:path="));
    PathBuf::from(first.map_or(SYSTEM_BUS, |path| path.split(',').next().unwrap_or(path)))
}

/// A connection to the bus.
pub struct Logind {
    stream: UnixStream,
    serial: u32,
    read: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    /// Signals that came while an answer was awaited.
    shutdowns: Vec<bool>,
}

impl std::fmt::Debug for Logind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logind").finish_non_exhaustive()
    }
}

impl Logind {
    /// Connects, and asks to be told of shutdowns.
    pub async fn connect(bus: &Path) -> Result<Self, LogindError> {
        let mut stream = UnixStream::connect(bus).await?;
        greet(&mut stream).await?;
        let mut logind = Self { stream, serial: 0, read: Vec::new(), descriptors: Vec::new(), shutdowns: Vec::new() };
        let bus = |member| to("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member);
        logind.call("Hello", bus("Hello")).await?;
        let rule = format!("type='signal',interface='{MANAGER}',member='PrepareForShutdown',path='{LOGIND_PATH}'");
        logind.call("AddMatch", bus("AddMatch").text(&rule)).await?;
        Ok(logind)
    }

    /// How long the machine waits for inhibitors.
    pub async fn delay(&mut self) -> Result<Duration, LogindError> {
        const GET: &str = "InhibitDelayMaxUSec";
        let call = to(LOGIND, LOGIND_PATH, "org.freedesktop.DBus.Properties", "Get").text(MANAGER).text(GET);
        let answer = self.call(GET, call).await?;
        let mut body = answer.arguments();
        let micros = body.signature().filter(|kind| kind == "t").and_then(|_| body.long()).ok_or(LogindError::Answer(GET))?;
        Ok(Duration::from_micros(micros))
    }

    /// Sees to it that the machine waits at least so long: logind is told in `directory`, where its configuration is.
    pub async fn allow(&mut self, want: Duration, directory: &Path) -> Result<(), LogindError> {
        let mut have = self.delay().await?;
        if have >= want {
            return Ok(());
        }
        fs::create_dir_all(directory)?;
        let seconds = want.as_secs() + u64::from(want.subsec_nanos() > 0);
        let text = format!("# Coracle: time for pods to end (--shutdown-grace-period).\n[Login]\nInhibitDelayMaxSec={seconds}\n");
        fs::write(directory.join("99-coracle.conf"), text)?;
        let reload = to("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager", "KillUnit");
        let hang_up = libc::SIGHUP.unsigned_abs();
        self.call("KillUnit", reload.text("systemd-logind.service").text("all").number('i', hang_up)).await?;
        // It reads its configuration in its own time, and says nothing when it has.
        for look in 0..LOOKS {
            tokio::time::sleep(FIRST_LOOK * (1 << look)).await;
            have = self.delay().await?;
            if have >= want {
                return Ok(());
            }
        }
        Err(LogindError::Delay { have, want })
    }

    /// Holds a shutdown back until the descriptor is dropped.
    pub async fn inhibit(&mut self) -> Result<OwnedFd, LogindError> {
        const INHIBIT: &str = "Inhibit";
        let call = to(LOGIND, LOGIND_PATH, MANAGER, INHIBIT).text("shutdown").text("coracle").text("pods need time to end").text("delay");
        self.descriptors.clear();
        self.call(INHIBIT, call).await?;
        self.descriptors.pop().ok_or(LogindError::Answer(INHIBIT))
    }

    /// The next word of logind: the machine goes down, or does not after all.
    pub async fn shutdown(&mut self) -> Result<bool, LogindError> {
        loop {
            if !self.shutdowns.is_empty() {
                return Ok(self.shutdowns.remove(0));
            }
            let message = self.next().await?;
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Message) {
        if message.kind == Kind::Signal
            && (message.interface.as_str(), message.member.as_str()) == (MANAGER, "PrepareForShutdown")
            && let Some(begins) = message.arguments().number()
        {
            self.shutdowns.push(begins != 0);
        }
    }

    async fn call(&mut self, member: &'static str, mut call: Message) -> Result<Message, LogindError> {
        self.serial += 1;
        call.serial = self.serial;
        self.stream.write_all(&call.encode()).await?;
        let answered = async {
            loop {
                let message = self.next().await?;
                if message.reply_to == Some(call.serial) {
                    return Ok::<_, LogindError>(message);
                }
                self.hear(&message);
            }
        };
        let answer = tokio::time::timeout(ANSWER, answered).await.map_err(|_| LogindError::Silent(member))??;
        if answer.kind == Kind::Error {
            let text = answer.arguments().text().unwrap_or_default();
            return Err(LogindError::Refused { member, error: answer.error, text });
        }
        Ok(answer)
    }

    async fn next(&mut self) -> Result<Message, LogindError> {
        loop {
            if let Some((message, length)) = Message::decode(&self.read)? {
                self.read.drain(..length);
                return Ok(message);
            }
            if self.read.len() > MAX_BYTES {
                return Err(WireError::TooLarge.into());
            }
            self.stream.readable().await?;
            let fd = self.stream.as_raw_fd();
            match self.stream.try_io(Interest::READABLE, || receive(fd)) {
                Ok((bytes, _)) if bytes.is_empty() => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((bytes, descriptors)) => {
                    self.read.extend(bytes);
                    self.descriptors.extend(descriptors);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn to(destination: &str, path: &str, interface: &str, member: &str) -> Message {
    let mut call = Message::new(Kind::Call, 0);
    call.destination = destination.to_owned();
    call.path = path.to_owned();
    call.interface = interface.to_owned();
    call.member = member.to_owned();
    call
}

/// Says who we are by our uid, as the kernel vouches for it, and that we take descriptors.
async fn greet(stream: &mut UnixStream) -> Result<(), LogindError> {
    let uid = nix::unistd::geteuid().to_string();
    let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
    for (ask, want) in [(format!("\0AUTH EXTERNAL {hex}\r\n"), "OK "), ("NEGOTIATE_UNIX_FD\r\n".to_owned(), "AGREE_UNIX_FD")] {
        stream.write_all(ask.as_bytes()).await?;
        let line = line(stream).await?;
        if !line.starts_with(want) {
            return Err(LogindError::Greeting(line));
        }
    }
    Ok(stream.write_all(b"BEGIN\r\n").await?)
}

async fn line(stream: &mut UnixStream) -> Result<String, LogindError> {
    let mut out = Vec::new();
    while !out.ends_with(b"\r\n") && out.len() < LINE_BYTES {
        out.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
}

fn receive(fd: RawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = vec![0; READ_BYTES];
    let mut control = cmsg_space!([RawFd; DESCRIPTORS]);
    let mut parts = [io::IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(fd, &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(list) = control {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            descriptors.extend(list.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    Ok((buffer, descriptors))
}

#[cfg(test)]
mod tests;
