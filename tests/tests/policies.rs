//! Admission policies with the real kubectl: one that denies and one that warns by parameters, one that mutates, and what their status says.

use coracle_tests::{Kubectl, Server};

/// Deployments may have so many replicas as a ConfigMap says; whoever is over it in `lab` is only warned.
const LIMIT: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: limits, namespace: default}
data: {replicas: "3"}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: limit.example.com}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints:
    resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments, deployments/scale]}]
  variables: [{name: most, expression: "int(params.data.replicas)"}]
  validations:
  - expression: object.spec.replicas <= variables.most
    messageExpression: "'at most ' + string(variables.most) + ' replicas'"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: deny}
spec:
  policyName: limit.example.com
  validationActions: [Deny]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [lab]}]}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: warn}
spec:
  policyName: limit.example.com
  validationActions: [Warn]
  paramRef: {name: limits, namespace: default, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: lab}}}
"#;

/// Every pod of the cluster gets a label and, beside its own containers, one more.
const SIDECAR: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: sidecar.example.com}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions: [{name: not-yet, expression: "!object.spec.containers.exists(c, c.name == 'beside')"}]
  failurePolicy: Fail
  reinvocationPolicy: IfNeeded
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration:
      expression: >
        Object{metadata: Object.metadata{labels: {'asked-by': request.userInfo.username.replace(':', '.')}},
          spec: Object.spec{containers: [Object.spec.containers{name: 'beside', image: 'example.com/none'}]}}
  - patchType: JSONPatch
    jsonPatch:
      expression: "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'example.com/count': string(size(object.spec.containers))}}]"
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: sidecar}
spec: {policyName: sidecar.example.com}
"#;

#[test]
fn policies_deny_warn_and_mutate() {
    let server = Server::start(&["--disable-agent"]);
    let kubectl = server.kubectl();
    limits(&kubectl);
    changes(&kubectl);
    mistakes(&kubectl);
}

fn limits(kubectl: &Kubectl) {
    kubectl.apply(LIMIT);
    let refused = kubectl.fails(&["create", "deployment", "big", "--image=example.com/none", "--replicas=5"]);
    let words = "ValidatingAdmissionPolicy 'limit.example.com' with binding 'deny' denied request: at most 3 replicas";
    assert!(refused.contains(words), "{refused}");
    kubectl.ok(&["create", "deployment", "small", "--image=example.com/none", "--replicas=3"]);
    assert!(kubectl.fails(&["patch", "deployment", "small", "-p", r#"{"spec":{"replicas":4}}"#]).contains(words));
    assert!(kubectl.fails(&["scale", "deployment", "small", "--replicas=9"]).contains(words), "a scale is judged as one");
    let warned = kubectl.output(&["create", "deployment", "big", "--image=example.com/none", "--replicas=5", "-n", "lab"]);
    let told = String::from_utf8_lossy(&warned.stderr);
    assert!(warned.status.success() && told.contains("Warning: Validation failed") && told.contains("at most 3 replicas"), "{told}");
    kubectl.ok(&["patch", "configmap", "limits", "-p", r#"{"data":{"replicas":"9"}}"#]);
    kubectl.ok(&["scale", "deployment", "small", "--replicas=9"]);
    kubectl.ok(&["delete", "configmap", "limits"]);
    assert!(kubectl.fails(&["scale", "deployment", "small", "--replicas=1"]).contains("no params found"));
    kubectl.ok(&["delete", "validatingadmissionpolicybinding", "deny", "warn"]);
    kubectl.ok(&["scale", "deployment", "small", "--replicas=1"]);
    let policy = "validatingadmissionpolicy/limit.example.com";
    kubectl.wait(policy, "jsonpath={.status.observedGeneration}=1");
    assert_eq!(kubectl.ok(&["get", policy, "-o", "jsonpath={.status.typeChecking.expressionWarnings}"]), "");
}

fn changes(kubectl: &Kubectl) {
    kubectl.apply(SIDECAR);
    kubectl.ok(&["run", "web", "--image=example.com/none", "--restart=Never"]);
    let seen = kubectl.ok(&[
        "get",
        "pod",
        "web",
        "-o",
        r"jsonpath={.spec.containers[*].name} {.metadata.annotations.example\.com/count} {.spec.containers[0].terminationMessagePath} {.metadata.labels.asked-by}",
    ]);
    assert!(seen.starts_with("web beside 2 /dev/termination-log ") || seen.starts_with("beside web 2 /dev/termination-log "), "{seen}");
    let dry = kubectl.ok(&["run", "dry", "--image=example.com/none", "--dry-run=server", "-o", "jsonpath={.spec.containers[*].name}"]);
    assert!(dry.contains("beside"), "{dry}");
    kubectl.ok(&["delete", "mutatingadmissionpolicybinding", "sidecar"]);
    kubectl.ok(&["run", "bare", "--image=example.com/none"]);
    assert_eq!(kubectl.ok(&["get", "pod", "bare", "-o", "jsonpath={.spec.containers[*].name}"]), "bare");
    kubectl.ok(&["delete", "pod", "web", "bare", "--force", "--grace-period=0"]);
}

fn mistakes(kubectl: &Kubectl) {
    let confused =
        LIMIT.replace("object.spec.replicas <= variables.most", "object.spec.replicas > '1'").replace("limit.example.com", "confused");
    kubectl.apply(&confused);
    let policy = "validatingadmissionpolicy/confused";
    kubectl.wait(policy, "jsonpath={.status.observedGeneration}=1");
    let told = kubectl.ok(&["get", policy, "-o", "jsonpath={.status.typeChecking.expressionWarnings[0]}"]);
    assert!(told.contains("spec.validations[0].expression") && told.contains("applied to '(int, string)'"), "{told}");
    let wrong = LIMIT.replace("object.spec.replicas <= variables.most", "object.spec.replicas + 1");
    let wrong = wrong.split("---").find(|part| part.contains("kind: ValidatingAdmissionPolicy\n")).expect("the policy");
    let mut child = kubectl.command(&["replace", "-f", "-"]);
    let refused = feed(&mut child, wrong);
    assert!(refused.contains("must evaluate to bool"), "{refused}");
}

fn feed(command: &mut std::process::Command, manifest: &str) -> String {
    use std::{io::Write as _, process::Stdio};
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kubectl");
    child.stdin.take().expect("piped").write_all(manifest.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert!(!output.status.success(), "it was refused");
    String::from_utf8_lossy(&output.stderr).into_owned()
}
