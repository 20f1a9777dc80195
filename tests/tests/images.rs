//! How images come to the node: by a mirror of `registries.yaml` that a credential provider opens, by Secrets, as dropped archives.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use coracle_tests::{Kubectl, Server, image, registry::Registry};

/// `me:secret`.
const KEY: &str = "Basic bWU6c2VjcmV0";

/// A pod of this image.
fn pod(kubectl: &Kubectl, name: &str, image: &str, policy: &str, secret: Option<&str>) {
    let secrets = secret.map_or_else(String::new, |name| format!("\n  imagePullSecrets: [{{name: {name}}}]"));
    kubectl.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1{secrets}\n  containers:\n  \
         - {{name: main, image: {image:?}, imagePullPolicy: {policy}, command: [sleep, '1000']}}\n"
    ));
}

fn waits_for(kubectl: &Kubectl, pod: &str, reason: &str) {
    kubectl.wait(&format!("pod/{pod}"), &format!("jsonpath={{.status.containerStatuses[0].state.waiting.reason}}={reason}"));
}

/// A provider that opens docker.io, and counts how often it was asked.
fn provider(directory: &Path) -> [String; 2] {
    let bin = directory.join("bin");
    fs::create_dir(&bin).expect("made");
    let answer = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","auth":{"docker.io":{"username":"me","password":"secret"}}}"#;
    let program = bin.join("opener");
    fs::write(&program, format!("#!/bin/sh\ncat >> {}/questions\necho '{answer}'\n", directory.display())).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    let config = directory.join("providers.yaml");
    let text = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: opener\n  \
                apiVersion: credentialprovider.kubelet.k8s.io/v1\n  matchImages: [docker.io]\n  defaultCacheDuration: 1h\n";
    fs::write(&config, text).expect("written");
    [format!("--image-credential-provider-config={}", config.display()), format!("--image-credential-provider-bin-dir={}", bin.display())]
}

#[test]
fn images_come_by_mirrors_keys_and_archives() {
    let directory = tempfile::tempdir().expect("a directory");
    let archive = image::busybox(directory.path());
    let registry = Registry::locked(&archive, "mirrored/library/busybox", "v1", directory.path(), Some(KEY));
    let yaml = directory.path().join("registries.yaml");
    let text = format!(
        "mirrors:\n  docker.io:\n    endpoint: ['https://{0}']\n    rewrite: {{'^(.*)$': 'mirrored/$1'}}\nconfigs:\n  '{0}':\n    \
         tls: {{ca_file: '{1}'}}\n",
        registry.host,
        registry.authority.display()
    );
    fs::write(&yaml, text).expect("written");
    let [config, bin] = provider(directory.path());
    let mirrors = format!("--private-registry={}", yaml.display());
    let server = Server::start(&[&mirrors, "--disable-default-registry-endpoint", &config, &bin]);
    let kubectl = server.kubectl();
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=60s"]);

    // By the mirror, opened by the provider.
    pod(&kubectl, "mirrored", "busybox:v1", "IfNotPresent", None);
    kubectl.wait("pod/mirrored", "condition=Ready");
    let questions = fs::read_to_string(directory.path().join("questions")).expect("it was asked");
    assert!(questions.contains(r#""image":"docker.io/library/busybox""#), "{questions}");
    kubectl.event("mirrored", "Successfully pulled image");

    // By a Secret; who has none does not get what is here already.
    let private = format!("{}/mirrored/library/busybox:v1", registry.host);
    let server_flag = format!("--docker-server={}", registry.host);
    kubectl.ok(&["create", "secret", "docker-registry", "key", &server_flag, "--docker-username=me", "--docker-password=secret"]);
    pod(&kubectl, "owner", &private, "IfNotPresent", Some("key"));
    kubectl.wait("pod/owner", "condition=Ready");
    pod(&kubectl, "friend", &private, "IfNotPresent", Some("key"));
    kubectl.wait("pod/friend", "condition=Ready");
    kubectl.event("friend", "already present on machine and can be accessed by the pod");
    pod(&kubectl, "stranger", &private, "IfNotPresent", None);
    kubectl.event("stranger", "401 Unauthorized");
    pod(&kubectl, "never", &private, "Never", None);
    waits_for(&kubectl, "never", "ErrImageNeverPull");

    // By an archive that is dropped while pods wait for it.
    pod(&kubectl, "waiting", "busybox:test", "IfNotPresent", None);
    pod(&kubectl, "patient", "busybox:next", "Never", None);
    waits_for(&kubectl, "waiting", "ImagePullBackOff");
    waits_for(&kubectl, "patient", "ErrImageNeverPull");
    let images = server.data_dir().join("agent/images");
    fs::write(images.join("broken.tar"), "broken").expect("written");
    fs::copy(&archive, images.join("busybox.tar")).expect("copied");
    kubectl.wait("pod/waiting", "condition=Ready");
    kubectl.wait("pod/patient", "condition=Ready");

    // What is exported is what `import` reads, and what no container uses goes.
    let out = directory.path().join("out.tar");
    let images = |args: &[&str]| {
        let output = server.images(&args.iter().map(std::ffi::OsStr::new).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    images(&["export", "--output", out.to_str().expect("UTF-8"), "busybox:test"]);
    let imported = images(&["import", out.to_str().expect("UTF-8")]);
    assert!(imported.contains("docker.io/library/busybox:test"), "{imported}");
    let count = || images(&["list"]).lines().count();
    let before = count();
    let pruned = images(&["prune"]);
    assert!(pruned.contains("docker.io/library/busybox:test") && count() < before, "{pruned}");
    assert!(images(&["list"]).contains(&private), "what containers use stays");
}

#[test]
fn a_wrong_registries_yaml_is_told_with_its_field() {
    let directory = tempfile::tempdir().expect("a directory");
    let yaml = directory.path().join("registries.yaml");
    fs::write(&yaml, "mirrors: {docker.io: {endpoint: ['ftp://x']}}\n").expect("written");
    let output = std::process::Command::new(coracle_tests::server::program())
        .args(["server", "--https-listen-port=0", "--kubelet-port=0", "--private-registry"])
        .arg(&yaml)
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("registries.yaml") && text.contains("mirrors.\"docker.io\".endpoint[0]"), "{text}");
}
