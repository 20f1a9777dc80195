//! What is streamed to and from a container, over WebSocket as kubectl does by itself, and over SPDY as older ones do.

use std::io::{Read as _, Write as _};

use coracle_tests::{Kubectl, Server, pty::Terminal};

/// Makes kubectl speak SPDY.
const SPDY: [(&str, &str); 2] = [("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false"), ("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false")];

fn exec(kubectl: &Kubectl, protocol: &str) {
    let told = kubectl.output(&["--v=9", "exec", "talk", "--", "true"]).stderr;
    assert!(String::from_utf8_lossy(&told).contains(&format!("Upgrade: {protocol}")), "it speaks {protocol}");
    assert_eq!(kubectl.ok(&["exec", "talk", "--", "echo", "hi"]), "hi\n");
    let large = "0123456789abcdef\n".repeat(64 << 10);
    assert_eq!(kubectl.stdin(&["exec", "-i", "talk", "--", "cat"], &large), large, "a megabyte there and back");
    let output = kubectl.output(&["exec", "talk", "--", "sh", "-c", "echo to out; echo to err >&2; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, b"to out\n");
    assert!(output.stderr.starts_with(b"to err\n"), "{}", String::from_utf8_lossy(&output.stderr));
    let error = kubectl.fails(&["exec", "talk", "--", "/no/such/program"]);
    assert!(error.contains("/no/such/program"), "{error}");
    let error = kubectl.fails(&["exec", "talk", "-c", "none", "--", "true"]);
    assert!(error.contains("none"), "{error}");
}

/// A shell on a terminal: its size, its change, Ctrl-C, and the exit code.
fn terminal(kubectl: &Kubectl) {
    let mut terminal = Terminal::start(kubectl.command(&["exec", "-it", "talk", "--", "sh"]), 40, 100);
    terminal.see("# ");
    terminal.say("busybox tty && busybox stty size && echo $((40 + 2))\n");
    let shown = terminal.see("42\r\n");
    assert!(shown.contains("/dev/pts/") && shown.contains("40 100"), "{shown}");
    terminal.resize(50, 120);
    // The size travels beside what is typed: the shell asks until it has come. The quotes tell its answer from the typed line.
    terminal.say("until busybox stty size | busybox grep '50 120'; do :; done; echo re''sized\n");
    terminal.see("resized\r\n");
    // A shell of its own: the interactive one hands the terminal over, and Ctrl-C in that moment would be nobody's.
    terminal.say("sh -c 'echo begun; sleep 1000'\n");
    terminal.see("begun\r\n");
    terminal.say("\x03");
    terminal.see("# ");
    terminal.say("exit 3\n");
    assert_eq!(terminal.wait().code(), Some(3));
}

fn copy(kubectl: &Kubectl) {
    let directory = tempfile::tempdir().expect("a directory");
    let (there, back) = (directory.path().join("there"), directory.path().join("back"));
    let carried: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &carried).expect("written");
    kubectl.ok(&["cp", there.to_str().expect("UTF-8"), "talk:/tmp/x"]);
    kubectl.ok(&["cp", "talk:/tmp/x", back.to_str().expect("UTF-8")]);
    assert!(std::fs::read(back).expect("copied") == carried, "a file comes back as it went");
}

/// What the container's first process shows from now on, and what it is told.
fn attach(kubectl: &Kubectl, word: &str) {
    let mut command = kubectl.command(&["attach", "-i", "echo"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("kubectl");
    let mut screen = coracle_tests::screen::Screen::of(child.stdout.take().expect("piped"));
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(format!("{word}\n").as_bytes()).expect("taken");
    screen.see(&format!("heard {word}"));
    child.kill().and_then(|()| child.wait()).expect("it ends");
}

/// A pod for one pipe: the end of what is said to it is the end of its input, and its own end kubectl's.
fn pipe(kubectl: &Kubectl) {
    let head = ["run", "once", "--image=busybox:test", "--image-pull-policy=Never", "--restart=Never", "-i", "--rm", "--quiet", "--"];
    assert_eq!(kubectl.stdin(&[&head[..], &["cat"]].concat(), "said\n"), "said\n");
}

fn forward(kubectl: &Kubectl) {
    let mut forward = kubectl.follow(&["port-forward", "pod/talk", ":8080"]);
    forward.see("127.0.0.1:");
    let port: u16 = forward.see(" -> ").trim_end_matches(" -> ").parse().expect("a port");
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("forwarded");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.ends_with("forwarded\n"), "{answer}");
    }
}

#[test]
fn streams_reach_the_container_in_both_protocols() {
    let (_server, kubectl) = Server::with_image();
    let serve = "echo forwarded > /tmp/index.html; httpd -p 8080 -h /tmp; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.2; done";
    kubectl.pod("talk", &[], serve);
    kubectl.pod("echo", &["--stdin", "--attach=false"], "while read -r word; do echo heard $word; done");
    kubectl.wait("pod/talk", "condition=Ready");
    kubectl.wait("pod/echo", "condition=Ready");
    let begun = kubectl.follow(&["logs", "-f", "talk"]).see("line 3\n");
    assert!(begun.starts_with("line 0\n"), "{begun}");

    let spdy = SPDY.iter().fold(kubectl.clone(), |kubectl, &(variable, value)| kubectl.with(variable, value));
    for (kubectl, protocol, word) in [(&kubectl, "websocket", "first"), (&spdy, "SPDY/3.1", "second")] {
        exec(kubectl, protocol);
        terminal(kubectl);
        copy(kubectl);
        attach(kubectl, word);
        pipe(kubectl);
        forward(kubectl);
    }
}
