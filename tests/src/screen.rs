//! What a program shows, waited for as it comes.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What is waited for comes in this time, or not at all; generous, because tests share the machine.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Text that comes piece by piece.
#[derive(Debug)]
pub struct Screen {
    news: Receiver<Vec<u8>>,
    seen: String,
}

impl Screen {
    /// Of whatever the reader gives until its end.
    pub fn of(mut reader: impl Read + Send + 'static) -> Self {
        let (tell, news) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal's read fails when the last program has left it: that is its end.
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if tell.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { news, seen: String::new() }
    }

    /// Waits until this was shown, since the last wait; what was shown until its end.
    pub fn see(&mut self, wanted: &str) -> String {
        let began = Instant::now();
        loop {
            if let Some(at) = self.seen.find(wanted) {
                let rest = self.seen.split_off(at + wanted.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let more = self.news.recv_timeout(LIMIT.saturating_sub(began.elapsed()));
            let more = more.unwrap_or_else(|e| panic!("{wanted:?} was not shown ({e}): {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
    }
}

/// A program in the background whose standard output is followed; ended with the test.
#[derive(Debug)]
pub struct Follow {
    child: Child,
    screen: Screen,
}

impl Follow {
    /// Starts it.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let screen = Screen::of(child.stdout.take().expect("piped"));
        Self { child, screen }
    }

    /// As [`Screen::see`].
    pub fn see(&mut self, wanted: &str) -> String {
        self.screen.see(wanted)
    }

    /// The rest of the line that was seen last.
    pub fn line(&mut self) -> String {
        self.screen.see("\n").trim().to_owned()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it lives");
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
