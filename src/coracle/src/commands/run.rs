//! `coracle run`: the cluster of one command.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use coracle_client::{WatchError, watch::until};
use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use crate::{
    cli::{Role, RunFlags},
    cluster::Cluster,
    commands::{doctor, images, killall, signals::Signals},
    config::server::{Defaults, ServerConfig},
    failure::Failure,
    place::{self, Life, Place},
    steps::Steps,
};

/// Where temporary clusters keep their data: on disk, because images and databases do not belong into memory.
const DATA_ROOT: &str = "/var/lib/coracle-run";
/// A node that is not Ready by then will not be.
const NODE_LIMIT: Duration = Duration::from_secs(60);
/// What the command gets to end after SIGTERM.
const COMMAND_GRACE: Duration = Duration::from_secs(10);
/// What a start that was interrupted gets to come to its end.
const START_GRACE: Duration = Duration::from_secs(10);
/// What an exit code is by which a shell tells a signal, before its number.
const SIGNALLED: i32 = 128;

/// Runs the command with a cluster; the exit code is the command's.
pub async fn run(flags: &RunFlags) -> Result<(), Failure> {
    let steps = Steps::new();
    let data_dir = flags.server.data_dir.clone().unwrap_or_else(fresh_data_dir);
    let keep = flags.keep || flags.server.data_dir.is_some();
    let config = ServerConfig::resolve(&flags.server, Defaults::run(data_dir.clone())).map_err(Failure::of)?;
    doctor::need(&config)?;
    killall::abandoned().await;
    let place = Place::take(&config.data_dir, Life::Temporary { keep }, place::SLOTS).map_err(Failure::of)?;
    let outcome = with_cluster(flags, &config, &place, &steps).await;
    let left = killall::take_down(&place.id, &place.data_dir, !keep).await;
    for problem in &left {
        eprintln!("coracle: {problem}");
    }
    let end = outcome?;
    if !left.is_empty() {
        return Err(Failure::new("the machine is not as it was before"));
    }
    match end {
        End::Quiet => Ok(()),
        End::Interrupted(_) if flags.command.is_empty() => Ok(()),
        End::Interrupted(signal) => Err(Failure::silent(exit_code(ExitStatus::from_raw(signal as i32)))),
        End::Command(status) if status.success() => Ok(()),
        End::Command(status) => Err(Failure::silent(exit_code(status))),
    }
}

/// How it came to its end.
enum End {
    /// There was no command, and the cluster was told to end.
    Quiet,
    /// A signal came before the command ran.
    Interrupted(Signal),
    /// The command ended.
    Command(ExitStatus),
}

async fn with_cluster(flags: &RunFlags, config: &ServerConfig, place: &Place, steps: &Steps) -> Result<End, Failure> {
    let mut signals = Signals::new()?;
    for archive in &flags.import {
        images::import(&place.data_dir, archive)?;
        steps.done(format_args!("imported {}", archive.display()));
    }
    let mut start = std::pin::pin!(Cluster::start(config, place, steps));
    let (started, interrupted) = tokio::select! {
        started = &mut start => (started, None),
        // Half a cluster could not be taken down in order, and a start is a second.
        signal = signals.next() => match tokio::time::timeout(START_GRACE, start).await {
            Ok(started) => (started, Some(signal)),
            Err(_) => return Ok(End::Interrupted(signal)),
        },
    };
    let cluster = started.map_err(Failure::of)?;
    if let Some(signal) = interrupted {
        cluster.stop().await;
        return Ok(End::Interrupted(signal));
    }
    let end = tokio::select! {
        answers = answers(&cluster, config, steps) => match answers {
            Ok(()) => command(flags, &cluster, place, steps, &mut signals).await,
            Err(failure) => Err(failure),
        },
        signal = signals.next() => Ok(End::Interrupted(signal)),
    };
    cluster.stop().await;
    end
}

/// Runs the command, if there is one, to its end or a signal.
async fn command(flags: &RunFlags, cluster: &Cluster, place: &Place, steps: &Steps, signals: &mut Signals) -> Result<End, Failure> {
    let Some((program, arguments)) = flags.command.split_first() else {
        steps.done(format_args!("up until Ctrl-C; export KUBECONFIG={}", cluster.kubeconfig.display()));
        signals.next().await;
        return Ok(End::Quiet);
    };
    steps.done("running the command");
    let child = spawn(program, arguments, &cluster.kubeconfig, place);
    let mut child = child.map_err(|error| Failure::new(format!("cannot run {program}")).because(error).with_code(127))?;
    let lost = |error| Failure::new("the command was lost").because(error);
    tokio::select! {
        status = child.wait() => status.map(End::Command).map_err(lost),
        _ = signals.next() => end(&mut child).await.map(End::Command).map_err(lost),
    }
}

/// Waits until the cluster is of use: its node is Ready and its DNS answers.
async fn answers(cluster: &Cluster, config: &ServerConfig, steps: &Steps) -> Result<(), Failure> {
    if let Some(node) = &cluster.node {
        within("the node is not Ready", until(&cluster.admin, None, node, is_ready)).await?;
        steps.done(format_args!("node {node} is Ready"));
    }
    if let Some(node) = cluster.node.as_ref().filter(|_| config.has(Role::Dns)) {
        let slice = coracle_dns::slice_name(node);
        let slice = within("DNS does not answer", until(&cluster.admin, Some("kube-system"), &slice, has_endpoint)).await?;
        if let Some(address) = slice.as_ref().and_then(dns_address) {
            let answered = tokio::time::timeout(NODE_LIMIT, crate::demo::ask_dns(address, &config.cluster_domain)).await;
            answered.map_err(|_| Failure::new("DNS does not answer"))?;
            steps.done(format_args!("DNS answers on {address}"));
        }
    }
    Ok(())
}

async fn within<T>(what: &str, wait: impl Future<Output = Result<T, WatchError>>) -> Result<T, Failure> {
    match tokio::time::timeout(NODE_LIMIT, wait).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::new(what).because(error)),
        Err(_) => Err(Failure::new(format!("{what} after {} s", NODE_LIMIT.as_secs()))),
    }
}

fn is_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
    conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn has_endpoint(slice: Option<&EndpointSlice>) -> bool {
    slice.is_some_and(|s| dns_address(s).is_some())
}

fn dns_address(slice: &EndpointSlice) -> Option<SocketAddr> {
    let ip = slice.endpoints.iter().flatten().find_map(|e| e.addresses.first())?.parse().ok()?;
    let port = slice.ports.iter().flatten().find(|p| p.protocol.as_deref() == Some("UDP"))?.port?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

/// In the cluster's cgroup, so that Services answer to the command as they do to pods; ended by the kernel if we die.
fn spawn(program: &str, arguments: &[String], kubeconfig: &Path, place: &Place) -> io::Result<Child> {
    let groups = coracle_runtime::group::make(&format!("{}/command", place.cgroup()))?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("CORACLE_DATA_DIR", &place.data_dir)
        .stdin(Stdio::inherit())
        .kill_on_drop(true);
    // SAFETY: between fork and exec only write(2) on paths made before and prctl(2): both are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            for group in &groups {
                join(group)?;
            }
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(io::Error::from)
        });
    }
    command.spawn()
}

/// Puts the calling process into a cgroup: `0` written to its `cgroup.procs`.
fn join(procs: &std::ffi::CStr) -> io::Result<()> {
    use nix::fcntl::{OFlag, open};
    let file = open(procs, OFlag::O_WRONLY | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())?;
    nix::unistd::write(&file, b"0").map(drop).map_err(io::Error::from)
}

/// SIGTERM, and SIGKILL to who does not heed it.
async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may be gone already: then there is a status to wait for.
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM);
    }
    match tokio::time::timeout(COMMAND_GRACE, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.kill().await?;
            child.wait().await
        }
    }
}

/// As a shell has it: a signal is 128 and its number.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| SIGNALLED + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

fn fresh_data_dir() -> PathBuf {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Path::new(DATA_ROOT).join(format!("{}-{nanos:x}", std::process::id()))
}
