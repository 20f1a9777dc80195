//! Against a logind of the test's own, on a bus of its own: the same bytes, a descriptor, and its signals.

use std::{io::Read as _, os::fd::AsFd};

use nix::sys::socket::{ControlMessage, sendmsg};
use tokio::{net::UnixListener, sync::mpsc};

use super::*;

const MINUTE_MICROS: u64 = 60_000_000;

/// Answers as bus, logind and systemd; what was asked is told in `asked`, and signals go out as `signals` brings them.
async fn bus(listener: UnixListener, asked: mpsc::Sender<String>, mut signals: mpsc::Receiver<bool>, mut delay: u64) {
    let (mut stream, _) = listener.accept().await.expect("somebody comes");
    for answer in ["OK 0123456789abcdef\r\n", "AGREE_UNIX_FD\r\n"] {
        line(&mut stream).await.expect("a line");
        stream.write_all(answer.as_bytes()).await.expect("told");
    }
    assert_eq!(line(&mut stream).await.expect("a line"), "BEGIN");
    let mut read = Vec::new();
    let mut serial = 100;
    loop {
        serial += 1;
        let mut chunk = [0; 512];
        tokio::select! {
            length = stream.read(&mut chunk) => match length {
                Ok(length) if length > 0 => read.extend(&chunk[..length]),
                _ => return,
            },
            Some(begins) = signals.recv() => {
                let mut signal = Message::new(Kind::Signal, serial).number('b', begins.into());
                (signal.path, signal.interface, signal.member) = (LOGIND_PATH.to_owned(), MANAGER.to_owned(), "PrepareForShutdown".to_owned());
                stream.write_all(&signal.encode()).await.expect("told");
            }
        }
        while let Some((call, length)) = Message::decode(&read).expect("a call") {
            read.drain(..length);
            let mut answer = Message::new(Kind::Reply, serial);
            answer.reply_to = Some(call.serial);
            let mut told = call.member.clone();
            match call.member.as_str() {
                "Get" => answer = answer.variant_long(delay),
                "KillUnit" => delay = MINUTE_MICROS,
                "AddMatch" => {
                    let mut other = Message::new(Kind::Signal, serial).text("org.freedesktop.DBus");
                    other.member = "NameAcquired".to_owned();
                    stream.write_all(&other.encode()).await.expect("told");
                }
                "Inhibit" => {
                    let mut arguments = call.arguments();
                    assert_eq!(arguments.text().as_deref(), Some("shutdown"));
                    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
                    answer = answer.number('h', 0);
                    answer.descriptors = 1;
                    let bytes = answer.encode();
                    let parts = [io::IoSlice::new(&bytes)];
                    let fds = [theirs.as_fd().as_raw_fd()];
                    sendmsg::<()>(stream.as_raw_fd(), &parts, &[ControlMessage::ScmRights(&fds)], MsgFlags::empty(), None).expect("sent");
                    drop(theirs);
                    let asked = asked.clone();
                    tokio::task::spawn_blocking(move || {
                        // It ends when the other side lets go.
                        let _ = ours.read(&mut [0]);
                        let _ = asked.blocking_send("released".to_owned());
                    });
                    told = "Inhibit".to_owned();
                }
                "Hello" => {}
                other => {
                    (answer.kind, answer.error) = (Kind::Error, "org.freedesktop.DBus.Error.UnknownMethod".to_owned());
                    answer = answer.text(&format!("no {other}"));
                }
            }
            if call.member != "Inhibit" {
                stream.write_all(&answer.encode()).await.expect("told");
            }
            asked.send(told).await.expect("heard");
        }
    }
}

fn begin(place: &Path, delay: u64) -> (PathBuf, mpsc::Receiver<String>, mpsc::Sender<bool>) {
    let path = place.join("bus");
    let listener = UnixListener::bind(&path).expect("a socket");
    let (tell, asked) = mpsc::channel(100);
    let (signal, signals) = mpsc::channel(1);
    tokio::spawn(bus(listener, tell, signals, delay));
    (path, asked, signal)
}

async fn next(asked: &mut mpsc::Receiver<String>) -> String {
    tokio::time::timeout(Duration::from_secs(10), asked.recv()).await.expect("in time").expect("something")
}

#[tokio::test]
async fn a_shutdown_waits_until_we_let_go() {
    let place = tempfile::tempdir().expect("a directory");
    let (path, mut asked, signal) = begin(place.path(), MINUTE_MICROS);
    let mut logind = Logind::connect(&path).await.expect("it takes us");
    logind.allow(Duration::from_secs(60), &place.path().join("conf")).await.expect("it waits long enough");
    assert!(!place.path().join("conf").exists(), "nothing is written that is not needed");
    let lock = logind.inhibit().await.expect("a lock");
    signal.send(true).await.expect("sent");
    assert!(logind.shutdown().await.expect("told"));
    for want in ["Hello", "AddMatch", "Get", "Inhibit"] {
        assert_eq!(next(&mut asked).await, want);
    }
    assert!(asked.try_recv().is_err(), "it is held");
    drop(lock);
    assert_eq!(next(&mut asked).await, "released");
    signal.send(false).await.expect("sent");
    assert!(!logind.shutdown().await.expect("told"));
}

#[tokio::test]
async fn logind_is_told_to_wait_longer() {
    let place = tempfile::tempdir().expect("a directory");
    let (path, _asked, _signal) = begin(place.path(), 5_000_000);
    let mut logind = Logind::connect(&path).await.expect("it takes us");
    assert_eq!(logind.delay().await.expect("a time"), Duration::from_secs(5));
    logind.allow(Duration::from_millis(59_500), place.path()).await.expect("it waits longer");
    let text = fs::read_to_string(place.path().join("99-coracle.conf")).expect("written");
    assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=60\n"), "{text}");
    let error = logind.allow(Duration::from_secs(61), place.path()).await.expect_err("it does not wait for ever");
    assert!(matches!(error, LogindError::Delay { .. }), "{error}");
}

#[tokio::test]
async fn what_goes_wrong_is_told() {
    let place = tempfile::tempdir().expect("a directory");
    assert!(matches!(Logind::connect(&place.path().join("none")).await, Err(LogindError::Bus(_))));
    let (path, _asked, _signal) = begin(place.path(), 0);
    let mut logind = Logind::connect(&path).await.expect("it takes us");
    let error = logind.call("Nonsense", to(LOGIND, LOGIND_PATH, MANAGER, "Nonsense")).await.expect_err("it does not know that");
    assert_eq!(error.to_string(), "Nonsense was refused: org.freedesktop.DBus.Error.UnknownMethod: no Nonsense");
}
