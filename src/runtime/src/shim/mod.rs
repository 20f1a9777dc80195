//! The shim: a process per pod that outlives the main one. It holds the pod's namespaces, is the parent of its containers, writes their logs and keeps
//! their exit codes. One thread, a poll loop, no reactor; what takes long or could fail badly happens in its children.

mod attach;
mod bundle;
mod contained;
mod create;
mod devices;
mod enter;
mod exits;
mod foreign;
mod jobs;
pub(crate) mod log;
mod nodes;
mod oci;
mod overlay;
mod place;
pub(crate) mod protocol;
mod requests;
mod root;
mod sandbox;
mod serve;
mod spawn;
pub(crate) mod state;
pub(crate) mod tree;
mod users;

use std::{path::Path, process::ExitCode};

/// The shim of the sandbox whose state is in `dir`; returns when it is told to shut down.
pub(crate) fn main(dir: &Path) -> ExitCode {
    match sandbox::open(dir).and_then(serve::Shim::new) {
        Ok(shim) => {
            sandbox::tell("ready");
            shim.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            sandbox::tell(&error);
            ExitCode::FAILURE
        }
    }
}
