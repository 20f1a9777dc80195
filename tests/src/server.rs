//! A `coracle server` of its own: data directory, ports and everything else are gone when the test ends, however it ends.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{Kubectl, image, memory};

/// A server that is not ready by then will not be; generous, because tests share the machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The program under test.
pub fn program() -> PathBuf {
    match env::var_os("CORACLE_BIN") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../dist/coracle")
            .canonicalize()
            .expect("CORACLE_BIN, or dist/coracle by packaging/build.sh"),
    }
}

/// A running server with its data.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    args: Vec<String>,
    environment: Vec<(&'static str, OsString)>,
    child: Option<Child>,
    bound_kib: u64,
}

impl Server {
    /// A whole cluster that has the image `busybox:test` and a node that is Ready.
    pub fn with_image() -> (Self, Kubectl) {
        Self::with_image_and(&[], Vec::new())
    }

    /// The same, with these further flags and variables.
    pub fn with_image_and(args: &[&str], environment: Vec<(&'static str, OsString)>) -> (Self, Kubectl) {
        Self::start_with(args, environment).and_image()
    }

    /// The same, with its data below this directory and these further flags.
    pub fn with_image_below(place: &Path, args: &[&str]) -> (Self, Kubectl) {
        Self::start_below(place, args, Vec::new()).and_image()
    }

    fn and_image(self) -> (Self, Kubectl) {
        let directory = tempfile::tempdir().expect("a directory");
        self.import(&image::busybox(directory.path()));
        let kubectl = self.kubectl();
        kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);
        let taints = kubectl.ok(&["get", "nodes", "-o", "jsonpath={.items[*].spec.taints[*].key}"]);
        assert!(!taints.contains("pressure"), "no pod can run on this machine, make room on its disk or in its memory: {taints}");
        (self, kubectl)
    }

    /// Starts one with these further flags and waits until it says that it is ready.
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, Vec::new())
    }

    /// The same, with variables.
    pub fn start_with(args: &[&str], environment: Vec<(&'static str, OsString)>) -> Self {
        // Not below /tmp: overlay file systems and big images want a disk.
        Self::start_below(Path::new("/var/tmp"), args, environment)
    }

    fn start_below(place: &Path, args: &[&str], environment: Vec<(&'static str, OsString)>) -> Self {
        let directory = tempfile::Builder::new().prefix("coracle-test-").tempdir_in(place).expect("a directory");
        let mut server = Self {
            directory,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            environment,
            child: None,
            bound_kib: memory::BOUND_KIB,
        };
        server.up();
        server
    }

    /// Lets its main process use so much in place of [`memory::BOUND_KIB`]: for tests that are not small.
    pub fn may_use(mut self, kib: u64) -> Self {
        self.bound_kib = kib;
        self
    }

    /// Takes these further flags from its next start on, in place of the former ones.
    pub fn set_flags(&mut self, args: &[&str]) {
        self.args = args.iter().map(|a| (*a).to_owned()).collect();
    }

    /// Starts it again on the same data.
    pub fn up(&mut self) {
        self.up_as(&program());
    }

    /// The same, by another build of the program.
    pub fn up_as(&mut self, program: &Path) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = self.command(program).stderr(Stdio::piped()).spawn().expect("the program can be started");
        let stderr = child.stderr.take().expect("it was piped");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("{line}");
                if line.contains("ready; KUBECONFIG=") {
                    let _ = tell.send(());
                }
            }
        });
        self.child = Some(child);
        told.recv_timeout(START_LIMIT).expect("the server is ready");
    }

    /// Starts it on the same data and kills it after this time, wherever it is by then.
    pub fn up_briefly(&mut self, time: Duration) {
        assert!(self.child.is_none(), "it runs already");
        let mut child = self.command(&program()).stderr(Stdio::null()).spawn().expect("the program can be started");
        std::thread::sleep(time);
        child.kill().expect("it lives");
        child.wait().expect("it ends");
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args(["server", "--https-listen-port=0", "--kubelet-port=0", "--data-dir"])
            .arg(self.directory.path())
            .args(&self.args);
        command
    }

    /// Sends a signal and waits for the end of the process.
    pub fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        kill(pid, signal).expect("it lives");
        child.wait().expect("it ends");
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// kubectl for it.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.kubeconfig())
    }

    /// Its administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// Its data.
    pub fn data_dir(&self) -> &Path {
        self.directory.path()
    }

    /// `coracle images`.
    pub fn images(&self, args: &[&OsStr]) -> Output {
        let mut command = Command::new(program());
        command.args(["images", "--data-dir"]).arg(self.data_dir()).args(args).output().expect("it runs")
    }

    /// Imports an image archive.
    pub fn import(&self, archive: &Path) {
        let output = self.images(&[OsStr::new("import"), archive.as_os_str()]);
        assert!(output.status.success(), "import: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Judged at the end: a failure here must leave nothing behind either.
        let used = self.child.as_ref().and_then(|child| memory::pss(child.id()));
        self.end(Signal::SIGTERM);
        let output = Command::new(program()).arg("killall").arg("--data-dir").arg(self.directory.path()).output();
        let output = output.expect("killall runs");
        if !output.status.success() && !std::thread::panicking() {
            panic!("something is left: {}", String::from_utf8_lossy(&output.stderr));
        }
        memory::check(used, self.bound_kib);
    }
}
