//! exec and attach.

use std::time::Duration;

use coracle_runtime::{AttachRequest, ExecRequest, PodRuntime, RuntimeError, Streams, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::house::{House, PATIENCE};

fn command(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

fn request(script: &str, stdin: bool, tty: bool) -> ExecRequest {
    ExecRequest { command: command(script), stdin, stdout: true, stderr: !tty, tty }
}

/// Everything of stdout, and the exit code.
async fn finish(mut streams: Streams) -> (String, i32) {
    drop(streams.stdin.take());
    let mut text = String::new();
    let all = async {
        streams.stdout.as_mut().unwrap().read_to_string(&mut text).await.unwrap();
        streams.exit.await.unwrap()
    };
    let code = tokio::time::timeout(PATIENCE, all).await.expect("the command ends");
    (text, code)
}

#[tokio::test]
async fn a_command_gives_its_output_and_exit_code() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "export X=1; sleep 1000", |spec| spec.env = vec![("Y".into(), "2".into())]).await;
    let result = house.runtime.exec_sync(&id, &command("echo $Y; echo err >&2; exit 4"), None).await.unwrap();
    assert_eq!((result.exit_code, &*result.stdout, &*result.stderr, result.timed_out), (4, &b"2\n"[..], &b"err\n"[..], false));
    let result = house.runtime.exec_sync(&id, &command("sleep 1000"), Some(Duration::from_millis(100))).await.unwrap();
    assert_eq!((result.exit_code, result.timed_out), (137, true));
    let result = house.runtime.exec_sync(&id, &command("head -c 100000 /dev/zero"), None).await.unwrap();
    assert_eq!((result.exit_code, result.stdout.len()), (0, 16384));
    match house.runtime.exec_sync(&id, &["nothing".into()], None).await {
        Err(RuntimeError::Start(why)) => assert!(why.contains("executable file not found"), "{why}"),
        other => panic!("{other:?}"),
    }
    house.close().await;
}

#[tokio::test]
async fn stdin_reaches_a_command_and_ends() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "sleep 1000", |_| ()).await;
    let mut streams = house.runtime.exec(&id, &request("cat; exit 9", true, false)).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"to and fro").await.unwrap();
    assert_eq!(finish(streams).await, ("to and fro".into(), 9));
    house.close().await;
}

#[tokio::test]
async fn a_terminal_has_a_name_and_a_size() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "sleep 1000", |_| ()).await;
    let mut streams = house.runtime.exec(&id, &request("read x; tty; stty size; echo $TERM", true, true)).await.unwrap();
    streams.resize.as_ref().unwrap().send(TerminalSize { width: 101, height: 33 }).await.unwrap();
    // The size is set by another task: the command asks only after it was told to.
    tokio::task::yield_now().await;
    streams.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let stdin = streams.stdin.take();
    let (text, code) = finish(streams).await;
    drop(stdin);
    assert_eq!((text.as_str(), code), ("go\r\n/dev/pts/0\r\n33 101\r\nxterm\r\n", 0));
    house.close().await;
}

#[tokio::test]
async fn dropping_the_streams_ends_the_command() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "sleep 1000", |_| ()).await;
    let mut streams = house.runtime.exec(&id, &request("echo $$; sleep 2000", false, false)).await.unwrap();
    let mut first = [0; 1];
    streams.stdout.as_mut().unwrap().read_exact(&mut first).await.unwrap();
    drop(streams);
    let gone = async {
        while String::from_utf8_lossy(&house.runtime.exec_sync(&id, &command("ps"), None).await.unwrap().stdout).contains("sleep 2000") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the command is killed");
    house.close().await;
}

#[tokio::test]
async fn attach_sees_output_and_gives_input() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "read x; echo got $x; exit 6", |spec| spec.stdin = true).await;
    let mut streams = house.runtime.attach(&id, &AttachRequest { stdin: true, stdout: true, stderr: true }).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    assert_eq!(finish(streams).await, ("got hello\n".into(), 6));
    assert_eq!(house.log(&id), "got hello");
    house.close().await;
}

#[tokio::test]
async fn stdin_once_ends_with_the_first_attach() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "cat; echo over", |spec| (spec.stdin, spec.stdin_once) = (true, true)).await;
    let mut streams = house.runtime.attach(&id, &AttachRequest { stdin: true, stdout: true, stderr: false }).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"line\n").await.unwrap();
    let mut line = [0; 5];
    streams.stdout.as_mut().unwrap().read_exact(&mut line).await.unwrap();
    drop(streams);
    assert_eq!(house.exit(&id).await.0, 0);
    assert_eq!(house.log(&id), "line\nover");
    // Who only looks ends nothing; who has said all stays for the answer.
    let id = house.run(&pod, "cat; echo over; exit 3", |spec| (spec.stdin, spec.stdin_once) = (true, true)).await;
    drop(house.runtime.attach(&id, &AttachRequest { stdin: false, stdout: true, stderr: false }).await.unwrap());
    let mut streams = house.runtime.attach(&id, &AttachRequest { stdin: true, stdout: true, stderr: false }).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"line\n").await.unwrap();
    drop(stdin);
    let answer = tokio::time::timeout(PATIENCE, finish(streams)).await.expect("its end is the container's");
    assert_eq!(answer, ("line\nover\n".into(), 3));
    house.close().await;
}

#[tokio::test]
async fn a_container_with_a_terminal_is_attached_and_logged() {
    let house = House::new().await;
    let pod = house.pod().await;
    let id = house.run(&pod, "read x; tty; test -c /dev/console && echo console $x", |spec| (spec.stdin, spec.tty) = (true, true)).await;
    let mut streams = house.runtime.attach(&id, &AttachRequest { stdin: true, stdout: true, stderr: false }).await.unwrap();
    streams.stdin.as_mut().unwrap().write_all(b"in\n").await.unwrap();
    let stdin = streams.stdin.take();
    let (text, code) = finish(streams).await;
    drop(stdin);
    assert_eq!((text.replace('\r', ""), code), ("in\n/dev/pts/0\nconsole in\n".into(), 0));
    assert!(house.log(&id).contains("console in"));
    house.close().await;
}
