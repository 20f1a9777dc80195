//! A containerd of the test's own: started by hand with all that it keeps in one directory, gone with all that it runs when the test ends.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::image;

/// It is there in a second; tests share the machine.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The image of the sandboxes' own process.
const PAUSE: &str = "coracle.test/pause:1";

/// containerd at a socket.
#[derive(Debug)]
pub struct Containerd {
    directory: TempDir,
    child: Option<Child>,
}

impl Containerd {
    /// Starts one that has the image `busybox:test`. Without containerd and runc on the machine the test fails and says what is missing.
    pub fn start() -> Self {
        for program in ["containerd", "ctr", "runc"] {
            let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(found.is_ok_and(|s| s.success()), "{program} is not here: sh packaging/install-deps.sh test installs it");
        }
        let directory = tempfile::Builder::new().prefix("coracle-containerd-").tempdir_in("/var/tmp").expect("a directory");
        let mut containerd = Self { directory, child: None };
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n[grpc]\naddress = \"{0}/c.sock\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"{PAUSE}\"\nrestrict_oom_score_adj = true\ndisable_apparmor = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = \"{0}/bin\"\nconf_dir = \"{0}/net.d\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"{0}/certs.d\"\n",
            containerd.path("").trim_end_matches('/'),
        );
        fs::write(containerd.path("config.toml"), config).expect("written");
        fs::create_dir(containerd.path("net.d")).expect("made");
        containerd.up();
        let pause = image::archive(containerd.directory.path(), "pause.tar", &[PAUSE], &["sleep", "1000000000"]);
        let busybox = image::busybox(containerd.directory.path());
        for archive in [pause, busybox] {
            containerd.ctr(&["images", "import", archive.to_str().expect("UTF-8")]);
        }
        containerd
    }

    /// Starts it, or starts it again after its end.
    pub fn up(&mut self) {
        let mut child = Command::new("containerd")
            .args(["--config", &self.path("config.toml")])
            .stderr(Stdio::piped())
            .spawn()
            .expect("containerd can be started");
        let stderr = child.stderr.take().expect("it was piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("containerd successfully booted") {
                    let _ = tell.send(());
                }
            }
        });
        self.child = Some(child);
        told.recv_timeout(START_LIMIT).expect("containerd is there");
    }

    /// Ends it; what it runs goes on.
    pub fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it lives");
        child.wait().expect("it ends");
    }

    /// A path of it.
    pub fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// The flags with which a server uses it.
    pub fn flags(&self) -> Vec<String> {
        vec![
            format!("--container-runtime-endpoint=unix://{}", self.path("c.sock")),
            format!("--cni-conf-dir={}", self.path("net.d")),
            format!("--cni-bin-dir={}", self.path("bin")),
        ]
    }

    /// Trusts this authority for a registry.
    pub fn trust(&self, host: &str, authority: &Path) {
        let directory = PathBuf::from(self.path("certs.d")).join(host);
        fs::create_dir_all(&directory).expect("made");
        let hosts = format!("server = \"https://{host}\"\n[host.\"https://{host}\"]\nca = \"{}\"\n", authority.display());
        fs::write(directory.join("hosts.toml"), hosts).expect("written");
    }

    /// containerd's own tool, which must succeed; its standard output.
    pub fn ctr(&self, args: &[&str]) -> String {
        let output = Command::new("ctr").args(["--address", &self.path("c.sock"), "--namespace", "k8s.io"]).args(args).output();
        let output = output.expect("ctr runs");
        assert!(output.status.success(), "ctr {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // A test that failed may have left tasks; their shims would outlive containerd.
        let ctr =
            |args: &[&str]| Command::new("ctr").args(["--address", &self.path("c.sock"), "--namespace", "k8s.io"]).args(args).output();
        if let Ok(tasks) = ctr(&["tasks", "list", "--quiet"]) {
            for task in String::from_utf8_lossy(&tasks.stdout).lines() {
                let _ = ctr(&["tasks", "delete", "--force", task]);
            }
        }
        self.end(Signal::SIGTERM);
    }
}
