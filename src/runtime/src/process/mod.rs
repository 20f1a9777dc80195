//! What a process of a container is: its user, capabilities, filter, terminal, and the last step before its program runs.

pub(crate) mod capability;
pub(crate) mod execute;
pub(crate) mod pass;
pub(crate) mod seccomp;
mod syscall;
pub(crate) mod user;
