//! What a container left: the termination message, and a runtime's container as a run of its pod.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use coracle_runtime::{ContainerState, ContainerStatus};
use k8s_openapi::api::core::v1::Pod;

use super::{
    life::{Ended, Run, RunState},
    spec::Part,
};
use crate::{context::Context, logs};

/// Bytes of a termination message.
const MESSAGE_BYTES: u64 = 4096;
/// Bytes of log that stand in for it.
const FALLBACK_BYTES: u64 = 2048;
/// Lines of log that stand in for it.
const FALLBACK_LINES: usize = 80;

/// Where a run's termination message is written.
pub fn file(pod_dir: &Path, name: &str, attempt: u32) -> PathBuf {
    pod_dir.join("containers").join(name).join(attempt.to_string())
}

/// The run that a runtime's container is. One that was made and not started is no run yet.
pub fn run_of(ctx: &Context, pod: &Pod, part: &Part, status: &ContainerStatus) -> Run {
    let state = match &status.state {
        ContainerState::Created => RunState::Running { started_at: status.created_at },
        ContainerState::Running { started_at } => RunState::Running { started_at: *started_at },
        ContainerState::Exited { .. } => RunState::Ended(ended(ctx, pod, part, status)),
    };
    Run {
        id: status.spec.id.clone(),
        attempt: status.spec.attempt,
        image_id: status.image_id.clone(),
        user: status.user.clone(),
        limits: Some(status.spec.resources.clone()),
        state,
    }
}

/// How a container ended, with its message.
fn ended(ctx: &Context, pod: &Pod, part: &Part, status: &ContainerStatus) -> Ended {
    let ContainerState::Exited { started_at, finished_at, exit_code, reason, message, .. } = &status.state else {
        return Ended {
            id: status.spec.id.id.clone(),
            started_at: None,
            finished_at: status.created_at,
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: String::new(),
        };
    };
    let mut text = read(&file(&ctx.pod_dir(pod), &part.spec.name, status.spec.attempt));
    let fallback = part.spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    if text.is_empty() && fallback && *exit_code != 0 {
        let log = ctx.log_dir(pod).join(&status.spec.log_path);
        text = logs::last_text(&log, FALLBACK_LINES, FALLBACK_BYTES);
    }
    if text.is_empty() {
        text.clone_from(message);
    }
    Ended {
        id: status.spec.id.id.clone(),
        started_at: *started_at,
        finished_at: *finished_at,
        exit_code: *exit_code,
        reason: reason.clone(),
        message: text,
    }
}

/// The end of a message file.
fn read(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MESSAGE_BYTES)))?;
        let mut out = Vec::new();
        file.take(MESSAGE_BYTES).read_to_end(&mut out)?;
        Ok(out)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
