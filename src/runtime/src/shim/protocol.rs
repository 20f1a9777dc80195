//! What the main process and a shim say to each other: a length and JSON over a unix socket, descriptors beside it.
//!
//! A connection carries one request. `Watch`, `Exec` and `Attach` keep theirs open; closing it ends the watch, the command, the attachment.
//! An older shim runs on beside a newer main process, so messages are only ever added to. Both sides ignore fields that they do not know; a shim refuses
//! an unknown request, the main process passes over an unknown event. A request of a later version goes only to shims whose `Who::protocol` has it.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::state::Life;
use crate::process::pass;

/// Of the messages below.
pub(crate) const VERSION: u32 = 1;
/// Bytes of one message: commands of an exec have up to 1 MiB in the API.
pub(crate) const MESSAGE_BYTES: usize = 2 << 20;

/// Asked of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Makes the container whose container.json stands in its directory. Answer: `Life`.
    Create { id: String },
    /// Answer: `Life`, running or (with `Failed`) exited.
    Start { id: String },
    /// To the container's init. Answer: `Done`.
    Signal { id: String, signal: i32 },
    /// Opens the log anew by name. Answer: `Done`.
    Reopen { id: String },
    /// Forgets a container that has exited. Answer: `Done`.
    Forget { id: String },
    /// Descriptors: stdin, stdout, stderr; or with `tty` a socket that the terminal is sent over. Answers: `Done` when it runs, `Exited`.
    Exec { id: String, command: Vec<String>, tty: bool },
    /// Descriptors: stdout and stderr, as asked. Answers: `Done` (with a descriptor of stdin, if asked), `Exited`.
    Attach { id: String, stdin: bool, stdout: bool, stderr: bool },
    /// Answers: `Done`, then an `Exit` for every container that exits.
    Watch,
    /// Answer: `Done`; then the shim is gone. Containers are to be gone before.
    Shutdown,
}

/// A shim's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    Life(Life),
    Exited(i32),
    Exit { id: String, life: Life },
    Failed(Failure),
}

/// Why not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// No such container.
    NotFound,
    /// The pod asks for something impossible.
    Invalid(String),
    /// The program could not be executed.
    Start(String),
    /// The machine refused.
    System(String),
}

/// A message as it is sent.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    if length > MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a message of more than {MESSAGE_BYTES} bytes")));
    }
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Reads one message from a blocking socket; `None` at its end.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>, descriptors: &mut Vec<OwnedFd>) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    if !fill(socket, &mut length, descriptors)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    if !fill(socket, &mut bytes, descriptors)? {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

fn fill(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut have = 0;
    while have < buffer.len() {
        match pass::receive(socket, &mut buffer[have..], descriptors)? {
            0 if have == 0 => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::AsFd, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn messages_pass_and_bad_ones_are_refused() {
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&encode(&Request::Signal { id: "x".into(), signal: 9 }).unwrap()).unwrap();
        let got: Request = receive(b.as_fd(), &mut vec![]).unwrap().unwrap();
        assert!(matches!(got, Request::Signal { signal: 9, .. }));
        a.write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert_eq!(receive::<Request>(b.as_fd(), &mut vec![]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (mut a, b) = UnixStream::pair().unwrap();
        a.write_all(&[9, 0, 0, 0, b'{']).unwrap();
        drop(a);
        assert_eq!(receive::<Request>(b.as_fd(), &mut vec![]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(receive::<Request>(b.as_fd(), &mut vec![]).unwrap().is_none());
    }
}
