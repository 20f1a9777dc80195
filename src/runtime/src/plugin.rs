//! Runs a helper program to its end: one document in, one document out, in bounded time and memory. Credential providers are such programs.

use std::{io, path::Path, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// Bytes of what it says; more is no answer.
const OUTPUT_BYTES: u64 = 1 << 20;
/// Bytes of its complaints that are told on.
const COMPLAINT_BYTES: u64 = 4 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// it cannot be started, or talked to
    #[error("cannot run it")]
    Io(#[from] io::Error),
    /// it takes too long
    #[error("it does not end within {0:?}")]
    Late(Duration),
    /// it says too much
    #[error("it answers with more than {OUTPUT_BYTES} bytes")]
    TooLong,
    /// it failed
    #[error("it ends with {status}: {complaint}")]
    Failed {
        /// Its exit code or signal.
        status: String,
        /// What it wrote to standard error.
        complaint: String,
    },
}

/// Runs `program` with `input` on its standard input; what it writes to standard output. It is killed, with all that it started, when it is late
/// or nobody waits for it any more.
pub async fn run(
    program: &Path,
    args: &[String],
    env: &[(String, String)],
    input: &[u8],
    patience: Duration,
) -> Result<Vec<u8>, PluginError> {
    let mut command = Command::new(program);
    command.args(args).envs(env.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let _group = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)).map(Group);
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that does not read its question has its reasons, and tells them by its exit code.
            let _ = stdin.write_all(input).await;
        }
    };
    let all = async {
        let ((), out, complaint) = tokio::join!(feed, read(stdout, OUTPUT_BYTES + 1), read(stderr, COMPLAINT_BYTES));
        Ok::<_, io::Error>((out?, complaint?, child.wait().await?))
    };
    let (out, complaint, status) = tokio::time::timeout(patience, all).await.map_err(|_| PluginError::Late(patience))??;
    if out.len() as u64 > OUTPUT_BYTES {
        return Err(PluginError::TooLong);
    }
    if !status.success() {
        return Err(PluginError::Failed { status: status.to_string(), complaint: String::from_utf8_lossy(&complaint).trim().to_owned() });
    }
    Ok(out)
}

/// So much of what it says; its pipe is closed then.
async fn read(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// The processes of a plugin; none of them stays.
struct Group(rustix::process::Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process_group(self.0, rustix::process::Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(text: &str, input: &str) -> Result<String, PluginError> {
        let args = ["-c".to_owned(), text.to_owned()];
        let env = [("NAME".to_owned(), "value".to_owned())];
        let out = run(Path::new("/bin/sh"), &args, &env, input.as_bytes(), Duration::from_secs(20)).await?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn it_is_asked_and_answers() {
        assert_eq!(shell("echo $NAME $(cat)", "question").await.unwrap(), "value question\n");
        assert_eq!(shell("echo answer", &"x".repeat(1 << 20)).await.unwrap(), "answer\n", "it need not read");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told() {
        match shell("echo no key >&2; exit 3", "").await {
            Err(PluginError::Failed { status, complaint }) => {
                assert!(status.contains('3') && complaint == "no key", "{status} {complaint}")
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(shell("cat /dev/zero", "").await, Err(PluginError::TooLong)));
        let none = run(Path::new("/none"), &[], &[], b"", Duration::from_secs(1)).await;
        assert!(matches!(none, Err(PluginError::Io(_))), "{none:?}");
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let text = format!("exec 3<>{0}; sleep 1000 & echo begun > {0}; wait", fifo.display());
        let args = ["-c".to_owned(), text];
        let hangs = run(Path::new("/bin/sh"), &args, &[], b"", Duration::from_secs(2));
        // The end of the file is told when the last of them is gone.
        let told = tokio::task::spawn_blocking(move || std::fs::read_to_string(fifo).unwrap());
        let late = hangs.await;
        assert!(matches!(late, Err(PluginError::Late(_))), "{late:?}");
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), told).await.unwrap().unwrap(), "begun\n");
    }
}
