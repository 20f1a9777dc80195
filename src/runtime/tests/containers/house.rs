//! A runtime in a temporary directory, with a busybox image, and what every test does with it.

use std::{
    ffi::{CStr, OsString},
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use coracle_runtime::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, PodRuntime, RuntimeEvent, SandboxSpec,
    embedded::{EmbeddedRuntime, Options},
};
use futures::StreamExt;

/// This test program is the shim of its pods: it is asked before the test harness begins.
#[used]
#[unsafe(link_section = ".init_array")]
static SHIM: extern "C" fn(i32, *const *const std::ffi::c_char) = {
    extern "C" fn shim(count: i32, args: *const *const std::ffi::c_char) {
        // SAFETY: the loader passes the program's own arguments.
        let args = (1..count as usize).map(|n| OsString::from_vec(unsafe { CStr::from_ptr(*args.add(n)) }.to_bytes().to_vec()));
        if coracle_runtime::dispatch(args).is_some() {
            std::process::exit(0);
        }
    }
    shim
};

/// What no event of the runtime should take longer than, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A runtime of its own.
pub struct House {
    /// Removed at the end, but not by a process that only visits.
    owned: Option<tempfile::TempDir>,
    dir: PathBuf,
    pub runtime: Arc<EmbeddedRuntime>,
    prefix: String,
}

/// Makes names that are used once on this machine.
pub fn unique() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A tar of `docker save` with busybox: /bin with a link for every applet that is used here, users and groups.
fn image() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| fs::read(path).ok()).expect("Debian's busybox-static is installed");
        let mut layer = tar::Builder::new(Vec::new());
        let mut put = |name: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            if link.is_empty() { layer.append_data(&mut header, name, data) } else { layer.append_link(&mut header, name, link) }.unwrap();
        };
        for dir in ["bin/", "etc/", "tmp/", "root/"] {
            put(dir, tar::EntryType::Directory, if dir == "tmp/" { 0o1777 } else { 0o755 }, b"", "");
        }
        put("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, "");
        for applet in "sh cat echo sleep id env hostname touch ls mkdir mknod mount dd kill head tail tr printf true false stty tty ps grep unshare chmod wc test".split(' ') {
            put(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, b"", "busybox");
        }
        put("etc/passwd", tar::EntryType::Regular, 0o644, b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n", "");
        put("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\napp:x:1001:\nvideo:x:44:app\n", "");
        let layer = layer.into_inner().unwrap();
        let digest = coracle_runtime::images::Digest::of(&layer).to_string();
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = format!(r#"{{"architecture":"{arch}","os":"linux","config":{{"Cmd":["/bin/sh"],"Env":["PATH=/bin"]}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}}}}"#);
        let mut archive = tar::Builder::new(Vec::new());
        let manifest = r#"[{"Config":"c.json","RepoTags":["busybox:test"],"Layers":["l.tar"]}]"#;
        for (name, data) in [("manifest.json", manifest.as_bytes()), ("c.json", config.as_bytes()), ("l.tar", &layer)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, name, data).unwrap();
        }
        archive.into_inner().unwrap()
    })
}

impl House {
    pub async fn new() -> Self {
        let owned = tempfile::Builder::new().prefix("coracle-rt-").tempdir().unwrap();
        let house = Self::at(owned.path().to_owned(), format!("/coracle-test-{}", unique())).await;
        fs::write(house.dir.join("image.tar"), image()).unwrap();
        house.runtime.image_store().import(&house.dir.join("image.tar"), None).unwrap();
        Self { owned: Some(owned), ..house }
    }

    /// In a directory of another process.
    pub async fn at(dir: PathBuf, prefix: String) -> Self {
        let runtime = Self::open(&dir, &prefix).await;
        Self { owned: None, dir, runtime, prefix }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    async fn open(dir: &Path, prefix: &str) -> Arc<EmbeddedRuntime> {
        let options = Options {
            data_dir: dir.join("data"),
            state_dir: dir.join("state"),
            cgroup_prefix: prefix.to_owned(),
            program: std::env::current_exe().unwrap(),
            handlers: Default::default(),
        };
        Arc::new(EmbeddedRuntime::open(options).await.unwrap())
    }

    /// A second runtime over the same state, as a restarted process would open it.
    pub async fn reopened(&self) -> Arc<EmbeddedRuntime> {
        Self::open(&self.dir, &self.prefix).await
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub fn sandbox(&self) -> SandboxSpec {
        let id = unique();
        SandboxSpec {
            namespace: "default".into(),
            name: "pod".into(),
            uid: id.clone(),
            hostname: "pod".into(),
            cgroup: format!("{}/pod{id}", self.prefix),
            log_directory: self.log_dir(),
            id,
            ..SandboxSpec::default()
        }
    }

    pub async fn pod(&self) -> SandboxSpec {
        let spec = self.sandbox();
        self.runtime.create_sandbox(&spec).await.unwrap();
        spec
    }

    /// Makes and starts a container that runs a line of shell.
    pub async fn run(&self, pod: &SandboxSpec, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> ContainerId {
        let mut spec = container(pod, script);
        change(&mut spec);
        self.runtime.create_container(&spec).await.unwrap();
        self.runtime.start_container(&spec.id).await.unwrap();
        spec.id
    }

    /// A pod of one container that runs to its end; its exit code, reason and output.
    pub async fn output(&self, script: &str, change: impl FnOnce(&mut ContainerSpec)) -> (i32, String, String) {
        let pod = self.pod().await;
        let id = self.run(&pod, script, change).await;
        let (code, reason) = self.exit(&id).await;
        let log = self.log(&id);
        self.runtime.remove_sandbox(&pod.id).await.unwrap();
        (code, reason, log)
    }

    /// Waits for the container's end.
    pub async fn exit(&self, id: &ContainerId) -> (i32, String) {
        match exited(&*self.runtime, id).await.state {
            ContainerState::Exited { exit_code, reason, .. } => (exit_code, reason),
            other => panic!("{other:?}"),
        }
    }

    /// The text of its log, without times and tags.
    pub fn log(&self, id: &ContainerId) -> String {
        let text = fs::read_to_string(self.log_dir().join(format!("{}.log", id.id))).unwrap();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    }

    /// Ends everything and looks whether something is left.
    pub async fn close(self) {
        for sandbox in self.runtime.sandboxes().await.unwrap() {
            self.runtime.remove_sandbox(&sandbox.spec.id).await.unwrap();
        }
        for dir in ["state", "data/containers"] {
            assert_eq!(fs::read_dir(self.dir.join(dir)).unwrap().count(), 0, "{dir} is empty");
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(self.dir.to_str().unwrap()), "no mount is left");
        for group in cgroups(&self.prefix) {
            for entry in fs::read_dir(&group).unwrap().flatten().filter(|entry| entry.file_type().unwrap().is_dir()) {
                assert_eq!(entry.file_name(), "shims", "{}", group.display());
                fs::remove_dir(entry.path()).unwrap();
            }
            fs::remove_dir(&group).unwrap();
        }
        drop(self.owned);
    }
}

/// The directories of a cgroup in all hierarchies.
pub fn cgroups(path: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let roots =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|f| f[2].starts_with("cgroup")).map(|f| f[1].to_owned());
    roots.map(|root| PathBuf::from(format!("{root}{path}"))).filter(|dir| dir.exists()).collect()
}

/// Waits for a container's end by the runtime's events.
pub async fn exited(runtime: &dyn PodRuntime, id: &ContainerId) -> ContainerStatus {
    let mut events = runtime.events();
    let wait = async {
        loop {
            let status = runtime.container(id).await.unwrap();
            if matches!(status.state, ContainerState::Exited { .. }) {
                return status;
            }
            while !matches!(events.next().await, Some(RuntimeEvent::Exited(which)) if which == *id) {}
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the container ends")
}

pub fn container(pod: &SandboxSpec, script: &str) -> ContainerSpec {
    let id = unique();
    ContainerSpec {
        id: ContainerId { sandbox: pod.id.clone(), id: id.clone() },
        name: "c".into(),
        image: "busybox:test".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("{id}.log").into(),
        ..ContainerSpec::default()
    }
}
