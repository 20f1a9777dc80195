//! Containers that another OCI runtime of the machine makes (RuntimeClass), with Debian's runc.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use coracle_runtime::{ContainerState, ExecRequest, ImageMount, Mount, PodRuntime, RuntimeError, SandboxSpec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, PATIENCE, container, exited};

fn command(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

async fn pod(house: &House, handler: &str) -> SandboxSpec {
    let spec = SandboxSpec { handler: handler.into(), ..house.sandbox() };
    house.runtime.create_sandbox(&spec).await.unwrap();
    spec
}

#[tokio::test]
async fn another_runtime_makes_runs_enters_and_ends_a_container() {
    let house = House::new().await;
    let pod = pod(&house, "runc").await;
    let volume = house.dir().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
    let mount = |source: &std::path::Path, destination: &str, read_only| Mount {
        source: source.into(),
        destination: destination.into(),
        read_only,
        recursive_read_only: read_only,
        propagation: "private".into(),
    };
    let script = "id -u; id -g; grep -E 'CapEff|Seccomp:' /proc/self/status | tr -d '\\t '; echo $A; hostname; echo here > /v/file; \
                  echo no > /r/file || echo refused; test -e /image/bin/busybox && echo image; trap 'exit 7' TERM; sleep 1000 & wait";
    let main = house
        .run(&pod, script, |spec| {
            (spec.security.run_as_user, spec.security.run_as_group) = (Some(1000), Some(9));
            spec.env = vec![("A".into(), "b".into())];
            spec.mounts = vec![mount(&volume, "/v", false), mount(&volume, "/r", true)];
            spec.image_mounts = vec![ImageMount { image: spec.image.clone(), sub_path: String::new(), destination: "/image".into() }];
        })
        .await;
    let status = house.runtime.container(&main).await.unwrap();
    assert_eq!(status.user, Some((1000, 9, vec![9, 44])));
    assert!(matches!(status.state, ContainerState::Running { .. }) && status.pid.is_some());
    let result = house.runtime.exec_sync(&main, &command("id -u; echo $A; grep Seccomp: /proc/self/status; exit 4"), None).await.unwrap();
    assert_eq!((result.exit_code, String::from_utf8_lossy(&result.stdout).as_ref()), (4, "1000\nb\nSeccomp:\t2\n"));
    match house.runtime.exec_sync(&main, &["nothing".into()], None).await {
        Err(RuntimeError::Start(why)) => assert!(why.contains("executable file not found"), "{why}"),
        other => panic!("{other:?}"),
    }
    // A terminal, whose size is told.
    let request = ExecRequest { command: command("read x; echo got $x; tty"), stdin: true, stdout: true, stderr: false, tty: true };
    let mut streams = house.runtime.exec(&main, &request).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"word\n").await.unwrap();
    let mut text = String::new();
    tokio::time::timeout(PATIENCE, streams.stdout.as_mut().unwrap().read_to_string(&mut text)).await.expect("it ends").unwrap();
    assert!(text.contains("got word") && text.contains("/dev/pts/"), "{text}");
    // A process that follows sees it as this one does, and so does its pod's next container.
    let again = house.reopened().await;
    assert_eq!(again.container(&main).await.unwrap().pid, status.pid);
    house.runtime.signal_container(&main, 15).await.unwrap();
    assert_eq!(house.exit(&main).await, (7, "Error".into()));
    let said = house.log(&main);
    assert!(said.starts_with("1000\n9\nCapEff:0000000000000000\nSeccomp:2\nb\n"), "{said}");
    assert!(said.contains("refused") && said.contains("image"), "{said}");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "here\n");
    drop(again);
    house.runtime.remove_container(&main).await.unwrap();
    let next = house.run(&pod, "echo next", |_| ()).await;
    assert_eq!(house.exit(&next).await, (0, "Completed".into()));
    house.close().await;
}

#[tokio::test]
async fn a_terminal_of_the_containers_own_comes_to_the_log() {
    let house = House::new().await;
    let pod = pod(&house, "runc").await;
    let id = house.run(&pod, "tty; echo done", |spec| spec.tty = true).await;
    assert_eq!(house.exit(&id).await.0, 0);
    let text = house.log(&id);
    assert!(text.contains("/dev/") && text.contains("done"), "{text}");
    house.close().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_container_or_handler_is_said() {
    let house = House::new().await;
    let unknown = SandboxSpec { handler: "no-such".into(), ..house.sandbox() };
    match house.runtime.create_sandbox(&unknown).await {
        Err(RuntimeError::Invalid(why)) => assert_eq!(why, "failed to get sandbox runtime: no runtime for \"no-such\" is configured"),
        other => panic!("{other:?}"),
    }
    let pod = pod(&house, "runc").await;
    let mut wrong = container(&pod, "true");
    wrong.command = vec!["/no/such".into()];
    // runc finds out at once or when it starts.
    let made = match house.runtime.create_container(&wrong).await {
        Ok(()) => house.runtime.start_container(&wrong.id).await,
        error => error,
    };
    assert!(matches!(made, Err(RuntimeError::Start(ref why)) if why.contains("no such file or directory")), "{made:?}");
    house.close().await;
}

#[tokio::test]
async fn a_container_that_will_not_end_is_killed_and_nothing_is_left() {
    let house = House::new().await;
    let pod = pod(&house, "runc").await;
    let id = house.run(&pod, "trap '' TERM; while :; do sleep 1; done", |_| ()).await;
    house.runtime.signal_container(&id, 15).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(house.runtime.container(&id).await.unwrap().pid.is_some());
    house.runtime.signal_container(&id, 9).await.unwrap();
    match exited(&*house.runtime, &id).await.state {
        ContainerState::Exited { exit_code: 137, signal: Some(9), .. } => {}
        other => panic!("{other:?}"),
    }
    house.run(&pod, "sleep 1000", |_| ()).await;
    house.close().await;
}
