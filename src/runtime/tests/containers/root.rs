//! What a container sees mounted, and what the node sees of it.

use std::{fs, path::PathBuf};

use coracle_runtime::{ContainerSpec, Device, Mount, NamespaceMode, PodRuntime};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use crate::house::House;

fn volume(source: PathBuf, destination: &str, propagation: &str) -> Mount {
    Mount { source, destination: destination.into(), read_only: false, recursive_read_only: false, propagation: propagation.into() }
}

#[tokio::test]
async fn a_container_has_the_nodes_links_and_mounts_of_the_field_and_nothing_of_the_nodes() {
    let house = House::new().await;
    let script = "ls -l /dev; cat /proc/self/mountinfo | while read a b c root at rest; do echo \"mount $at\"; done; echo hello > /dev/null; echo $$";
    let (code, _, log) = house.output(script, |_| ()).await;
    assert_eq!(code, 0, "{log}");
    for node in ["full", "null", "random", "tty", "urandom", "zero"] {
        let there = log.lines().any(|line| line.starts_with("crw-rw-rw-") && line.ends_with(&format!(" {node}")));
        assert!(there, "{node}: {log}");
    }
    for link in ["core -> /proc/kcore", "fd -> /proc/self/fd", "ptmx -> pts/ptmx", "stdin -> /proc/self/fd/0"] {
        assert!(log.contains(&format!(" {link}\n")), "{link}: {log}");
    }
    for place in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/proc/sys", "/proc/keys"] {
        assert_eq!(log.matches(&format!("mount {place}\n")).count(), 1, "{place}: {log}");
    }
    assert!(!log.contains(house.dir().to_str().unwrap()), "{log}");
    assert!(log.ends_with("\n1"), "the first process of its own namespace: {log}");
    house.close().await;
}

#[tokio::test]
async fn what_is_hidden_is_empty_and_cannot_be_written_through() {
    let house = House::new().await;
    let script = "cat /proc/keys /proc/timer_list | wc -c; ls -A /proc/acpi /proc/scsi /sys/firmware 2>/dev/null | grep -v :; \
                  chmod 600 /proc/keys 2>&1; touch /sys/firmware/x 2>&1 | grep -c 'ead-only\\|denied'; ls -l /dev/null";
    let (_, _, log) = house.output(script, |_| ()).await;
    assert!(log.starts_with("0\n"), "{log}");
    assert!(log.contains("crw-rw-rw-"), "the container's own /dev/null stays open: {log}");
    let (_, _, log) = house.output("cat /proc/1/mountinfo | grep -c ' /proc/'", |spec| spec.security.proc_unmasked = true).await;
    assert_eq!(log, "0");
    house.close().await;
}

#[tokio::test]
async fn links_of_a_volume_lead_mounts_to_places_inside() {
    let house = House::new().await;
    let (data, inner) = (house.dir().join("outer"), house.dir().join("inner"));
    fs::create_dir(&data).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("file"), "inner").unwrap();
    std::os::unix::fs::symlink("/made/there", data.join("link")).unwrap();
    // A name of its own: what it must not make lies where others work, too.
    let up = format!("up-{}", std::process::id());
    std::os::unix::fs::symlink(format!("../../../../../{up}"), data.join("up")).unwrap();
    let mounts = vec![volume(data, "/data", ""), volume(inner.clone(), "/data/link/x", ""), volume(inner.join("file"), "/data/up/one", "")];
    let (code, _, log) = house.output(&format!("cat /made/there/x/file /{up}/one"), move |spec| spec.mounts = mounts).await;
    assert_eq!((code, log.as_str()), (0, "innerinner"));
    assert!(!house.dir().ancestors().any(|dir| dir.join(&up).exists()));
    house.close().await;
}

#[tokio::test]
async fn mounts_are_shared_as_the_pod_says() {
    let house = House::new().await;
    let shared = house.dir().join("shared");
    fs::create_dir(&shared).unwrap();
    rustix::mount::mount("t", &shared, "tmpfs", MountFlags::empty(), None).unwrap();
    rustix::mount::mount_change(&shared, MountPropagationFlags::SHARED).unwrap();
    for name in ["theirs", "ours"] {
        fs::create_dir(shared.join(name)).unwrap();
    }
    let pod = house.pod().await;
    let wait = "while [ ! -e /shared/ours/late ]; do sleep 0.02; done; echo seen";
    let privileged = |spec: &mut ContainerSpec| spec.security.privileged = true;
    let both = house
        .run(&pod, &format!("mount -t tmpfs t /shared/theirs && touch /shared/theirs/x; {wait}"), |spec| {
            privileged(spec);
            spec.mounts = vec![volume(shared.clone(), "/shared", "rshared")];
        })
        .await;
    let down = house.run(&pod, wait, |spec| spec.mounts = vec![volume(shared.clone(), "/shared", "rslave")]).await;
    let own = house
        .run(&pod, "mount -t tmpfs t /shared/ours && touch /shared/ours/late; sleep 1000", |spec| {
            privileged(spec);
            spec.mounts = vec![volume(shared.clone(), "/shared", "private")];
        })
        .await;
    let theirs = shared.join("theirs/x");
    let seen = async {
        while !theirs.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(crate::house::PATIENCE, seen).await.expect("the node sees what a container with Bidirectional mounts");
    assert!(!shared.join("ours/late").exists(), "what a private one mounts stays its own");
    rustix::mount::mount("t", shared.join("ours"), "tmpfs", MountFlags::empty(), None).unwrap();
    fs::write(shared.join("ours/late"), "").unwrap();
    for id in [&both, &down] {
        assert_eq!(house.exit(id).await.0, 0);
        assert!(house.log(id).ends_with("seen"), "{}", house.log(id));
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("overlay") || !mounts.contains(&both.id), "the node sees nothing else of it: {mounts}");
    house.runtime.signal_container(&own, 9).await.unwrap();
    house.exit(&own).await;
    house.runtime.remove_sandbox(&pod.id).await.unwrap();
    for place in ["ours", "theirs", ""] {
        rustix::mount::unmount(shared.join(place), UnmountFlags::DETACH).unwrap();
    }
    house.close().await;
}

#[tokio::test]
async fn recursive_read_only_reaches_what_is_mounted_below() {
    let house = House::new().await;
    let outer = house.dir().join("outer");
    fs::create_dir_all(outer.join("below")).unwrap();
    rustix::mount::mount("t", outer.join("below"), "tmpfs", MountFlags::empty(), None).unwrap();
    let mounts = [("/top", false), ("/all", true)].map(|(at, recursive_read_only)| Mount {
        read_only: true,
        recursive_read_only,
        ..volume(outer.clone(), at, "private")
    });
    let script = "touch /top/x 2>/dev/null || echo top closed; touch /top/below/x && echo below open; touch /all/below/y 2>/dev/null || echo all closed";
    let (_, _, log) = house.output(script, move |spec| spec.mounts = mounts.to_vec()).await;
    rustix::mount::unmount(outer.join("below"), UnmountFlags::DETACH).unwrap();
    assert_eq!(log, "top closed\nbelow open\nall closed");
    house.close().await;
}

#[tokio::test]
async fn a_device_of_the_pod_is_there_with_what_it_allows() {
    let house = House::new().await;
    let device =
        Device { host_path: "/dev/loop-control".into(), container_path: "/dev/deep/mine".into(), permissions: "r".into(), numbers: None };
    let script = "(: < /dev/deep/mine) && echo readable; (: > /dev/deep/mine) 2>/dev/null || echo closed";
    let (_, _, log) = house.output(script, move |spec| spec.devices = vec![device]).await;
    assert_eq!(log, "readable\nclosed");
    house.close().await;
}

#[tokio::test]
async fn a_pod_of_the_nodes_namespaces_sees_its_processes() {
    let house = House::new().await;
    let mut pod = house.sandbox();
    (pod.pid, pod.ipc) = (NamespaceMode::Host, NamespaceMode::Host);
    house.runtime.create_sandbox(&pod).await.unwrap();
    let id = house.run(&pod, &format!("cat /proc/{}/comm; echo $$", std::process::id()), |_| ()).await;
    assert_eq!(house.exit(&id).await.0, 0);
    let log = house.log(&id);
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    assert!(log.starts_with(name.trim()) && !log.ends_with("\n1"), "{log}");
    house.close().await;
}

#[tokio::test]
async fn a_shims_program_cannot_be_written_through_it() {
    let house = House::new().await;
    let pod = house.pod().await;
    let shim: serde_json::Value =
        serde_json::from_slice(&fs::read(house.dir().join("state").join(&pod.id).join("shim.json")).unwrap()).unwrap();
    let program = fs::File::open(format!("/proc/{}/exe", shim["pid"])).unwrap();
    let flags = rustix::fs::fstatvfs(&program).unwrap().f_flag;
    assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{flags:?}");
    house.close().await;
}
