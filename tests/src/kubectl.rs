//! The real kubectl against one cluster.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::screen::Follow;

/// kubectl with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    environment: Vec<(&'static str, &'static str)>,
}

impl Kubectl {
    /// For the cluster of this kubeconfig.
    pub fn new(kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), environment: Vec::new() }
    }

    /// With a variable that changes how it speaks.
    #[must_use]
    pub fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.environment.push((variable, value));
        self
    }

    /// A command that can be spawned as the test needs it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        // A cache of discovery answers from another cluster would hide what this one says.
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(self.kubeconfig.with_extension("cache")).args(args);
        command.envs(self.environment.iter().copied());
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

    /// Follows what it shows; it ends with the test.
    pub fn follow(&self, args: &[&str]) -> Follow {
        Follow::start(self.command(args))
    }

    /// Waits for an event of the object whose line shows this.
    pub fn event(&self, object: &str, wanted: &str) {
        let of = format!("--field-selector=involvedObject.name={object}");
        self.follow(&["get", "events", "--watch", &of, "--output=custom-columns=R:.reason,M:.message"]).see(wanted);
    }

    /// Runs a shell line in a pod of its own, to its end; its output.
    pub fn in_a_pod(&self, name: &str, line: &str) -> String {
        self.pod(name, &["--restart=Never"], line);
        self.wait(&format!("pod/{name}"), "jsonpath={.status.phase}=Succeeded");
        self.ok(&["logs", name])
    }

    /// Makes a pod that runs a shell line.
    pub fn pod(&self, name: &str, flags: &[&str], line: &str) {
        let head = ["run", name, "--image=busybox:test", "--image-pull-policy=Never"];
        self.ok(&[&head[..], flags, &["--", "sh", "-c", line][..]].concat());
    }

    /// Runs it to its end, whatever that is, with this manifest on its standard input.
    pub fn try_stdin(&self, args: &[&str], manifest: &str) -> Output {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl can be started");
        child.stdin.take().expect("it was piped").write_all(manifest.as_bytes()).expect("kubectl reads it");
        child.wait_with_output().expect("kubectl ends")
    }

    /// Must succeed with this manifest on its standard input.
    pub fn stdin(&self, args: &[&str], manifest: &str) -> String {
        succeeded(args, self.try_stdin(args, manifest))
    }

    /// Must fail with this manifest on its standard input; its standard error.
    pub fn stdin_fails(&self, args: &[&str], manifest: &str) -> String {
        let output = self.try_stdin(args, manifest);
        assert!(!output.status.success(), "kubectl {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
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
