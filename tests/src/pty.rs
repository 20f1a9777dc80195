//! A program on a terminal of its own.

use std::{
    fs::File,
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus, Stdio},
};

use nix::pty::{Winsize, openpty};

use crate::screen::Screen;

/// A running program with the other end of its terminal.
#[derive(Debug)]
pub struct Terminal {
    child: Child,
    ours: File,
    screen: Screen,
}

impl Terminal {
    /// Starts the command as the leader of a session on a terminal of this size.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let pty = openpty(Some(&size(rows, columns)), None).expect("a terminal");
        let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().expect("a descriptor"));
        command.stdin(end(&pty.slave)).stdout(end(&pty.slave)).stderr(end(&pty.slave));
        // SAFETY: setsid(2) and ioctl(2) are async-signal-safe; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match libc::ioctl(0, libc::TIOCSCTTY, 0) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let child = command.spawn().expect("it can be started");
        let ours = File::from(pty.master);
        let screen = Screen::of(ours.try_clone().expect("a descriptor"));
        Self { child, ours, screen }
    }

    /// Types.
    pub fn say(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// As [`Screen::see`].
    pub fn see(&mut self, wanted: &str) -> String {
        self.screen.see(wanted)
    }

    /// As a window that is drawn larger.
    pub fn resize(&self, rows: u16, columns: u16) {
        // SAFETY: the descriptor is a terminal's and lives, the size is a winsize.
        let set = unsafe { libc::ioctl(self.ours.as_raw_fd(), libc::TIOCSWINSZ, &size(rows, columns)) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits for the program's end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
