//! Pods whose users are not the node's (`hostUsers: false`).

use std::{fs, os::unix::fs::MetadataExt as _};

use coracle_runtime::{ImageMount, Mount, PodRuntime, SandboxSpec, UserRange};

use crate::house::House;

const RANGE: UserRange = UserRange { first: 1_638_400, length: 65_536 };

#[tokio::test]
async fn root_of_a_pod_is_nobody_on_the_node_and_sees_its_files_as_its_own() {
    let house = House::new().await;
    let pod = SandboxSpec { user_namespace: Some(RANGE), ..house.sandbox() };
    house.runtime.create_sandbox(&pod).await.unwrap();
    let volume = house.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("roots"), "x").unwrap();
    let script = "cat /proc/self/uid_map | tr -s ' '; id -u; ls -ln /v/roots /bin/busybox | tr -s ' ' | cut -d' ' -f3,4; \
        echo y > /v/made; chmod 600 /v/made; echo z > /own && ls -ln /own | tr -s ' ' | cut -d' ' -f3,4; \
        echo out > /dev/stdout; echo null > /dev/null && echo null; test -e /image/bin/busybox && echo image; \
        ls -ln /dev/null | tr -s ' ' | cut -d' ' -f3,4; echo 5 > /proc/self/oom_score_adj && echo own; \
        grep CapEff /proc/self/status | tr -d '\\t '; touch /dev/shm/x && echo shm; mkfifo /tmp/told; echo > /tmp/told; sleep 1000";
    let script = script.replace("cut -d' ' -f3,4", "sh -c 'while read a b c d e; do echo $c $d; done'");
    let main = house
        .run(&pod, &script, |spec| {
            spec.mounts = vec![Mount {
                source: volume.clone(),
                destination: "/v".into(),
                read_only: false,
                recursive_read_only: false,
                propagation: "private".into(),
            }];
            spec.image_mounts = vec![ImageMount { image: spec.image.clone(), sub_path: "bin".into(), destination: "/image/bin".into() }];
        })
        .await;
    let command = [
        "/bin/sh".into(),
        "-c".into(),
        "id -u; until [ -p /tmp/told ]; do :; done; read -r _ < /tmp/told; cat /v/made; echo e > /dev/stderr".into(),
    ];
    let result = house.runtime.exec_sync(&main, &command, None).await.unwrap();
    assert_eq!((String::from_utf8_lossy(&result.stdout).as_ref(), &*result.stderr), ("0\ny\n", &b"e\n"[..]));
    let pid = house.runtime.container(&main).await.unwrap().pid.unwrap();
    assert_eq!(fs::metadata(format!("/proc/{pid}")).unwrap().uid(), RANGE.first, "the node sees another user");
    assert_ne!(fs::read_link(format!("/proc/{pid}/ns/user")).unwrap(), fs::read_link("/proc/self/ns/user").unwrap());
    let made = fs::metadata(volume.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o777), (0, 0, 0o600), "files of a volume belong to whom the pod says");
    // A second container of the pod has the same users.
    let other = house
        .run(&pod, "cat /proc/self/uid_map | tr -s ' '; id -u; true < /dev/tty || echo none", |spec| {
            spec.security.run_as_user = Some(1000);
        })
        .await;
    assert_eq!(house.exit(&other).await.0, 0);
    assert!(house.log(&other).starts_with(" 0 1638400 65536\n1000"), "{}", house.log(&other));
    let told = house.log(&main);
    let expected = " 0 1638400 65536\n0\n0 0\n0 0\n0 0\nout\nnull\nimage\n0 0\nown\nCapEff:00000000a80425fb\nshm";
    assert_eq!(told, expected);
    let terminal = house.run(&pod, "tty; id -u; echo x > /dev/tty", |spec| spec.tty = true).await;
    assert_eq!(house.exit(&terminal).await.0, 0, "{}", house.log(&terminal));
    house.close().await;
}

#[tokio::test]
async fn another_runtime_is_refused_users_of_its_own() {
    let house = House::new().await;
    let pod = SandboxSpec { user_namespace: Some(RANGE), handler: "runc".into(), ..house.sandbox() };
    let refused = house.runtime.create_sandbox(&pod).await.unwrap_err();
    assert_eq!(refused.to_string(), "RuntimeClass handler \"runc\" does not support user namespaces");
    house.close().await;
}
