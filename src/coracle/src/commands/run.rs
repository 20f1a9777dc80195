//! `coracle run`: the cluster of one command.

use std::{
    io,
    net::SocketAddr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{core::v1::Node, discovery::v1::EndpointSlice};
use kube::{
    Api,
    runtime::wait::{Condition, await_condition},
};
use tokio::process::{Child, Command};

use crate::{
    cli::{Role, RunFlags},
    cluster::Cluster,
    commands::{images, killall, server::signals},
    config::server::{Defaults, ServerConfig},
    failure::Failure,
    place::{self, Place},
    steps::Steps,
};

/// Where temporary clusters keep their data: on disk, because images and databases do not belong into memory.
const DATA_ROOT: &str = "/var/lib/coracle-run";
/// A node that is not Ready by then will not be.
const NODE_LIMIT: Duration = Duration::from_secs(60);
/// What the command gets to end after SIGTERM.
const COMMAND_GRACE: Duration = Duration::from_secs(10);

/// Runs the command with a cluster; the exit code is the command's.
pub async fn run(flags: &RunFlags) -> Result<(), Failure> {
    let steps = Steps::new();
    killall::abandoned().await;
    let data_dir = flags.server.data_dir.clone().unwrap_or_else(fresh_data_dir);
    let keep = flags.keep || flags.server.data_dir.is_some();
    let config = ServerConfig::resolve(&flags.server, Defaults::run(data_dir.clone())).map_err(Failure::of)?;
    let place = Place::take(&config.data_dir, true, place::SLOTS).map_err(Failure::of)?;
    let outcome = with_cluster(flags, &config, &place, &steps).await;
    let left = killall::take_down(&place.id, &place.data_dir, !keep).await;
    for problem in &left {
        eprintln!("coracle: {problem}");
    }
    let status = outcome?;
    if !left.is_empty() {
        return Err(Failure::new("the machine is not as it was before"));
    }
    match status {
        None => Ok(()),
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(Failure::silent(exit_code(status))),
    }
}

/// `None`: there was no command, or it was interrupted before it began.
async fn with_cluster(flags: &RunFlags, config: &ServerConfig, place: &Place, steps: &Steps) -> Result<Option<ExitStatus>, Failure> {
    let (mut term, mut interrupt) = signals()?;
    let started = tokio::select! {
        started = start(flags, config, place, steps) => started,
        _ = term.recv() => return Ok(None),
        _ = interrupt.recv() => return Ok(None),
    };
    let cluster = started?;
    let Some((program, arguments)) = flags.command.split_first() else {
        steps.done(format_args!("up until Ctrl-C; export KUBECONFIG={}", cluster.kubeconfig.display()));
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        cluster.stop().await;
        return Ok(None);
    };
    steps.done("running the command");
    let child = spawn(program, arguments, &cluster.kubeconfig, place);
    let status = match child {
        Ok(mut child) => tokio::select! {
            status = child.wait() => status.map(Some).map_err(|e| Failure::new("the command was lost").because(e)),
            _ = term.recv() => Ok(end(&mut child).await),
            _ = interrupt.recv() => Ok(end(&mut child).await),
        },
        Err(error) => Err(Failure::new(format!("cannot run {program}")).because(error).with_code(127)),
    };
    cluster.stop().await;
    status
}

async fn start(flags: &RunFlags, config: &ServerConfig, place: &Place, steps: &Steps) -> Result<Cluster, Failure> {
    for archive in &flags.import {
        images::import(&place.data_dir, archive)?;
        steps.done(format_args!("imported {}", archive.display()));
    }
    let cluster = Cluster::start(config, place, steps).await.map_err(Failure::of)?;
    if let Some(node) = &cluster.node {
        within("the node is not Ready", await_condition(Api::<Node>::all(cluster.admin.clone()), node, ready())).await?;
        steps.done(format_args!("node {node} is Ready"));
    }
    if let Some(node) = cluster.node.as_ref().filter(|_| config.has(Role::Dns)) {
        let slices: Api<EndpointSlice> = Api::namespaced(cluster.admin.clone(), "kube-system");
        let slice = within("DNS does not answer", await_condition(slices, &coracle_dns::slice_name(node), has_endpoint())).await?;
        if let Some(address) = slice.as_ref().and_then(dns_address) {
            let answered = tokio::time::timeout(NODE_LIMIT, crate::demo::ask_dns(address, &config.cluster_domain)).await;
            answered.map_err(|_| Failure::new("DNS does not answer"))?;
            steps.done(format_args!("DNS answers on {address}"));
        }
    }
    Ok(cluster)
}

async fn within<T>(what: &str, wait: impl Future<Output = Result<T, kube::runtime::wait::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(NODE_LIMIT, wait).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::new(what).because(error)),
        Err(_) => Err(Failure::new(format!("{what} after {} s", NODE_LIMIT.as_secs()))),
    }
}

fn ready() -> impl Condition<Node> {
    |node: Option<&Node>| {
        let conditions = node.and_then(|n| n.status.as_ref()).and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    }
}

fn has_endpoint() -> impl Condition<EndpointSlice> {
    |slice: Option<&EndpointSlice>| slice.is_some_and(|s| dns_address(s).is_some())
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
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)
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

async fn end(child: &mut Child) -> Option<ExitStatus> {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    match tokio::time::timeout(COMMAND_GRACE, child.wait()).await {
        Ok(status) => status.ok(),
        Err(_) => {
            let _ = child.kill().await;
            child.wait().await.ok()
        }
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

fn fresh_data_dir() -> PathBuf {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    Path::new(DATA_ROOT).join(format!("{}-{nanos:x}", std::process::id()))
}
