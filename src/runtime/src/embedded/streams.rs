//! Commands and attachments: the ends of pipes and terminals that the agent reads and writes.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::unix::pipe,
    sync::{mpsc, oneshot},
};

use super::client::{self, Open};
use crate::{
    AttachRequest, ExecRequest, ExecResult, RuntimeError, Streams, TerminalSize,
    process::pass,
    shim::protocol::{Reply, Request},
};

/// Bytes of each stream that `exec_sync` gives back.
const SYNC_BYTES: usize = 16 * 1024;
/// How long a command that has ended may keep its output open by processes that it left.
const LEFT_OPEN: Duration = Duration::from_millis(500);
/// Sizes of a terminal that wait to be set.
const SIZES: usize = 8;
/// Exit code of what was killed: 128 + SIGKILL.
const KILLED: i32 = 137;

fn failed(source: io::Error) -> RuntimeError {
    RuntimeError::System { what: "could not pass streams".to_owned(), source }
}

fn null() -> io::Result<OwnedFd> {
    Ok(std::fs::File::options().read(true).write(true).open("/dev/null")?.into())
}

fn pair(wanted: bool, theirs_reads: bool) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    if !wanted {
        return Ok((null()?, None));
    }
    let (from, to) = io::pipe()?;
    Ok(if theirs_reads { (from.into(), Some(to.into())) } else { (to.into(), Some(from.into())) })
}

fn reader(fd: OwnedFd) -> io::Result<Box<dyn AsyncRead + Send + Unpin>> {
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd)?))
}

fn writer(fd: OwnedFd) -> io::Result<Box<dyn AsyncWrite + Send + Unpin>> {
    Ok(Box::new(pipe::Sender::from_owned_fd(fd)?))
}

/// Starts a command in a container.
pub(super) async fn exec(dir: &Path, id: &str, request: &ExecRequest) -> Result<Streams, RuntimeError> {
    let ask = Request::Exec { id: id.to_owned(), command: request.command.clone(), tty: request.tty };
    if !request.tty {
        let (stdin, our_stdin) = pair(request.stdin, true).map_err(failed)?;
        let (stdout, our_stdout) = pair(request.stdout, false).map_err(failed)?;
        let (stderr, our_stderr) = pair(request.stderr, false).map_err(failed)?;
        let (_, open) = client::open(dir, ask, vec![stdin, stdout, stderr]).await?;
        return Ok(Streams {
            stdin: our_stdin.map(writer).transpose().map_err(failed)?,
            stdout: our_stdout.map(reader).transpose().map_err(failed)?,
            stderr: our_stderr.map(reader).transpose().map_err(failed)?,
            resize: None,
            exit: exit(open),
        });
    }
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let (_, open) = client::open(dir, ask, vec![theirs.into()]).await?;
    // The terminal was sent before the command began, and that it began is what the answer says.
    let mut descriptors = Vec::new();
    pass::receive(ours.as_fd(), &mut [0; 1], &mut descriptors).map_err(failed)?;
    let terminal = Terminal::new(descriptors.pop().ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?).map_err(failed)?;
    Ok(Streams {
        stdin: request.stdin.then(|| Box::new(terminal.clone()) as Box<_>),
        stdout: request.stdout.then(|| Box::new(terminal.clone()) as Box<_>),
        stderr: None,
        resize: Some(resizer(terminal)),
        exit: exit(open),
    })
}

/// Joins the streams of a container's init.
pub(super) async fn attach(dir: &Path, id: &str, tty: bool, request: &AttachRequest) -> Result<Streams, RuntimeError> {
    let (mut theirs, mut ours) = (Vec::new(), [None, None]);
    let wanted = [request.stdout, request.stderr && !tty];
    for (wanted, ours) in wanted.into_iter().zip(&mut ours) {
        if wanted {
            let (their_end, our_end) = pair(true, false).map_err(failed)?;
            theirs.push(their_end);
            *ours = our_end;
        }
    }
    // Even without stdin a terminal is asked for: its size may be set.
    let ask = Request::Attach { id: id.to_owned(), stdin: request.stdin || tty, stdout: wanted[0], stderr: wanted[1] };
    let (_, mut open) = client::open(dir, ask, theirs).await?;
    let input = open.descriptors.pop();
    let (mut stdin, mut resize) = (None, None);
    if tty {
        if let Some(terminal) = input.map(Terminal::new).transpose().map_err(failed)? {
            stdin = request.stdin.then(|| Box::new(terminal.clone()) as Box<_>);
            resize = Some(resizer(terminal));
        }
    } else if request.stdin {
        stdin = input.map(writer).transpose().map_err(failed)?;
    }
    let [stdout, stderr] = ours.map(|fd| fd.map(reader).transpose().map_err(failed));
    Ok(Streams { stdin, stdout: stdout?, stderr: stderr?, resize, exit: exit(open) })
}

/// Runs a command to its end.
pub(super) async fn exec_sync(dir: &Path, id: &str, command: &[String], timeout: Option<Duration>) -> Result<ExecResult, RuntimeError> {
    let request = ExecRequest { command: command.to_vec(), stdin: false, stdout: true, stderr: true, tty: false };
    let streams = exec(dir, id, &request).await?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let output = async { tokio::join!(collect(streams.stdout, &mut stdout), collect(streams.stderr, &mut stderr)) };
    let whole = async {
        tokio::pin!(output);
        let mut exit = streams.exit;
        tokio::select! {
            _ = &mut output => exit.await,
            code = &mut exit => {
                let _ = tokio::time::timeout(LEFT_OPEN, output).await;
                code
            }
        }
    };
    let ended = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, whole).await,
        None => Ok(whole.await),
    };
    Ok(match ended {
        Ok(code) => ExecResult { exit_code: code.unwrap_or(KILLED), stdout, stderr, timed_out: false },
        Err(_) => ExecResult { exit_code: KILLED, stdout, stderr, timed_out: true },
    })
}

/// Keeps the first bytes and reads the rest to nothing, so that the command does not wait.
async fn collect(from: Option<Box<dyn AsyncRead + Send + Unpin>>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = SYNC_BYTES - into.len();
        into.extend_from_slice(&buffer[..n.min(room)]);
    }
}

/// The exit code when it comes. Dropping the receiver closes the connection, and with it ends the command.
fn exit(open: Open) -> oneshot::Receiver<i32> {
    let (mut tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut socket = open.socket;
        tokio::select! {
            () = tell.closed() => {}
            reply = client::next::<Reply>(&mut socket) => {
                let code = match reply {
                    Ok(Some(Reply::Exited(code))) => code,
                    // The shim is gone, and nobody will ever know.
                    _ => KILLED,
                };
                let _ = tell.send(code);
            }
        }
    });
    told
}

fn resizer(terminal: Terminal) -> mpsc::Sender<TerminalSize> {
    let (send, mut sizes) = mpsc::channel::<TerminalSize>(SIZES);
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            let size = rustix::termios::Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
            // The terminal may be gone with its command.
            let _ = rustix::termios::tcsetwinsize(terminal.0.get_ref(), size);
        }
    });
    send
}

/// The near end of a terminal, for several users.
#[derive(Clone)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // SAFETY: an owned descriptor keeps its number until it is dropped.
        Ok(Self(Arc::new(unsafe { AsyncFd::register(fd) }?)))
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            match guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *space)?)) {
                // So a terminal ends whose last program is gone.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(result) => {
                    buffer.advance(result?);
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            if let Ok(result) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A terminal's input has no end but the character for it.
        Poll::Ready(rustix::io::write(self.0.get_ref(), &[4]).map(drop).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_keeps_the_first_bytes_and_takes_the_rest() {
        let text = vec![b'x'; SYNC_BYTES + 5000];
        let mut kept = Vec::new();
        collect(Some(Box::new(io::Cursor::new(text))), &mut kept).await;
        assert_eq!(kept.len(), SYNC_BYTES);
    }
}
