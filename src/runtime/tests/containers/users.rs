//! Who a container is and what it may: users, capabilities, filters, the root file system, volumes.

use std::{fs, os::unix::fs::MetadataExt};

use coracle_runtime::{ContainerState, ImageMount, Mount, NamespaceMode, PodRuntime, RuntimeError, Seccomp};

use crate::house::{House, container};

/// A field of /proc/self/status.
fn status(field: &str) -> String {
    format!("grep {field}: /proc/self/status | tr -d '\\t '")
}

#[tokio::test]
async fn users_and_groups_are_the_pods_or_the_images() {
    let house = House::new().await;
    let id = |change: fn(&mut coracle_runtime::Security)| {
        house.output("id -u; id -g; id -G; echo $HOME", move |spec| change(&mut spec.security))
    };
    assert_eq!(id(|_| ()).await.2, "0\n0\n0\n/root");
    assert_eq!(id(|s| s.run_as_user = Some(1000)).await.2, "1000\n1001\n1001 44\n/home/app");
    assert_eq!(id(|s| (s.run_as_user, s.run_as_group, s.supplemental_groups) = (Some(5), Some(6), vec![7, 8])).await.2, "5\n6\n6 7 8\n/");
    let pod = house.pod().await;
    let main = house.run(&pod, "sleep 1000", |spec| (spec.security.run_as_user, spec.security.run_as_group) = (Some(1000), Some(9))).await;
    assert_eq!(house.runtime.container(&main).await.unwrap().user, Some((1000, 9, vec![9, 44])));
    let result = house.runtime.exec_sync(&main, &["/bin/sh".into(), "-c".into(), "id -u; id -g".into()], None).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&result.stdout), "1000\n9\n");
    house.close().await;
}

#[tokio::test]
async fn capabilities_are_what_the_pod_says() {
    let house = House::new().await;
    let bounding = status("CapBnd");
    let effective = status("CapEff");
    assert_eq!(house.output(&effective, |_| ()).await.2, "CapEff:00000000a80425fb");
    assert_eq!(house.output(&bounding, |spec| spec.security.drop_capabilities = vec!["ALL".into()]).await.2, "CapBnd:0000000000000000");
    assert_eq!(house.output(&effective, |spec| spec.security.run_as_user = Some(7)).await.2, "CapEff:0000000000000000");
    let added = house.output(&effective, |spec| spec.security.add_capabilities = vec!["NET_ADMIN".into()]).await.2;
    assert_eq!(added, "CapEff:00000000a80435fb");
    let pod = house.pod().await;
    let mut wrong = container(&pod, "true");
    wrong.security.add_capabilities = vec!["FLY".into()];
    assert!(matches!(house.runtime.create_container(&wrong).await, Err(RuntimeError::Invalid(why)) if why.contains("FLY")));
    house.close().await;
}

#[tokio::test]
async fn the_filter_is_on_in_the_container_and_in_its_commands() {
    let house = House::new().await;
    let both = format!("{}; {}; unshare -U true 2>&1 || echo refused", status("Seccomp"), status("NoNewPrivs"));
    let check = |text: String, mode: &str, privileges: &str| {
        assert!(text.contains(&format!("Seccomp:{mode}")) && text.contains(&format!("NoNewPrivs:{privileges}")), "{text}");
        text
    };
    let text = check(house.output(&both, |_| ()).await.2, "2", "0");
    assert!(text.contains("refused"), "{text}");
    check(house.output(&both, |spec| spec.security.allow_privilege_escalation = false).await.2, "2", "1");
    check(house.output(&both, |spec| spec.security.seccomp = Seccomp::Unconfined).await.2, "0", "0");
    check(house.output(&both, |spec| spec.security.privileged = true).await.2, "0", "0");
    let pod = house.pod().await;
    for escalation in [true, false] {
        let id = house.run(&pod, "sleep 1000", |spec| spec.security.allow_privilege_escalation = escalation).await;
        let result = house.runtime.exec_sync(&id, &["/bin/sh".into(), "-c".into(), both.clone()], None).await.unwrap();
        let text = check(String::from_utf8_lossy(&result.stdout).into_owned(), "2", if escalation { "0" } else { "1" });
        assert!(text.contains("refused"), "{text}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_profile_of_the_node_is_obeyed() {
    let house = House::new().await;
    let profile = house.dir().join("profile.json");
    fs::write(
        &profile,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#,
    )
    .unwrap();
    let path = profile.clone();
    let (_, _, log) = house.output("mkdir /x 2>&1; touch /y && echo made", |spec| spec.security.seccomp = Seccomp::Localhost(path)).await;
    assert!(log.contains("No space left on device") && log.contains("made"), "{log}");
    let pod = house.pod().await;
    let mut spec = container(&pod, "true");
    spec.security.seccomp = Seccomp::Localhost("/nonexistent".into());
    assert!(matches!(house.runtime.create_container(&spec).await, Err(RuntimeError::Invalid(why)) if why.contains("/nonexistent")));
    house.close().await;
}

#[tokio::test]
async fn the_root_may_be_read_only_and_the_kernels_files_always_are() {
    let house = House::new().await;
    let script = "touch /x 2>&1; touch /dev/shm/y && echo shm; cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic";
    let (_, _, log) = house.output(script, |spec| spec.security.read_only_root = true).await;
    assert!(log.contains("touch: /x: Read-only file system") && log.contains("shm") && log.contains("\n0\n"), "{log}");
    assert!(log.contains("/proc/sys/kernel/panic: Read-only file system"), "{log}");
    let (_, _, log) = house.output("touch /x && echo made; mount -t tmpfs t /tmp 2>&1 || echo refused", |_| ()).await;
    assert!(log.contains("made") && log.contains("refused"), "{log}");
    house.close().await;
}

#[tokio::test]
async fn devices_are_closed_but_the_harmless_ones() {
    let house = House::new().await;
    let root = fs::metadata(house.dir()).unwrap().dev();
    let (major, minor) = (rustix::fs::major(root), rustix::fs::minor(root));
    let script = format!(
        "echo x > /dev/null && echo null; mknod /dev/disk b {major} {minor} && dd if=/dev/disk of=/dev/null bs=512 count=1 2>&1 | head -1"
    );
    let (_, _, log) = house.output(&script, |_| ()).await;
    assert!(log.contains("null") && log.contains("Operation not permitted"), "{log}");
    let (_, _, log) = house
        .output("ls /dev/loop-control /dev/mem /dev/kmsg 2>/dev/null | wc -l; ls /dev | wc -l", |spec| spec.security.privileged = true)
        .await;
    let counts: Vec<u32> = log.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(counts[0] >= 1 && counts[1] > 15, "{log}");
    house.close().await;
}

#[tokio::test]
async fn volumes_are_mounted_as_the_pod_says() {
    let house = House::new().await;
    let volume = house.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "from the node").unwrap();
    let mount = |source: std::path::PathBuf, destination: &str, read_only| Mount {
        source,
        destination: destination.into(),
        read_only,
        recursive_read_only: false,
        propagation: "private".into(),
    };
    let mounts =
        vec![mount(volume.clone(), "/data", false), mount(volume.clone(), "/ro", true), mount(volume.join("file"), "/etc/one", true)];
    let script = "cat /data/file; echo; echo written > /data/new; touch /ro/x 2>&1; cat /etc/one; pwd";
    let (_, _, log) = house.output(script, move |spec| (spec.mounts, spec.working_dir) = (mounts, "/made/for/it".into())).await;
    assert!(
        log.starts_with("from the node\n") && log.contains("Read-only file system") && log.ends_with("from the node/made/for/it"),
        "{log}"
    );
    assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "written\n");
    house.close().await;
}

#[tokio::test]
async fn containers_of_a_pod_share_what_the_pod_says() {
    let house = House::new().await;
    let mut pod = house.sandbox();
    pod.pid = NamespaceMode::Pod;
    house.runtime.create_sandbox(&pod).await.unwrap();
    let first = house.run(&pod, "echo 1 > /dev/shm/seen; sleep 4711", |_| ()).await;
    let second = house.run(&pod, "while [ ! -e /dev/shm/seen ]; do sleep 0.02; done; ps; exit 0", |_| ()).await;
    assert_eq!(house.exit(&second).await.0, 0);
    let log = house.log(&second);
    assert!(log.contains("sleep 4711"), "{log}");
    house.runtime.signal_container(&first, 9).await.unwrap();
    assert_eq!(house.exit(&first).await.0, 137);
    house.close().await;
}

#[tokio::test]
async fn a_container_may_join_the_processes_of_another() {
    let house = House::new().await;
    let pod = house.pod().await;
    let target = house.run(&pod, "sleep 4711", |_| ()).await;
    let name = target.id.clone();
    let looker = house.run(&pod, "tr '\\0' ' ' < /proc/1/cmdline; (sleep 1000 &); exit 0", move |spec| spec.pid_target = Some(name)).await;
    assert_eq!(house.exit(&looker).await.0, 0);
    assert!(house.log(&looker).contains("sleep 4711"), "{}", house.log(&looker));
    // What it left behind in the other's namespace goes with it, and the other stays.
    assert!(matches!(house.runtime.container(&target).await.unwrap().state, ContainerState::Running { .. }));
    house.runtime.remove_container(&looker).await.unwrap();
    house.runtime.signal_container(&target, 9).await.unwrap();
    house.exit(&target).await;
    let mut late = crate::house::container(&pod, "true");
    late.pid_target = Some(target.id.clone());
    assert!(matches!(house.runtime.create_container(&late).await, Err(RuntimeError::Invalid(why)) if why.contains("does not run")));
    house.close().await;
}

#[tokio::test]
async fn an_image_is_mounted_to_be_read() {
    let house = House::new().await;
    let image = house.runtime.image("busybox:test").await.unwrap().unwrap().id;
    let mounts = [("", "/image"), ("bin", "/image-bin"), ("bin/cat", "/one")];
    let mounts = mounts.map(|(sub_path, at)| ImageMount { image: image.clone(), sub_path: sub_path.into(), destination: at.into() });
    let (pod, own) = (house.pod().await, mounts.to_vec());
    let script =
        "cat /image/etc/passwd | head -1; touch /image/x 2>&1; ls /image-bin/cat; test -e /one && echo one; /image/bin/true 2>&1; true";
    let id = house.run(&pod, script, move |spec| spec.image_mounts = own).await;
    house.exit(&id).await;
    let log = house.log(&id);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("root:") && lines[1].contains("Read-only") && lines[2..4] == ["/image-bin/cat", "one"], "{log}");
    assert!(lines[4].contains("ermission denied"), "{log}");
    assert!(house.runtime.remove_image(&image).await.is_err(), "it is in use");
    let mut bad = crate::house::container(&pod, "true");
    bad.image_mounts = vec![ImageMount { image: image.clone(), sub_path: "no/such".into(), destination: "/x".into() }];
    assert!(matches!(house.runtime.create_container(&bad).await, Err(RuntimeError::Invalid(why)) if why.contains("no/such")));
    house.close().await;
}

#[tokio::test]
async fn a_pod_with_a_network_has_its_host_name_and_kernel_parameters() {
    let house = House::new().await;
    let netns = house.dir().join("netns");
    fs::write(&netns, "").unwrap();
    let target = netns.clone();
    std::thread::spawn(move || {
        // SAFETY: a thread of its own that ends here; only its network namespace is new.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &target).unwrap();
    })
    .join()
    .unwrap();
    let mut pod = house.sandbox();
    (pod.netns, pod.hostname) = (Some(netns.clone()), "web-0".into());
    pod.sysctls =
        [("net.ipv4.ip_unprivileged_port_start", "99"), ("kernel.shmmni", "77")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    house.runtime.create_sandbox(&pod).await.unwrap();
    let script = "hostname; echo $HOSTNAME; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni; ls /sys/class/net";
    let id = house.run(&pod, script, |_| ()).await;
    house.exit(&id).await;
    let log = house.log(&id);
    house.runtime.remove_sandbox(&pod.id).await.unwrap();
    rustix::mount::unmount(&netns, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(log.starts_with("web-0\nweb-0\n99\n77\nlo"), "{log}");
    let mut refused = house.sandbox();
    refused.sysctls = [("kernel.panic".to_owned(), "1".to_owned())].into();
    assert!(matches!(house.runtime.create_sandbox(&refused).await, Err(RuntimeError::Invalid(why)) if why.contains("kernel.panic")));
    house.close().await;
}
