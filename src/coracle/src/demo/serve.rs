//! The demo's server: says which pod it is and what its ConfigMap says.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    time::Duration,
};

/// Where it listens.
pub const PORT: u16 = 8080;
/// Where the ConfigMap is mounted.
pub const GREETING: &str = "/etc/demo/greeting";
/// A request that does not come in this time is none.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a request's head that is read.
const MAX_HEAD_BYTES: usize = 4096;

/// Serves until it is killed. SIGTERM ends it at once, as a pod's process 1 must arrange for itself.
pub fn serve() -> ExitCode {
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
        if let Err(error) = answer(stream) {
            eprintln!("a request was not answered: {error}");
        }
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = [0; MAX_HEAD_BYTES];
    let mut filled = 0;
    while filled < head.len() && !head[..filled].windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut head[filled..])? {
            0 => return Ok(()), // a probe that only connects
            n => filled += n,
        }
    }
    let pod = std::env::var("POD_NAME").unwrap_or_default();
    let body = format!("{pod} {}\n", std::fs::read_to_string(GREETING).unwrap_or_default().trim());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
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
