//! Quotas and the controllers that the API's contract needs, with the real kubectl and no node.

use std::sync::Arc;

use coracle_tests::{Kubectl, Server};

const QUOTA: &str = r#"
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {configmaps: "21", pods: "2", requests.cpu: "1", services.nodeports: "1", count/widgets.example.com: "1"}}
"#;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  names: {kind: Widget, plural: widgets}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
"#;

fn widget(name: &str) -> String {
    format!("apiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: {name}, namespace: quota}}\n")
}

const CONTROLLER: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: rc}
spec:
  replicas: 3
  selector: {app: rc}
  template:
    metadata: {labels: {app: rc}}
    spec: {containers: [{name: c, image: example.com/none, resources: {requests: {cpu: 100m}}}]}
"#;

const BUDGET: &str = r#"
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: b}
spec: {maxUnavailable: "50%", selector: {matchLabels: {app: rc}}}
"#;

const MIRRORED: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: elsewhere}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{name: http, port: 8080}]}]
"#;

const ROLES: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sum}
aggregationRule: {clusterRoleSelectors: [{matchLabels: {to-sum: "yes"}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: part, labels: {to-sum: "yes"}}
rules: [{apiGroups: [""], resources: [pods], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: rest, labels: {to-sum: "yes"}}
rules: [{apiGroups: [""], resources: [secrets], verbs: [get]}]
"#;

const RANGE: &str = r#"
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.99.0.0/24]}
"#;

/// Waits until a field has a value.
fn becomes(kubectl: &Kubectl, object: &str, path: &str, value: &str) {
    kubectl.ok(&["-n", "quota", "wait", object, &format!("--for=jsonpath={{{path}}}={value}"), "--timeout=60s"]);
}

fn used(kubectl: &Kubectl, name: &str, value: &str) {
    becomes(kubectl, "quota/q", &format!(".status.used.{}", name.replace('.', "\\.")), value);
}

/// What is refused while it is piped in.
fn refused(kubectl: &Kubectl, manifest: &str) -> String {
    use std::{io::Write as _, process::Stdio};
    let mut command = kubectl.command(&["-n", "quota", "create", "-f", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
    child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success(), "it was refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn many_at_once_do_not_exceed_a_quota(kubectl: &Arc<Kubectl>) {
    // One is there already: every namespace has its kube-root-ca.crt.
    used(kubectl, "configmaps", "1");
    let creates = (0..50).map(|n| {
        let kubectl = Arc::clone(kubectl);
        std::thread::spawn(move || kubectl.output(&["-n", "quota", "create", "configmap", &format!("m{n}")]))
    });
    let outputs: Vec<_> = creates.collect::<Vec<_>>().into_iter().map(|thread| thread.join().expect("kubectl ran")).collect();
    let (good, bad): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|output| output.status.success());
    assert_eq!((good.len(), bad.len()), (20, 30));
    let text = String::from_utf8_lossy(&bad[0].stderr).into_owned();
    assert!(text.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=21, limited: configmaps=21"), "{text}");
    kubectl.ok(&["-n", "quota", "delete", "configmap", "--field-selector=metadata.name!=kube-root-ca.crt"]);
    used(kubectl, "configmaps", "1");
}

fn objects_are_counted_by_kind(kubectl: &Kubectl) {
    // Counted once the controller knows the kind.
    used(kubectl, "count/widgets.example.com", "0");
    kubectl.apply(&widget("a"));
    let text = refused(kubectl, &widget("b"));
    assert!(text.contains("requested: count/widgets.example.com=1"), "{text}");
    kubectl.ok(&["-n", "quota", "delete", "widget", "a"]);
    used(kubectl, "count/widgets.example.com", "0");
    kubectl.ok(&["-n", "quota", "create", "service", "nodeport", "s", "--tcp=80"]);
    let text = kubectl.fails(&["-n", "quota", "create", "service", "nodeport", "t", "--tcp=80"]);
    assert!(text.contains("requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1"), "{text}");
    let text = kubectl.fails(&["-n", "quota", "run", "p", "--image=example.com/none"]);
    assert!(text.contains("failed quota: q: must specify requests.cpu for: p"), "{text}");
}

fn a_replication_controller_keeps_its_pods_within_the_quota(kubectl: &Kubectl) {
    kubectl.stdin(&["-n", "quota", "apply", "-f", "-"], CONTROLLER);
    becomes(kubectl, "rc/rc", ".status.replicas", "2");
    becomes(kubectl, "rc/rc", ".status.conditions[?(@.type==\"ReplicaFailure\")].reason", "FailedCreate");
    kubectl.ok(&["-n", "quota", "scale", "rc/rc", "--replicas=2"]);
    kubectl.ok(&["-n", "quota", "wait", "rc/rc", "--for=jsonpath={.status.observedGeneration}=2", "--timeout=60s"]);
    assert_eq!(kubectl.ok(&["-n", "quota", "get", "rc/rc", "-o", "jsonpath={.status.conditions}"]), "");
    used(kubectl, "requests.cpu", "200m");
    kubectl.stdin(&["-n", "quota", "apply", "-f", "-"], BUDGET);
    becomes(kubectl, "pdb/b", ".status.expectedPods", "2");
    becomes(kubectl, "pdb/b", ".status.desiredHealthy", "1");
    becomes(kubectl, "pdb/b", ".status.disruptionsAllowed", "0");
    kubectl.ok(&["-n", "quota", "delete", "rc", "rc"]);
    used(kubectl, "pods", "0");
}

fn endpoints_are_mirrored(kubectl: &Kubectl) {
    kubectl.stdin(&["-n", "quota", "apply", "-f", "-"], MIRRORED);
    let slices = "-l=kubernetes.io/service-name=elsewhere";
    kubectl.ok(&["-n", "quota", "wait", "endpointslice", slices, "--for=create", "--timeout=60s"]);
    let told = kubectl.ok(&[
        "-n",
        "quota",
        "get",
        "endpointslice",
        slices,
        "-o",
        "jsonpath={.items[*].endpoints[*].addresses[*]} {.items[*].ports[*].port}",
    ]);
    assert_eq!(told, "192.0.2.7 8080");
    kubectl.ok(&["-n", "quota", "delete", "endpoints", "elsewhere"]);
    kubectl.ok(&["-n", "quota", "wait", "endpointslice", slices, "--for=delete", "--timeout=60s"]);
}

fn roles_are_summed_up(kubectl: &Kubectl) {
    kubectl.apply(ROLES);
    becomes(kubectl, "clusterrole/sum", ".rules[0].resources[0]", "pods");
    becomes(kubectl, "clusterrole/sum", ".rules[1].resources[0]", "secrets");
    kubectl.ok(&["label", "clusterrole", "part", "to-sum-"]);
    becomes(kubectl, "clusterrole/sum", ".rules[0].resources[0]", "secrets");
}

fn ranges_of_services_come_and_go(kubectl: &Kubectl) {
    kubectl.apply(RANGE);
    becomes(kubectl, "servicecidr/more", ".status.conditions[?(@.type==\"Ready\")].status", "True");
    kubectl.ok(&["-n", "quota", "create", "service", "clusterip", "far", "--clusterip=10.99.0.5", "--tcp=80"]);
    assert_eq!(kubectl.ok(&["get", "ipaddress", "10.99.0.5", "-o", "jsonpath={.spec.parentRef.name}"]), "far");
    kubectl.ok(&["delete", "servicecidr", "more", "--wait=false"]);
    becomes(kubectl, "servicecidr/more", ".status.conditions[?(@.type==\"Ready\")].reason", "Terminating");
    kubectl.ok(&["-n", "quota", "delete", "service", "far"]);
    kubectl.ok(&["wait", "ipaddress/10.99.0.5", "--for=delete", "--timeout=60s"]);
    kubectl.ok(&["wait", "servicecidr/more", "--for=delete", "--timeout=60s"]);
}

#[test]
fn what_a_namespace_may_take_and_who_keeps_it_so() {
    let server = Server::start(&["--disable-agent"]);
    let kubectl = Arc::new(server.kubectl());
    kubectl.ok(&["create", "namespace", "quota"]);
    kubectl.ok(&["-n", "quota", "wait", "configmap/kube-root-ca.crt", "--for=create", "--timeout=60s"]);
    kubectl.apply(DEFINITION);
    kubectl.ok(&["wait", "crd/widgets.example.com", "--for=condition=Established", "--timeout=60s"]);
    kubectl.stdin(&["-n", "quota", "apply", "-f", "-"], QUOTA);
    many_at_once_do_not_exceed_a_quota(&kubectl);
    objects_are_counted_by_kind(&kubectl);
    a_replication_controller_keeps_its_pods_within_the_quota(&kubectl);
    endpoints_are_mirrored(&kubectl);
    roles_are_summed_up(&kubectl);
    ranges_of_services_come_and_go(&kubectl);
}

const ADMISSION: &str = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ResourceQuota
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ResourceQuotaConfiguration
    limitedResources:
    - {resource: pods, matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]}
    - {resource: services, matchContains: [loadbalancers]}
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1
    kind: PodSecurityConfiguration
    defaults: {enforce: baseline}
    exemptions: {namespaces: [free], usernames: [alice]}
- name: EventRateLimit
  configuration:
    apiVersion: eventratelimit.admission.k8s.io/v1alpha1
    kind: Configuration
    limits: [{type: SourceAndObject, qps: 1, burst: 1}]
"#;

const HIGH: &str = r#"
apiVersion: v1
kind: ResourceQuota
metadata: {name: high}
spec:
  hard: {pods: "1"}
  scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}
"#;

#[test]
fn an_operator_says_what_is_limited_what_pods_keep_to_and_how_many_events_pass() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("admission.yaml");
    std::fs::write(&file, ADMISSION).expect("written");
    let server = Server::start(&["--disable-agent", "--admission-control-config-file", file.to_str().expect("UTF-8")]);
    let kubectl = server.kubectl();
    for namespace in ["quota", "free"] {
        kubectl.ok(&["create", "namespace", namespace]);
        kubectl.ok(&["-n", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=60s"]);
    }
    let pod = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{{name: c, image: example.com/none}}], {spec}}}\n"
        )
    };
    let create = |namespace: &str, user: &str, manifest: &str| {
        let user = format!("--as={user}");
        kubectl.stdin(&["-n", namespace, user.as_str(), "--as-group=system:masters", "create", "-f", "-"], manifest)
    };
    kubectl.ok(&["create", "priorityclass", "high", "--value=7"]);
    create("quota", "bob", &pod("low", ""));
    let text = refused(&kubectl, &pod("first", "priorityClassName: high"));
    assert!(text.contains("insufficient quota to match these scopes: [{PriorityClass In [high]}]"), "{text}");
    let text = kubectl.fails(&["-n", "quota", "create", "service", "loadbalancer", "s", "--tcp=80"]);
    assert!(text.contains("insufficient quota to consume: services.loadbalancers"), "{text}");
    kubectl.ok(&["-n", "quota", "create", "service", "clusterip", "s", "--tcp=80"]);
    kubectl.stdin(&["-n", "quota", "apply", "-f", "-"], HIGH);
    becomes(&kubectl, "quota/high", ".status.used.pods", "0");
    create("quota", "bob", &pod("first", "priorityClassName: high"));
    let text = refused(&kubectl, &pod("second", "priorityClassName: high"));
    assert!(text.contains("exceeded quota: high, requested: pods=1, used: pods=1, limited: pods=1"), "{text}");

    let text = refused(&kubectl, &pod("host", "hostNetwork: true"));
    assert!(text.contains("violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"), "{text}");
    create("free", "bob", &pod("host", "hostNetwork: true"));
    create("quota", "alice", &pod("host", "hostNetwork: true"));
    kubectl.ok(&["label", "namespace", "quota", "pod-security.kubernetes.io/enforce=privileged"]);
    create("quota", "bob", &pod("labelled", "hostNetwork: true"));

    let event = |number: u32, object: &str| {
        format!(
            "---\napiVersion: v1\nkind: Event\nmetadata: {{name: e{number}}}\nsource: {{component: c}}\ninvolvedObject: {{kind: Pod, namespace: free, name: {object}}}\n"
        )
    };
    // A token comes a second: of so many at once, some find none.
    let flood: String = (0..12).map(|number| event(number, "loud")).chain([event(12, "quiet")]).collect();
    kubectl.stdin(&["-n", "free", "create", "--dry-run=server", "-f", "-"], &flood);
    let text = kubectl.stdin_fails(&["-n", "free", "create", "-f", "-"], &flood);
    assert!(
        text.contains("(TooManyRequests)") && text.contains("the limit of type SourceAndObject is reached for \"cPodfreeloud"),
        "{text}"
    );
    assert!(!text.contains("quiet"), "{text}");
    kubectl.ok(&["-n", "free", "get", "event", "e0", "e12"]);
}
