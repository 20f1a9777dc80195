//! Tells in an Event of the node when the machine as a whole ran out of memory and the kernel killed somebody for it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use coracle_client::{EventType, Recorder};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

/// The kernel's messages, one at each read.
const KMSG: &str = "/dev/kmsg";
/// The longest message that the kernel gives; a longer one would not be read at all.
const RECORD_BYTES: usize = 8 << 10;

/// Whom the kernel killed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Victim {
    name: String,
    pid: u64,
}

/// Follows the kernel's messages from now on until `stop`. Where they cannot be read nothing is told, as upstream.
pub async fn watch(recorder: Recorder, node: String, stop: CancellationToken) {
    let end = stop.run_until_cancelled(follow(&recorder, &node)).await;
    if let Some(Err(error)) = end {
        tracing::debug!(%error, "the kernel's messages are not read: nobody tells when the machine runs out of memory");
    }
}

async fn follow(recorder: &Recorder, node: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(KMSG)?;
    file.seek(SeekFrom::End(0))?;
    // SAFETY: a `File` has one descriptor, which it owns until it is dropped, after the `AsyncFd` around it.
    let messages = unsafe { AsyncFd::register(file) }?;
    let reference = || ObjectReference {
        kind: Some("Node".to_owned()),
        uid: Some(node.to_owned()),
        name: Some(node.to_owned()),
        ..ObjectReference::default()
    };
    loop {
        let mut ready = messages.readable().await?;
        // The buffer lives no longer than there is something to read.
        let mut record = vec![0; RECORD_BYTES];
        loop {
            match ready.try_io(|file| read(file.get_ref(), &mut record)) {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(length)) => {
                    if let Some(Victim { name, pid }) = victim(&String::from_utf8_lossy(&record[..length])) {
                        let message = format!("System OOM encountered, victim process: {name}, pid: {pid}");
                        recorder.event(&reference(), EventType::Warning, "SystemOOM", message);
                    }
                }
                // Messages were overwritten before they were read.
                Ok(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
    }
}

fn read(mut file: &File, into: &mut [u8]) -> io::Result<usize> {
    file.read(into)
}

/// The victim that a message names, if it is about the machine as a whole: one that went over its own limit is its pod's affair.
fn victim(record: &str) -> Option<Victim> {
    let (_, text) = record.split_once(';')?;
    let text = text.lines().next()?;
    let fields = text.strip_prefix("oom-kill:")?;
    if !fields.starts_with("constraint=CONSTRAINT_NONE,") || !fields.contains(",global_oom,") {
        return None;
    }
    // The name may have anything in it, also commas: it stands between these two.
    let (_, rest) = fields.rsplit_once(",task=")?;
    let (name, rest) = rest.rsplit_once(",pid=")?;
    let pid = rest.split(',').next()?.parse().ok()?;
    Some(Victim { name: name.to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_shortage_is_told() {
        let record = |fields: &str| format!("6,1234,98765432,-;oom-kill:{fields}\n SUBSYSTEM=x\n");
        let global =
            "constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a/b,task=stress,pid=4711,uid=0";
        assert_eq!(victim(&record(global)), Some(Victim { name: "stress".into(), pid: 4711 }));
        let odd = global.replace("task=stress", "task=a,b;c");
        assert_eq!(victim(&record(&odd)).map(|v| v.name), Some("a,b;c".into()));
        let own = "constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=c,mems_allowed=0,oom_memcg=/p,task_memcg=/p/c,task=sh,pid=9,uid=0";
        assert_eq!(victim(&record(own)), None);
        for other in ["", "6,1,2,-;usb 1-1: new device", "6,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,x,global_oom,task=a,pid=b"] {
            assert_eq!(victim(other), None, "{other:?}");
        }
    }
}
