//! The machine goes down: logind says so, and pods end in the order of their priority before it may.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use coracle_agent::shutdown::wire::{Kind, Message};
use coracle_tests::Server;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

const DELAY_MICROS: u64 = 60_000_000;

/// A logind on a bus of its own: the connection to signal on, and the descriptor that holds the machine back.
fn logind(path: &Path) -> Receiver<(UnixStream, UnixStream)> {
    let listener = UnixListener::bind(path).expect("a socket");
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("somebody comes");
        let mut out = stream.try_clone().expect("a second one");
        let mut reader = BufReader::new(stream);
        for answer in ["OK 00\r\n", "AGREE_UNIX_FD\r\n", ""] {
            reader.read_line(&mut String::new()).expect("a line");
            out.write_all(answer.as_bytes()).expect("told");
        }
        let mut read = Vec::new();
        loop {
            let mut byte = [0];
            if reader.read_exact(&mut byte).is_err() {
                return;
            }
            read.push(byte[0]);
            let Some((call, _)) = Message::decode(&read).expect("a call") else { continue };
            read.clear();
            let mut answer = Message::new(Kind::Reply, call.serial);
            answer.reply_to = Some(call.serial);
            match call.member.as_str() {
                "Get" => answer = answer.variant_long(DELAY_MICROS),
                "Inhibit" => {
                    let (ours, theirs) = UnixStream::pair().expect("a pair");
                    answer = answer.number('h', 0);
                    answer.descriptors = 1;
                    let bytes = answer.encode();
                    let fds = [theirs.as_raw_fd()];
                    let rights = [ControlMessage::ScmRights(&fds)];
                    sendmsg::<()>(out.as_raw_fd(), &[io::IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None).expect("sent");
                    let _ = tell.send((out.try_clone().expect("a second one"), ours));
                    continue;
                }
                _ => {}
            }
            out.write_all(&answer.encode()).expect("told");
        }
    });
    told
}

fn say(out: &mut UnixStream, begins: bool) {
    let mut signal = Message::new(Kind::Signal, 1000).number('b', begins.into());
    signal.path = "/org/freedesktop/login1".to_owned();
    signal.interface = "org.freedesktop.login1.Manager".to_owned();
    signal.member = "PrepareForShutdown".to_owned();
    out.write_all(&signal.encode()).expect("told");
}

fn pod(name: &str, class: &str, hold: &Path) -> String {
    format!(
        r#"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: kube-system}}
spec:
  {class}
  containers:
  - name: c
    image: busybox:test
    imagePullPolicy: Never
    command: [sh, -c, "trap 'sleep 1; echo {name} >> /hold/order; exit 0' TERM; touch /tmp/up; while :; do sleep 0.1; done"]
    readinessProbe: {{exec: {{command: [cat, /tmp/up]}}, periodSeconds: 1}}
    volumeMounts: [{{name: hold, mountPath: /hold}}]
  volumes: [{{name: hold, hostPath: {{path: {}, type: Directory}}}}]
"#,
        hold.display()
    )
}

#[test]
fn pods_end_before_the_machine_does() {
    let place = tempfile::tempdir().expect("a directory");
    let told = logind(&place.path().join("bus"));
    let address = format!("unix:path={}", place.path().join("bus").display());
    let flags = ["--shutdown-grace-period=30s", "--shutdown-grace-period-critical-pods=10s"];
    let (server, kubectl) = Server::with_image_and(&flags, vec![("DBUS_SYSTEM_BUS_ADDRESS", address.into())]);
    let (mut bus, mut held) = told.recv_timeout(Duration::from_secs(60)).expect("the machine is held back");
    let critical = pod("critical", "priorityClassName: system-node-critical", place.path());
    kubectl.apply(&(pod("plain", "terminationGracePeriodSeconds: 20", place.path()) + &critical));
    for name in ["plain", "critical"] {
        kubectl.ok(&["-n", "kube-system", "wait", &format!("pod/{name}"), "--for=condition=Ready", "--timeout=90s"]);
    }

    say(&mut bus, true);
    held.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    assert_eq!(held.read(&mut [0]).expect("the machine may go"), 0);
    assert_eq!(std::fs::read_to_string(place.path().join("order")).expect("they ended"), "plain\ncritical\n");
    for name in ["plain", "critical"] {
        let fields =
            "jsonpath={.status.phase}/{.status.reason}/{.status.message}/{.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
        let shown = kubectl.ok(&["-n", "kube-system", "get", "pod", name, "-o", fields]);
        assert!(shown.starts_with("Succeeded/Terminated/Pod was terminated in response to imminent node shutdown."), "{name}: {shown}");
        assert!(shown.ends_with("/TerminationByKubelet"), "{shown}");
    }
    let node = kubectl.ok(&["get", "nodes", "-o", "name"]).trim().to_owned();
    kubectl.ok(&["wait", &node, "--for=condition=Ready=False", "--timeout=30s"]);
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}: {.status.conditions[?(@.type==\"Ready\")].message}";
    assert_eq!(kubectl.ok(&["get", &node, "-o", ready]), "KubeletNotReady: node is shutting down");

    // Nothing new is taken, until somebody thinks better of it.
    let late = pod("late", &format!("nodeName: {}", node.trim_start_matches("node/")), place.path()).replace("kube-system", "default");
    kubectl.apply(&late);
    kubectl.wait("pod/late", "jsonpath={.status.reason}=NodeShutdown");
    say(&mut bus, false);
    told.recv_timeout(Duration::from_secs(30)).expect("it is held again");
    kubectl.ok(&["wait", &node, "--for=condition=Ready", "--timeout=30s"]);
    kubectl.ok(&["delete", "pod", "late"]);
    kubectl.apply(&late);
    kubectl.wait("pod/late", "condition=Ready");
    drop(server);
}
