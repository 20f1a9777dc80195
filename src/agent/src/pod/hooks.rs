//! Lifecycle hooks: exec, httpGet, tcpSocket, sleep.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;

use crate::{
    context::Context,
    probe::ask::{self, Target, Unwell},
};

/// A postStart hook may take as long as it likes; this is where its connection or command is given up.
pub const POST_START: Duration = Duration::from_secs(3600);

/// Runs a hook to its end.
pub async fn run(ctx: &Context, target: &Target, hook: &LifecycleHandler, timeout: Duration) -> Result<(), Unwell> {
    if let Some(exec) = &hook.exec {
        return ask::command(&ctx.runtime, target, exec.command.as_deref().unwrap_or_default(), timeout).await;
    }
    let work = async {
        if let Some(get) = &hook.http_get {
            return ask::http_call(target, get).await;
        }
        if hook.tcp_socket.is_some() {
            return Err(Unwell::Failed("invalid handler: a hook cannot be a tcpSocket".to_owned()));
        }
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        Ok(())
    };
    tokio::time::timeout(timeout, work).await.unwrap_or_else(|_| Err(Unwell::Failed(format!("not done within {} s", timeout.as_secs()))))
}
