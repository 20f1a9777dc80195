//! The demo's server: says which pod it is and what its ConfigMap says; or, asked so, not before that has changed.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use inotify::{Inotify, WatchMask};

/// Where it listens.
pub const PORT: u16 = 8080;
/// Where the ConfigMap is mounted.
pub const GREETING: &str = "/etc/demo/greeting";
/// `GET /changed?from=WORD` is answered when the greeting is no longer that word.
pub const CHANGED: &str = "/changed?from=";
/// A request that does not come in this time is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a request's head that is read.
const MAX_HEAD_BYTES: usize = 4096;
/// Answered at once, the held ones too; a connection more is closed.
const MAX_CONNECTIONS: usize = 32;
/// Of the kernel's news that are read at once: what they say does not matter, only that they came.
const NEWS_BYTES: usize = 4096;

/// Serves until it is killed. SIGTERM ends it at once, as a pod's process 1 must arrange for itself.
pub fn serve() -> ExitCode {
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on {PORT}: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = end_on_term() {
        eprintln!("cannot listen for signals: {error}");
    }
    println!("serving on {PORT}");
    for stream in listener.incoming().flatten() {
        if OPEN.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            OPEN.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        std::thread::spawn(move || {
            if let Err(error) = answer(stream, Path::new(GREETING)) {
                eprintln!("a request was not answered: {error}");
            }
            OPEN.fetch_sub(1, Ordering::Relaxed);
        });
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream, greeting: &Path) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = [0; MAX_HEAD_BYTES];
    let mut filled = 0;
    while filled < head.len() && !head[..filled].windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut head[filled..])? {
            0 => return Ok(()), // a probe that only connects
            n => filled += n,
        }
    }
    let said = match from(&String::from_utf8_lossy(&head[..filled])) {
        Some(from) => changed(greeting, from)?,
        None => read(greeting),
    };
    let pod = std::env::var("POD_NAME").unwrap_or_default();
    let body = format!("{pod} {said}\n");
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The word that the asker knows already.
fn from(head: &str) -> Option<&str> {
    head.strip_prefix("GET ")?.strip_prefix(CHANGED)?.split(' ').next()
}

fn read(greeting: &Path) -> String {
    std::fs::read_to_string(greeting).unwrap_or_default().trim().to_owned()
}

/// Waits until the file says something else. A mounted ConfigMap changes by a rename in its directory.
fn changed(greeting: &Path, from: &str) -> io::Result<String> {
    let mut inotify = Inotify::init()?;
    let directory = greeting.parent().unwrap_or(greeting);
    inotify.watches().add(directory, WatchMask::MOVED_TO | WatchMask::CREATE | WatchMask::CLOSE_WRITE)?;
    let mut news = [0; NEWS_BYTES];
    loop {
        let said = read(greeting);
        if said != from {
            return Ok(said);
        }
        inotify.read_events_blocking(&mut news)?;
    }
}

fn end_on_term() -> nix::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit(2) is async-signal-safe.
        unsafe { libc::_exit(0) }
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler calls nothing but _exit(2).
    unsafe { sigaction(Signal::SIGTERM, &action) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_request_is_answered_by_the_change() {
        let directory = tempfile::tempdir().expect("a directory");
        let greeting = directory.path().join("greeting");
        std::fs::write(&greeting, "hello\n").expect("written");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (server, _) = listener.accept().expect("accepted");
        let file = greeting.clone();
        let held = std::thread::spawn(move || answer(server, &file));
        write!(client, "GET {CHANGED}hello HTTP/1.1\r\n\r\n").expect("sent");
        client.set_read_timeout(Some(Duration::from_millis(50))).expect("set");
        let early = client.read(&mut [0; 1]).expect_err("nothing is said before").kind();
        assert!(matches!(early, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        let fresh = directory.path().join("fresh");
        std::fs::write(&fresh, "good-day\n").and_then(|()| std::fs::rename(&fresh, &greeting)).expect("changed");
        client.set_read_timeout(None).expect("set");
        let mut text = String::new();
        client.read_to_string(&mut text).expect("answered");
        assert!(text.ends_with(" good-day\n"), "{text}");
        held.join().expect("no panic").expect("answered");
    }
}
