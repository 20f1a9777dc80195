//! The real helm with a chart that has a custom resource, hooks and a test of its own.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use coracle_tests::Server;

/// helm against one cluster, in the namespace `sea`.
struct Helm {
    kubeconfig: PathBuf,
    own: tempfile::TempDir,
}

impl Helm {
    fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new("helm");
        for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(place, self.own.path());
        }
        command.arg("--kubeconfig").arg(&self.kubeconfig).args(["--namespace", "sea"]).args(args).output().expect("helm can be started")
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "helm {args:?} failed: {out}{err}");
        out.into_owned()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(!output.status.success(), "helm {args:?} succeeded: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Each revision's number and status.
    fn history(&self) -> Vec<String> {
        let history: serde_json::Value = serde_json::from_str(&self.ok(&["history", "port", "--output=json"])).expect("JSON");
        let revisions = history.as_array().expect("a list").iter();
        revisions.map(|r| format!("{} {}", r["revision"], r["status"].as_str().expect("a status"))).collect()
    }
}

#[test]
fn a_chart_is_installed_upgraded_rolled_back_and_goes() {
    let (server, kubectl) = Server::with_image();
    let helm = Helm { kubeconfig: server.kubeconfig(), own: tempfile::tempdir().expect("a directory") };
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/harbour");
    let chart = chart.to_str().expect("UTF-8");
    let get = |what: &str, path: &str| kubectl.ok(&["--namespace=sea", "get", what, "port", "--output", &format!("jsonpath={{{path}}}")]);

    helm.ok(&["install", "port", chart, "--create-namespace", "--wait", "--timeout=90s"]);
    assert_eq!(get("ship", ".spec.cargo"), "one");
    assert_eq!(get("configmap", ".data['before','deployments']"), "none true");
    assert_eq!(get("deployment", ".status.readyReplicas"), "1", "helm waited");
    assert!(helm.ok(&["test", "port", "--timeout=90s"]).contains("Succeeded"));

    helm.ok(&["upgrade", "port", chart, "--set=message=two,replicas=2", "--wait", "--timeout=90s"]);
    assert_eq!(get("ship", ".spec.cargo"), "two");
    assert_eq!(get("configmap", ".data.before"), "one");
    assert_eq!(get("deployment", ".status.readyReplicas"), "2");

    // The hook fails: nothing of the release was touched, and helm goes back by itself.
    let error = helm.fails(&["upgrade", "port", chart, "--set=message=three,check=false", "--rollback-on-failure", "--timeout=90s"]);
    assert!(error.contains("pre-upgrade") && error.contains("rolled back"), "{error}");
    assert_eq!(get("ship", ".spec.cargo"), "two");

    helm.ok(&["rollback", "port", "1", "--wait", "--timeout=90s"]);
    assert_eq!((get("ship", ".spec.cargo"), get("deployment", ".spec.replicas")), ("one".to_owned(), "1".to_owned()));
    assert_eq!(helm.history(), ["1 superseded", "2 superseded", "3 failed", "4 superseded", "5 deployed"]);

    helm.ok(&["uninstall", "port", "--wait", "--timeout=90s"]);
    assert_eq!(kubectl.ok(&["--namespace=sea", "get", "ships,services,deployments", "--output=name"]), "");
    kubectl.ok(&["--namespace=sea", "wait", "pod", "--selector=app=port", "--for=delete", "--timeout=90s"]);
    let marks = kubectl.ok(&["--namespace=sea", "get", "configmaps", "--output=name"]);
    for hook in ["pre-install", "post-install", "pre-upgrade", "post-rollback", "pre-delete"] {
        assert!(marks.contains(&format!("configmap/port-{hook}")), "{hook} was run: {marks}");
    }
}
