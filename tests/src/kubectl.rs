//! The real kubectl against one cluster.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// For the cluster of this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned() }
    }

    /// A command that can be spawned as the test needs it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // A cache of discovery answers from another cluster would hide what this one says.
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(self.kubeconfig.with_extension("cache")).args(args);
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().expect("kubectl can be started")
    }

    /// Must succeed; its standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        succeeded(args, self.output(args))
    }

    /// Must fail; its standard error.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Must succeed with this manifest on its standard input.
    pub fn stdin(&self, args: &[&str], manifest: &str) -> String {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl can be started");
        child.stdin.take().expect("it was piped").write_all(manifest.as_bytes()).expect("kubectl reads it");
        succeeded(args, child.wait_with_output().expect("kubectl ends"))
    }

    /// `apply -f -`.
    pub fn apply(&self, manifest: &str) -> String {
        self.stdin(&["apply", "-f", "-"], manifest)
    }

    /// Waits, by kubectl's own watch, until the condition holds.
    pub fn wait(&self, object: &str, what: &str) {
        self.ok(&["wait", object, "--for", what, "--timeout=90s"]);
    }
}

fn succeeded(args: &[&str], output: Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kubectl {args:?} failed: {out}{err}");
    out
}
