//! Kills a container's process by signal, as an accident would: from the node, behind the API's back.

use std::{fs, io};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// SIGKILLs the server process of the pod with this uid; false: it does not run on this machine.
pub fn kill_pod(uid: &str) -> io::Result<bool> {
    let mut killed = false;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        if is_server(&read("cgroup"), &read("cmdline"), uid) {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
            killed = true;
        }
    }
    Ok(killed)
}

fn is_server(cgroup: &str, cmdline: &str, uid: &str) -> bool {
    let mut words = cmdline.split('\0').skip(1);
    cgroup.contains(&format!("pod{uid}")) && words.next() == Some(super::WORKLOAD) && words.next() == Some("serve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pods_own_server_is_meant() {
        let cgroup = "4:memory:/coracle-1/kubepods/besteffort/podabc/c1\n";
        assert!(is_server(cgroup, "/coracle\0__demo\0serve\0", "abc"));
        assert!(!is_server(cgroup, "/coracle\0__demo\0serve\0", "abd"));
        assert!(!is_server(cgroup, "/coracle\0__shim\0x\0", "abc"));
    }
}
