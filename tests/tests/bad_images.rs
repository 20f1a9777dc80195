//! Images that cannot be, or mean harm: the pod says why in upstream's reasons, an Event says what, and no other pod pays for it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use coracle_tests::{Kubectl, Server, disk::Disk, image, registry::Registry};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{EntryType, Header};

/// Room for the program as shims run it and for images, and soon filled: the node's disk is what hostile images are after.
const DISK_MIB: u64 = 1024;
/// Entries of a crowd: more than a disk of that size has inodes for.
const ENTRIES: usize = 1_000_000;
/// Different names among them; the others come again.
const NAMES: usize = 10_000;
/// Bytes of the archive without an end: sixteen times the disk.
const ENDLESS_MIB: u64 = 16 << 10;

/// An entry of a layer as a hostile program writes it: libraries refuse such names.
fn entry(name: &str, kind: EntryType, link: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_old();
    let old = header.as_old_mut();
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
    zip.write_all(bytes).expect("memory");
    zip.finish().expect("memory")
}

/// A file that begins and goes on, as a megabyte of zeros that is told again and again.
fn endless() -> Vec<u8> {
    let mut layer = zipped(&entry("zeros", EntryType::Regular, "", ENDLESS_MIB << 20));
    let zeros = zipped(&vec![0; 1 << 20]);
    (0..ENDLESS_MIB).for_each(|_| layer.extend_from_slice(&zeros));
    layer
}

/// Empty files without number.
fn crowd() -> Vec<u8> {
    let some: Vec<u8> = (0..NAMES).flat_map(|n| entry(&format!("file{n}"), EntryType::Regular, "", 0)).collect();
    zipped(&some).repeat(ENTRIES / NAMES)
}

/// A configuration that promises the layer of this digest.
fn config(architecture: &str, layer: &str) -> Value {
    json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.repeat(64))]},
    })
}

/// What is served, by repository, and what its pods are told.
fn images(directory: &Path) -> Vec<(PathBuf, &'static str, &'static str)> {
    let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let any = config(here, "a").to_string();
    [
        ("upwards", any.clone(), entry("../outside", EntryType::Regular, "", 0), "leads out of the layer"),
        ("linked", any.clone(), entry("passwd", EntryType::Link, "../../etc/passwd", 0), "is a hard link that leads out of the layer"),
        ("whiteout", any.clone(), entry("null", EntryType::Char, "", 0), "is a raw overlay whiteout"),
        ("unlike", any.clone(), entry("file", EntryType::Regular, "", 0), "its image promises sha256:aaaa"),
        ("endless", any.clone(), endless(), "bytes is refused"),
        ("crowd", any.clone(), crowd(), "entries is refused"),
        ("words", "no configuration".to_owned(), Vec::new(), "its configuration"),
        ("lists", any.replace("[\"sh\"]", "5"), Vec::new(), "its configuration"),
        ("elsewhere", config("s390x", "a").to_string(), Vec::new(), "no match for platform in manifest"),
    ]
    .map(|(name, config, layer, why)| (image::put(directory, name, &[name], config.into_bytes(), layer), name, why))
    .into()
}

fn pod(name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 1\n  \
         containers: [{{name: c, image: '{image}', imagePullPolicy: IfNotPresent, command: [sleep, '100000']}}]\n---\n"
    )
}

fn unharmed(kubectl: &Kubectl, pod: &str) {
    let state = "{.status.phase} {.status.containerStatuses[0].restartCount}";
    assert_eq!(kubectl.ok(&["get", "pod", pod, "-o", &format!("jsonpath={state}")]), "Running 0");
}

#[test]
fn bad_images_say_why_and_harm_nobody() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let images = images(directory.path());
    let served: Vec<_> = images.iter().map(|(archive, name, _)| (archive.clone(), *name)).collect();
    let registry = Registry::several(&served, "v1", directory.path());
    let yaml = directory.path().join("registries.yaml");
    let text = format!("configs:\n  '{}':\n    tls: {{ca_file: '{}'}}\n", registry.host, registry.authority.display());
    fs::write(&yaml, text).expect("written");
    let disk = Disk::new(DISK_MIB);
    // Pods are not ended to make room here: eviction has tests of its own.
    let flags = [format!("--private-registry={}", yaml.display()), "--eviction-hard=nodefs.available<0%,nodefs.inodesFree<0%".to_owned()];
    let (_server, kubectl) = Server::with_image_below(&disk.root(), &flags.each_ref().map(String::as_str));
    kubectl.apply(&pod("well", "busybox:test"));
    kubectl.wait("pod/well", "condition=Ready");

    let bad: String = images.iter().map(|(_, name, _)| pod(name, &format!("{}/{name}:v1", registry.host))).collect();
    kubectl.apply(&bad);
    for (_, name, why) in &images {
        let of = format!("--field-selector=involvedObject.name={name},reason=Failed");
        kubectl.follow(&["get", "events", "--watch", &of, "--output=custom-columns=M:.message"]).see(why);
        kubectl.wait(&format!("pod/{name}"), "jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff");
    }
    unharmed(&kubectl, "well");
    let names: Vec<&str> = images.iter().map(|(_, name, _)| *name).collect();
    kubectl.ok(&[&["delete", "pods", "--timeout=60s"], &names[..]].concat());

    // What they took of the disk is given back: there is room for others.
    kubectl.apply(&pod("after", "busybox:next"));
    kubectl.wait("pod/after", "condition=Ready");
    unharmed(&kubectl, "well");
    kubectl.ok(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=30s"]);
}
