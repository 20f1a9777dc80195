//! How long it takes to create and start a container, against runc and crun with the same bundle, interleaved.
//!
//! `create_start [ROUNDS] [--unified]`, as root, of an image with the machine's static busybox. Ours has the default seccomp filter, an
//! overlay, a log, and keeps its state for a restart; the others have a plain directory and no filter, so they have less to do. Prints medians and ratios,
//! then an idle shim's memory, and the lines a second that come to a log. `--unified` shows all of them cgroup v2 alone, in a mount namespace of this run: crun runs in no other layout.

use std::{
    error::Error,
    fs,
    io::BufRead as _,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerState, PodRuntime, SandboxSpec, dispatch,
    embedded::{EmbeddedRuntime, Options},
    images,
};
use futures::StreamExt as _;

/// Asks for cgroup v2 alone.
const UNIFIED: &str = "--unified";

fn cgroup_v2_alone() -> std::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags};
    // SAFETY: the one thread of this process; no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(rustix::mount::mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None)?)
}

fn main() -> ExitCode {
    if let Some(code) = dispatch(std::env::args_os().skip(1)) {
        return code;
    }
    if std::env::args().any(|arg| arg == UNIFIED)
        && let Err(error) = cgroup_v2_alone()
    {
        eprintln!("showing cgroup v2 alone: {error}");
        return ExitCode::FAILURE;
    }
    let reactor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match reactor.map_err(Into::into).and_then(|reactor| reactor.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}: {:?}", error.source());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| arg != UNIFIED);
    let rounds: usize = args.next().map_or(Ok(30), |text| text.parse())?;
    let dir = std::env::temp_dir().join(format!("coracle-bench-{}", std::process::id()));
    let prefix = format!("/coracle-bench-{}", std::process::id());
    let options = Options {
        data_dir: dir.join("data"),
        state_dir: dir.join("state"),
        cgroup_prefix: prefix.clone(),
        program: std::env::current_exe()?,
        handlers: Default::default(),
    };
    let runtime = EmbeddedRuntime::open(options).await?;
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists()).ok_or("no busybox here")?;
    let image = images::from_binary(runtime.image_store(), "busybox:bench", busybox, &images::Defaults::default())?.id;
    let pod = sandbox(&dir, &prefix);
    runtime.create_sandbox(&pod).await?;
    let result = measure(&runtime, &pod, &image, &dir, rounds).await;
    runtime.remove_sandbox(&pod.id).await?;
    fs::remove_dir_all(&dir)?;
    coracle_runtime::group::remove(&prefix).await?;
    result
}

async fn measure(runtime: &EmbeddedRuntime, pod: &SandboxSpec, image: &str, dir: &Path, rounds: usize) -> Result<(), Box<dyn Error>> {
    let others: Vec<&str> = ["runc", "crun"]
        .into_iter()
        .filter(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
        .collect();
    let (mut ours, mut theirs) = (Vec::new(), vec![Vec::new(); others.len()]);
    let mut bundle = None;
    for round in 0..rounds {
        let spec = container(pod, image, round);
        let began = Instant::now();
        runtime.create_container(&spec).await?;
        runtime.start_container(&spec.id).await?;
        ours.push(began.elapsed());
        if bundle.is_none() {
            let config = fs::read(dir.join("state").join(&pod.id).join(&spec.id.id).join("config.json"))?;
            bundle = Some(foreign_bundle(dir, &config)?);
        }
        runtime.remove_container(&spec.id).await?;
        for (name, times) in others.iter().zip(&mut theirs) {
            times.extend(foreign(name, bundle.as_deref().unwrap_or(dir), round)?);
        }
    }
    let ours = median(&mut ours);
    println!("coracle create + start: {:.1} ms (median of {rounds})", ours.as_secs_f64() * 1e3);
    for (name, mut times) in others.into_iter().zip(theirs) {
        if times.is_empty() {
            println!("{name}: does not run here");
            continue;
        }
        let their = median(&mut times);
        println!(
            "{name} create + start: {:.1} ms; coracle/{name} {:.3}",
            their.as_secs_f64() * 1e3,
            ours.as_secs_f64() / their.as_secs_f64()
        );
    }
    let shim: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("state").join(&pod.id).join("shim.json"))?)?;
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim["pid"]))?;
    for line in rollup
        .lines()
        .filter(|line| ["Rss", "Pss:", "Private_Dirty", "Private_Clean", "Anonymous:"].iter().any(|name| line.starts_with(name)))
    {
        println!("shim {line}");
    }
    lines(runtime, pod, image).await
}

/// A container that writes lines as fast as it can: how many come to its log in a second.
async fn lines(runtime: &EmbeddedRuntime, pod: &SandboxSpec, image: &str) -> Result<(), Box<dyn Error>> {
    const LINES: usize = 2_000_000;
    let line = "x".repeat(199);
    let mut spec = container(pod, image, 0);
    spec.id.id = "lines".into();
    spec.log_path = "lines.log".into();
    let script = format!("/bin/busybox yes {line} | /bin/busybox head -n {LINES}");
    spec.command = ["/bin/busybox", "sh", "-c", &script].map(str::to_owned).to_vec();
    let mut events = runtime.events();
    runtime.create_container(&spec).await?;
    let began = Instant::now();
    runtime.start_container(&spec.id).await?;
    while !matches!(runtime.container(&spec.id).await?.state, ContainerState::Exited { .. }) {
        events.next().await;
    }
    let took = began.elapsed();
    let log = std::io::BufReader::new(fs::File::open(pod.log_directory.join(&spec.log_path))?);
    let mut count = 0;
    for read in log.lines() {
        if !read?.ends_with(&line) {
            return Err("a line is damaged".into());
        }
        count += 1;
    }
    if count != LINES {
        return Err(format!("{count} lines of {LINES} came").into());
    }
    println!("log: {:.0} lines/s of {} bytes", LINES as f64 / took.as_secs_f64(), line.len() + 1);
    runtime.remove_container(&spec.id).await?;
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Our own config.json with a plain directory as its root.
fn foreign_bundle(dir: &Path, config: &[u8]) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let bundle = dir.join("bundle");
    fs::create_dir_all(&bundle)?;
    let layer = fs::read_dir(dir.join("data/images/layers"))?.flatten().next().ok_or("no layer")?.path().join("fs");
    Command::new("cp").arg("-a").arg(layer).arg(bundle.join("rootfs")).status()?;
    let mut config: serde_json::Value = serde_json::from_slice(config)?;
    config["root"]["path"] = "rootfs".into();
    let caps = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_SETGID", "CAP_NET_BIND_SERVICE"];
    config["process"]["capabilities"] = serde_json::json!({"bounding": caps, "effective": caps, "permitted": caps});
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.remove("cgroupsPath");
    }
    fs::write(bundle.join("config.json"), config.to_string())?;
    Ok(bundle)
}

fn foreign(name: &str, bundle: &Path, round: usize) -> Result<Option<Duration>, Box<dyn Error>> {
    let id = format!("coracle-bench-{}-{round}", std::process::id());
    let call = |args: &[&str]| {
        Command::new(name)
            .args(args)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
    };
    let began = Instant::now();
    let bundle = bundle.to_string_lossy();
    let ran = call(&["create", "--bundle", &bundle, &id])?.success() && call(&["start", &id])?.success();
    let took = began.elapsed();
    call(&["delete", "--force", &id])?;
    Ok(ran.then_some(took))
}

fn sandbox(dir: &Path, prefix: &str) -> SandboxSpec {
    SandboxSpec { id: "bench".into(), cgroup: format!("{prefix}/pod"), log_directory: dir.join("logs"), ..SandboxSpec::default() }
}

fn container(pod: &SandboxSpec, image: &str, round: usize) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId { sandbox: pod.id.clone(), id: format!("c{round}") },
        image: image.to_owned(),
        command: vec!["/bin/busybox".into(), "sleep".into(), "1000".into()],
        log_path: "c.log".into(),
        ..ContainerSpec::default()
    }
}
