//! What people do with kubectl beside the tour: one server without a node, one scene after the other.

use std::process::Command;

use coracle_tests::{Kubectl, Server};

const BOATS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew}}
    selectableFields: [{jsonPath: .spec.colour}]
    additionalPrinterColumns: [{name: Colour, type: string, jsonPath: .spec.colour}]
    schema:
      openAPIV3Schema:
        type: object
        description: A thing that floats.
        properties:
          spec:
            type: object
            required: [colour]
            properties:
              colour: {type: string, enum: [red, blue], description: How it looks.}
              crew: {type: integer, default: 1}
            x-kubernetes-validations: [{rule: "self.crew < 10", message: "they do not fit"}]
          status: {type: object, properties: {crew: {type: integer}}}
"#;

fn boat(colour: &str, crew: u32) -> String {
    format!("apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {{name: titan}}\nspec: {{colour: {colour}, crew: {crew}}}\n")
}

fn config(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{of: verbs}}}}\ndata: {{k: \"{value}\"}}\n")
}

/// A file for a command that reads no standard input.
struct File(tempfile::NamedTempFile);

impl File {
    fn of(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Self(file)
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("UTF-8")
    }
}

fn a_kind_of_ones_own(kubectl: &Kubectl) {
    kubectl.apply(BOATS);
    kubectl.wait("crd/boats.sea.example.com", "condition=Established");
    let explained = kubectl.ok(&["explain", "boat", "--recursive"]);
    assert!(explained.contains("A thing that floats.") && explained.contains("enum: red, blue"), "{explained}");
    assert!(kubectl.ok(&["explain", "bt.spec.colour"]).contains("How it looks."));
    assert_eq!(kubectl.apply(&boat("red", 2)), "boat.sea.example.com/titan created\n");
    assert!(kubectl.ok(&["get", "fleet"]).contains("COLOUR"));
    assert_eq!(kubectl.ok(&["get", "bt", "--field-selector=spec.colour=red", "-o", "name"]), "boat.sea.example.com/titan\n");
    kubectl.ok(&["scale", "bt/titan", "--replicas=3"]);
    assert!(kubectl.fails(&["scale", "bt/titan", "--replicas=30"]).contains("they do not fit"));
    kubectl.ok(&["patch", "bt", "titan", "--subresource=status", "--type=merge", "-p", r#"{"status":{"crew":3}}"#]);
    kubectl.wait("bt/titan", "jsonpath={.status.crew}=3");
    assert!(kubectl.fails(&["patch", "bt", "titan", "-p", "{}"]).contains("strategic-merge-patch+json is not supported"));
}

fn differences_and_edits(kubectl: &Kubectl) {
    let (now, next) = (File::of(&config("c", "one")), File::of(&config("c", "two")));
    kubectl.ok(&["apply", "-f", now.path()]);
    assert!(kubectl.output(&["diff", "-f", now.path()]).status.success());
    for flags in [&["diff", "-f", next.path()][..], &["diff", "--server-side", "--force-conflicts", "-f", next.path()]] {
        let output = kubectl.output(flags);
        assert_eq!(output.status.code(), Some(1), "there are differences");
        assert!(String::from_utf8_lossy(&output.stdout).contains("+  k: two"));
    }
    let refused = kubectl.fails(&["apply", "--server-side", "--field-manager=other", "-f", next.path()]);
    assert!(refused.contains("conflict with \"kubectl-client-side-apply\"") && refused.contains(".data.k"), "{refused}");
    kubectl.ok(&["apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", next.path()]);

    let edit = |script: &str, object: &str| {
        let mut command: Command = kubectl.command(&["edit", object]);
        command.env("EDITOR", format!("sed -i {script}")).output().expect("kubectl can be started")
    };
    assert!(edit("s/two/three/", "configmap/c").status.success());
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.k}"]), "three");
    let output = edit("s/colour:.red/colour:\\ green/", "boat/titan");
    let refused = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && refused.contains("boats.sea.example.com \"titan\""), "{refused}");
    // kubectl keeps what it could not save, for its user.
    if let Some((_, kept)) = refused.split_once("stored to \"")
        && let Some((kept, _)) = kept.split_once('"')
    {
        std::fs::remove_file(kept).expect("it is there");
    }

    kubectl.ok(&["replace", "--force", "-f", now.path()]);
    assert_eq!(kubectl.ok(&["get", "cm", "c", "-o", "jsonpath={.data.k}"]), "one");
}

fn what_is_no_longer_applied_goes(kubectl: &Kubectl) {
    let kubectl = kubectl.clone().with("KUBECTL_APPLYSET", "true");
    let both = File::of(&format!("{}---\n{}", config("a", "1"), config("b", "1")));
    let one = File::of(&config("a", "1"));
    let set = ["apply", "--namespace=default", "--prune", "--applyset=configmaps/set", "-f"];
    kubectl.ok(&[&set[..], &[both.path()]].concat());
    assert!(kubectl.ok(&[&set[..], &[one.path()]].concat()).contains("configmap/b pruned"));
    let by_label = ["apply", "--prune", "--selector=of=verbs", "--prune-allowlist=core/v1/ConfigMap", "-f"];
    kubectl.ok(&["apply", "-f", both.path()]);
    assert!(kubectl.ok(&[&by_label[..], &[one.path()]].concat()).contains("configmap/b pruned"));
}

fn who_may_what(kubectl: &Kubectl) {
    let rights = |verb: &str| {
        File::of(&format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: r, namespace: default}}\n\
             rules: [{{apiGroups: [\"\"], resources: [pods], verbs: [{verb}]}}]\n---\n\
             apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: r, namespace: default}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}}\n\
             subjects: [{{kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}}]\n"
        ))
    };
    let can = |verb: &str| kubectl.output(&["auth", "can-i", verb, "pods", "--as=jane"]).status.success();
    kubectl.ok(&["auth", "reconcile", "-f", rights("list").path()]);
    assert!(can("list") && !can("get"));
    kubectl.ok(&["auth", "reconcile", "-f", rights("get").path()]);
    assert!(can("list") && can("get"), "what was there stays");
    kubectl.ok(&["auth", "reconcile", "--remove-extra-permissions", "-f", rights("get").path()]);
    assert!(!can("list") && can("get"));
    assert!(kubectl.ok(&["auth", "can-i", "--list", "--as=jane"]).contains("pods"));
    let me = kubectl.ok(&["auth", "whoami", "--as=jane", "--as-group=crew", "--as-uid=7", "--as-user-extra=k=v"]);
    assert!(me.contains("jane") && me.contains("[crew system:authenticated]") && me.contains("Extra: k"), "{me}");
    assert!(kubectl.fails(&["top", "node"]).contains("metrics not available yet"));
}

/// The node is on paper: its pods never run, and go as soon as they are told to.
fn a_node_is_drained(kubectl: &Kubectl) {
    kubectl.apply("apiVersion: v1\nkind: Node\nmetadata: {name: paper}\nspec: {}\n");
    kubectl.ok(&["taint", "node", "paper", "k=v:NoSchedule"]);
    assert!(kubectl.fails(&["taint", "node", "paper", "k=v:NoSchedule"]).contains("--overwrite is false"));
    kubectl.ok(&["taint", "node", "paper", "k-"]);
    kubectl.apply("apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: all}\nspec: {minAvailable: 1, selector: {matchLabels: {run: p}}}\n");
    kubectl.ok(&["run", "p", "--image=none", "--overrides", r#"{"spec":{"nodeName":"paper"}}"#]);
    let ready = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    kubectl.ok(&["patch", "pod", "p", "--subresource=status", "--type=merge", "-p", ready]);
    kubectl.wait("pdb/all", "jsonpath={.status.currentHealthy}=1");
    assert!(kubectl.fails(&["drain", "paper"]).contains("use --force to override"));
    let refused = kubectl.fails(&["drain", "paper", "--force", "--grace-period=0", "--timeout=1s"]);
    assert!(refused.contains("will retry after 5s") && refused.contains("disruption budget"), "{refused}");
    kubectl.ok(&["delete", "pdb", "all"]);
    kubectl.ok(&["drain", "paper", "--force", "--grace-period=0", "--timeout=60s"]);
    assert!(kubectl.ok(&["get", "node", "paper"]).contains("SchedulingDisabled"));
    kubectl.ok(&["uncordon", "paper"]);
}

#[test]
fn the_other_verbs_of_kubectl() {
    let server = Server::start(&["--disable-agent"]);
    let kubectl = server.kubectl();
    a_kind_of_ones_own(&kubectl);
    differences_and_edits(&kubectl);
    what_is_no_longer_applied_goes(&kubectl);
    who_may_what(&kubectl);
    a_node_is_drained(&kubectl);
}
