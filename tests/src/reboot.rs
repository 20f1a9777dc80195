//! What a reboot leaves of a cluster: its data. Everything of it that lives in the kernel or below /run is taken away by other means than ours.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::left;

/// Takes it all away. The server must have ended.
pub fn reboot(data_dir: &Path) {
    let id = left::id(data_dir).expect("the machine knows it");
    // What ends may leave a child to its parent, so until none is there.
    for _ in 0..100 {
        let processes = left::of(&id, data_dir).remove("processes").unwrap_or_default();
        if processes.is_empty() {
            break;
        }
        for process in processes {
            let pid = process.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
            // It may be gone with its parent.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let found = left::of(&id, data_dir);
    let all = |kind: &str| found.get(kind).cloned().unwrap_or_default();
    for point in all("mounts").iter().rev() {
        // The data's own disk stays; what is below it is in memory.
        if Path::new(point) != data_dir {
            let _ = umount2(point.as_str(), MntFlags::MNT_DETACH);
        }
    }
    for link in all("links") {
        let _ = Command::new("ip").args(["link", "delete", &link]).output();
    }
    for group in all("cgroups") {
        // What was killed leaves its cgroup a moment later.
        for _ in 0..100 {
            remove_group(Path::new(&group));
            if !Path::new(&group).exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    for directory in [PathBuf::from("/run/coracle").join(&id), Path::new("/sys/fs/bpf/coracle").join(&id)] {
        let _ = fs::remove_dir_all(directory);
    }
    left::assert_nothing(&id, data_dir);
}

fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
        remove_group(&entry.path());
    }
    let _ = fs::remove_dir(group);
}
