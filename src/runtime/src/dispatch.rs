//! The hidden subcommands: the program is also the shim of its pods, and the network plugin of another runtime's.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// What the program is called with to be a pod's shim.
pub(crate) const SHIM: &str = "__shim";

/// Runs a hidden subcommand and gives its exit code; `None` when the arguments (without the program's name) are for the program itself.
/// To be called first in `main`, while the process has one thread and nothing of an asynchronous runtime in it.
pub fn dispatch(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter();
    let Some(first) = args.next() else {
        // A plugin is called without arguments.
        return crate::cri::cni::called();
    };
    if first != SHIM {
        return None;
    }
    Some(match args.next() {
        Some(dir) => crate::shim::main(&PathBuf::from(dir)),
        None => {
            eprintln!("{SHIM} is for coracle itself and takes the directory of a sandbox");
            ExitCode::from(2)
        }
    })
}
