//! An image archive made of the machine's static busybox, as `docker save` writes it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Applets that get a link of their own.
const APPLETS: [&str; 24] = [
    "sh", "cat", "echo", "env", "false", "head", "httpd", "id", "kill", "ls", "mkdir", "nc", "nslookup", "ps", "rm", "seq", "sleep",
    "stat", "tail", "tar", "touch", "true", "wc", "wget",
];

/// Writes `busybox.tar` with the image `busybox:test` into the directory.
pub fn busybox(directory: &Path) -> PathBuf {
    archive(directory, "busybox.tar", &["busybox:test", "busybox:next"], &["sh"])
}

/// Writes an archive of that name with an image that has these names and runs this.
pub fn archive(directory: &Path, file: &str, names: &[&str], command: &[&str]) -> PathBuf {
    written(directory, file, names, command, "")
}

/// The image `busybox:test` by another name, for this user.
pub fn busybox_as(directory: &Path, name: &str, user: &str) -> PathBuf {
    written(directory, "user.tar", &[name], &["sh"], user)
}

fn written(directory: &Path, file: &str, names: &[&str], command: &[&str], user: &str) -> PathBuf {
    let layer = layer();
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": command, "User": user},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(&layer))]},
    });
    put(directory, file, names, config.to_string().into_bytes(), layer)
}

/// Writes an archive of that name with an image that has these names, this configuration and this one layer, whatever they are.
pub fn put(directory: &Path, file: &str, names: &[&str], config: Vec<u8>, layer: Vec<u8>) -> PathBuf {
    let manifest = json!([{"Config": "config.json", "RepoTags": names, "Layers": ["layer.tar"]}]);
    let path = directory.join(file);
    let mut archive = tar::Builder::new(File::create(&path).expect("a file"));
    for (name, bytes) in [("config.json", config), ("layer.tar", layer), ("manifest.json", manifest.to_string().into_bytes())] {
        append(&mut archive, name, &bytes, 0o644);
    }
    archive.finish().expect("written");
    path
}

fn layer() -> Vec<u8> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find_map(|p| fs::read(p).ok()).expect("busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    for (name, mode) in [("bin/", 0o755), ("etc/", 0o755), ("tmp/", 0o1777), ("proc/", 0o755), ("sys/", 0o755), ("dev/", 0o755)] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(mode);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        layer.append_data(&mut header, name, std::io::empty()).expect("written");
    }
    append(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(0);
        header.set_gid(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("written");
    }
    append(&mut layer, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n", 0o644);
    append(&mut layer, "etc/group", b"root:x:0:\nnogroup:x:65534:\n", 0o644);
    layer.into_inner().expect("finished")
}

fn append(archive: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    archive.append_data(&mut header, name, bytes).expect("written");
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
