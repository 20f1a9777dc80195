//! The resident as the role has it: adopted when one is there, started when not, replaced in place when it is of another program.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _},
            net::UnixListener,
        },
    },
    path::Path,
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Interest, unix::AsyncFd},
    net::UnixStream,
    time::timeout,
};

use super::{Config, stop};
use crate::{
    records::Change,
    resident::{
        Command, Hello, MAX_HELLO_BYTES, SUBCOMMAND,
        pidfd::{self, Pidfd},
        state::{self, Settings},
    },
};

/// For a resident to answer: far more than it needs, on a machine under load too.
const PATIENCE: Duration = Duration::from_secs(10);

/// A resident that answers.
pub struct Resident {
    /// What it says of itself.
    pub hello: Hello,
    /// Whether it was there before.
    pub adopted: bool,
    /// Its process.
    pub process: AsyncFd<Pidfd>,
    /// The way to tell it.
    pub talk: Talk,
}

/// A connection to the resident.
pub struct Talk {
    stream: BufReader<UnixStream>,
}

/// Makes the state directory and writes the settings; true: a resident that runs has others.
pub fn prepare(dir: &Path, settings: &Settings) -> io::Result<bool> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let news = state::settings(dir).is_some_and(|before| before != *settings);
    state::keep_settings(dir, settings)?;
    Ok(news)
}

/// A resident of our program and settings; `news`: one that runs may have been started with others.
pub async fn attend(config: &Config, news: bool) -> io::Result<Resident> {
    if let Ok(mut found) = connect(&config.state_dir, true).await {
        if !fits(config.listen, found.hello.address) {
            found.process.get_ref().kill()?;
            gone(&found.process).await;
        } else if news || !same_program(found.hello.pid, &config.program) {
            tracing::info!(pid = found.hello.pid, "the resident of DNS becomes the program that runs now");
            found.talk.send(&Command::Become(config.program.clone())).await?;
            found.talk.hung_up().await?;
            // It keeps the control socket too: the next connection waits for it there.
            return connect(&config.state_dir, true).await;
        } else {
            return Ok(found);
        }
    } else if let Some((pid, process)) = stop::recorded(&config.state_dir) {
        tracing::warn!(pid, "the resident of DNS runs and does not answer: another takes its place");
        process.kill()?;
        gone(&watched(process)?).await;
    }
    start(config)?;
    connect(&config.state_dir, false).await
}

fn watched(process: Pidfd) -> io::Result<AsyncFd<Pidfd>> {
    // SAFETY: a `Pidfd` owns its descriptor, and never replaces it.
    Ok(unsafe { AsyncFd::register_with_interest(process, Interest::READABLE)? })
}

/// Waits for the end of the process, and takes its exit status away.
pub async fn gone(process: &AsyncFd<Pidfd>) {
    match process.readable().await {
        Ok(_) => process.get_ref().reap(),
        // The reactor ends, and this process with it.
        Err(_) => std::future::pending().await,
    }
}

async fn connect(dir: &Path, adopted: bool) -> io::Result<Resident> {
    timeout(PATIENCE, async {
        let mut talk = Talk { stream: BufReader::new(UnixStream::connect(state::control(dir)).await?) };
        let hello: Hello = serde_json::from_slice(&talk.line().await?)?;
        let process = watched(pidfd::open(hello.pid)?)?;
        Ok(Resident { hello, adopted, process, talk })
    })
    .await?
}

impl Talk {
    /// Returns when the resident answers by these.
    pub async fn tell(&mut self, changes: Vec<Change>) -> io::Result<()> {
        self.send(&Command::Changes(changes)).await?;
        self.line().await.map(drop)
    }

    /// Returns when the resident has taken the last command and turned away. A connection made before that would take its attention from the command.
    async fn hung_up(&mut self) -> io::Result<()> {
        while let Ok(line) = timeout(PATIENCE, self.line()).await? {
            tracing::debug!(bytes = line.len(), "the resident of DNS said something before it turned away");
        }
        Ok(())
    }

    async fn send(&mut self, command: &Command) -> io::Result<()> {
        let mut line = serde_json::to_vec(command)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.stream).take(MAX_HELLO_BYTES).read_until(b'\n', &mut line).await?;
        if line.ends_with(b"\n") { Ok(line) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")) }
    }
}

/// Whether one that answers at `at` does what `wanted` asks for.
fn fits(wanted: SocketAddr, at: SocketAddr) -> bool {
    wanted.ip() == at.ip() && (wanted.port() == 0 || wanted.port() == at.port())
}

/// By file, not by name: an upgrade puts another file under the same name.
fn same_program(pid: i32, program: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    match (file(Path::new(&format!("/proc/{pid}/exe"))), file(program)) {
        (Ok(runs), Ok(wanted)) => runs == wanted,
        // The program is no longer there: what runs cannot become it.
        _ => true,
    }
}

/// Starts one. It gets the control socket from us, so a connection made at once waits until it listens.
fn start(config: &Config) -> io::Result<()> {
    let control = state::control(&config.state_dir);
    match fs::remove_file(&control) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let control: OwnedFd = UnixListener::bind(control)?.into();
    let log = File::create(state::log(&config.state_dir))?;
    let mut command = std::process::Command::new(&config.program);
    command.arg(SUBCOMMAND).arg(&config.state_dir).env_clear().current_dir("/");
    // Whoever waits for its end does so by its descriptor; the handle is not needed.
    command.stdin(Stdio::from(control)).stdout(Stdio::null()).stderr(Stdio::from(log)).spawn().map(drop)
}
