//! Start, end, logs, and what outlives whom.

use std::fs;

use coracle_runtime::{ContainerState, PodRuntime, RuntimeError, RuntimeEvent};
use futures::StreamExt;

use crate::house::{House, PATIENCE, container, exited};

#[tokio::test]
async fn a_container_runs_and_its_end_is_known() {
    let house = House::new().await;
    assert_eq!(house.output("echo out; echo err >&2; exit 3", |_| ()).await, (3, "Error".into(), "out\nerr".into()));
    assert_eq!(house.output("(sleep 1000 &); true", |_| ()).await, (0, "Completed".into(), String::new()));
    house.close().await;
}

#[tokio::test]
async fn signals_reach_the_init_and_name_the_exit() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "sleep 1000", |_| ()).await;
    house.runtime.signal_container(&id, 9).await.unwrap();
    let status = exited(&*house.runtime, &id).await;
    assert!(matches!(status.state, ContainerState::Exited { exit_code: 137, signal: Some(9), .. }), "{:?}", status.state);
    assert_eq!(status.pid, None);
    house.runtime.signal_container(&id, 15).await.unwrap();
    let id = house.run(&pod, "trap 'echo bye; exit 7' TERM; echo ready; while true; do sleep 0.1; done", |_| ()).await;
    while !house.log(&id).contains("ready") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    house.runtime.signal_container(&id, 15).await.unwrap();
    assert_eq!(house.exit(&id).await.0, 7);
    assert_eq!(house.log(&id), "ready\nbye");
    house.close().await;
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let house = House::new().await;
    let pod = house.pod().await;
    for (command, text) in [
        ("no-such-program", "executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let mut spec = container(&pod, "");
        spec.command = vec![command.into()];
        house.runtime.create_container(&spec).await.unwrap();
        match house.runtime.start_container(&spec.id).await {
            Err(RuntimeError::Start(why)) => assert!(why.contains(text), "{command}: {why}"),
            other => panic!("{command}: {other:?}"),
        }
        let state = exited(&*house.runtime, &spec.id).await.state;
        assert!(matches!(&state, ContainerState::Exited { exit_code: 128, reason, .. } if reason == "StartError"), "{command}: {state:?}");
    }
    let mut spec = container(&pod, "");
    spec.image = "absent".into();
    assert!(matches!(house.runtime.create_container(&spec).await, Err(RuntimeError::Invalid(_))));
    spec.image = "busybox:test".into();
    spec.security.run_as_non_root = true;
    assert!(matches!(house.runtime.create_container(&spec).await, Err(RuntimeError::Invalid(why)) if why.contains("runAsNonRoot")));
    assert!(matches!(house.runtime.container(&spec.id).await, Err(RuntimeError::NotFound(_))), "what failed is forgotten");
    house.close().await;
}

#[tokio::test]
async fn logs_have_the_format_of_the_field() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "echo one; head -c 20000 /dev/zero | tr '\\0' x; echo; printf rest", |_| ()).await;
    house.exit(&id).await;
    let text = fs::read_to_string(house.log_dir().join(format!("{}.log", id.id))).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    let shape: Vec<(&str, &str, usize)> = lines.iter().map(|line| (line[1], line[2], line[3].len())).collect();
    assert_eq!(shape, [("stdout", "F", 3), ("stdout", "P", 16384), ("stdout", "F", 3616), ("stdout", "P", 4)]);
    assert!(lines.iter().all(|line| line[0].parse::<jiff::Timestamp>().is_ok() && line[0].ends_with('Z')));
    house.close().await;
}

#[tokio::test]
async fn a_rotated_log_goes_on_under_its_name() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "echo before; while [ ! -e /go ]; do sleep 0.02; done; echo after", |_| ()).await;
    let log = house.log_dir().join(format!("{}.log", id.id));
    while !house.log(&id).contains("before") {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    fs::rename(&log, log.with_extension("old")).unwrap();
    house.runtime.reopen_log(&id).await.unwrap();
    house.runtime.exec_sync(&id, &["/bin/touch".into(), "/go".into()], None).await.unwrap();
    house.exit(&id).await;
    assert_eq!(house.log(&id), "after");
    house.close().await;
}

#[tokio::test]
async fn a_second_runtime_takes_over_what_the_first_left() {
    let house = House::new().await;
    let pod = house.pod().await;
    let stays = house.run(&pod, "sleep 1000", |_| ()).await;
    let goes = house.run(&pod, "exit 5", |_| ()).await;
    house.exit(&goes).await;
    let before = house.runtime.container(&stays).await.unwrap();
    let second = house.reopened().await;
    let after = second.container(&stays).await.unwrap();
    assert_eq!((after.pid, after.state), (before.pid, before.state));
    assert!(matches!(second.container(&goes).await.unwrap().state, ContainerState::Exited { exit_code: 5, .. }));
    assert!(second.sandboxes().await.unwrap()[0].ready);
    second.signal_container(&stays, 9).await.unwrap();
    exited(&*second, &stays).await;
    exited(&*house.runtime, &stays).await;
    house.close().await;
}

#[tokio::test]
async fn a_killed_shim_is_noticed_and_its_pod_can_be_removed() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "sleep 1000", |_| ()).await;
    let mut events = house.runtime.events();
    let init = house.runtime.container(&id).await.unwrap().pid.unwrap();
    let shim: serde_json::Value =
        serde_json::from_slice(&fs::read(house.dir().join("state").join(&pod.id).join("shim.json")).unwrap()).unwrap();
    let shim = rustix::process::Pid::from_raw(shim["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    let lost = async { while !matches!(events.next().await, Some(RuntimeEvent::SandboxLost(sandbox)) if sandbox == pod.id) {} };
    tokio::time::timeout(PATIENCE, lost).await.unwrap();
    let state = house.runtime.container(&id).await.unwrap().state;
    assert!(matches!(&state, ContainerState::Exited { exit_code: 137, reason, .. } if reason == "ContainerStatusUnknown"), "{state:?}");
    assert!(!house.runtime.sandboxes().await.unwrap()[0].ready);
    house.runtime.remove_sandbox(&pod.id).await.unwrap();
    let state = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "nothing of the pod runs: {state}");
    house.close().await;
}

#[tokio::test]
async fn calls_can_be_repeated() {
    let house = House::new().await;
    let pod = house.pod().await;
    house.runtime.create_sandbox(&pod).await.unwrap();
    let spec = container(&pod, "sleep 1000");
    for _ in 0..2 {
        house.runtime.create_container(&spec).await.unwrap();
    }
    for _ in 0..2 {
        house.runtime.start_container(&spec.id).await.unwrap();
    }
    for _ in 0..2 {
        house.runtime.remove_container(&spec.id).await.unwrap();
    }
    for _ in 0..2 {
        house.runtime.remove_sandbox(&pod.id).await.unwrap();
    }
    house.close().await;
}

#[tokio::test]
async fn a_sandbox_that_did_not_come_up_is_tried_again() {
    let house = House::new().await;
    let mut pod = house.sandbox();
    pod.netns = Some("/no/such/namespace".into());
    pod.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
    for _ in 0..2 {
        match house.runtime.create_sandbox(&pod).await {
            Err(RuntimeError::Invalid(why)) => assert!(why.contains("No such file or directory"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert!(house.runtime.sandboxes().await.unwrap().is_empty(), "nothing of it is left");
    }
    (pod.netns, pod.sysctls) = Default::default();
    house.runtime.create_sandbox(&pod).await.unwrap();
    let id = house.run(&pod, "echo here", |_| ()).await;
    house.exit(&id).await;
    assert_eq!(house.log(&id), "here");
    house.close().await;
}

/// Not a test of its own: the main process that the next one kills.
#[tokio::test]
#[ignore = "is run by killing_the_main_process_changes_nothing_for_a_pod"]
async fn main_process_to_be_killed() {
    let Some(dir) = std::env::var_os("CORACLE_TEST_DIR") else { return };
    let house = House::at(dir.into(), std::env::var("CORACLE_TEST_PREFIX").unwrap()).await;
    let pod = house.pod().await;
    house.run(&pod, "i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 11", |_| ()).await;
    fs::write(house.dir().join("started"), "").unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn killing_the_main_process_changes_nothing_for_a_pod() {
    let house = House::new().await;
    let mut main = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::main_process_to_be_killed", "--ignored"])
        .env("CORACLE_TEST_DIR", house.dir())
        .env("CORACLE_TEST_PREFIX", house.prefix())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let dir = house.dir().to_owned();
    let started = async {
        while !dir.join("started").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.unwrap();
    main.kill().unwrap();
    main.wait().unwrap();
    let second = house.reopened().await;
    let pod = second.sandboxes().await.unwrap().remove(0);
    assert!(pod.ready);
    let id = pod.containers[0].spec.id.clone();
    assert!(matches!(pod.containers[0].state, ContainerState::Running { .. }), "{:?}", pod.containers[0].state);
    let result = second.exec_sync(&id, &["/bin/true".into()], None).await.unwrap();
    assert_eq!(result.exit_code, 0);
    // From outside: a command would end with the container that it ends.
    let init = second.container(&id).await.unwrap().pid.unwrap();
    fs::write(format!("/proc/{init}/root/stop"), "").unwrap();
    assert!(matches!(exited(&*second, &id).await.state, ContainerState::Exited { exit_code: 11, .. }));
    let log = house.log(&id);
    let count = log.lines().count();
    let expected: Vec<String> = (1..=count).map(|n| format!("line {n}")).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected, "the log has no gap");
    second.remove_sandbox(&pod.spec.id).await.unwrap();
    house.close().await;
}
