//! OCI runtimes of the node that a RuntimeClass may name: found by their programs when they are asked for, so that one that is installed later counts.

use std::{
    collections::BTreeMap,
    env,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The default runtime's own name: a class may name it too.
pub const OWN: &str = "coracle";
/// Handlers and their programs, by the names that the field's RuntimeClasses have.
const KNOWN: [(&str, &str); 11] = [
    ("crun", "crun"),
    ("gvisor", "runsc"),
    ("kata", "kata-runtime"),
    ("kata-qemu", "kata-runtime"),
    ("krun", "krun"),
    ("nvidia", "nvidia-container-runtime"),
    ("nvidia-cdi", "nvidia-container-runtime.cdi"),
    ("nvidia-legacy", "nvidia-container-runtime.legacy"),
    ("runc", "runc"),
    ("runsc", "runsc"),
    ("youki", "youki"),
];
/// Where programs are looked for beside PATH: a service's PATH is often short.
const DIRECTORIES: [&str; 8] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/nvidia/toolkit", "/opt/kata/bin"];

/// The handlers that are configured beside those that are known by name.
#[derive(Clone, Debug, Default)]
pub struct Handlers {
    /// Programs by handler; one of a known name takes its place.
    pub configured: BTreeMap<String, PathBuf>,
}

impl Handlers {
    /// The program of a handler, if it is on this machine.
    pub fn program(&self, handler: &str) -> Option<PathBuf> {
        if let Some(program) = self.configured.get(handler) {
            return is_program(program).then(|| program.clone());
        }
        let (_, program) = KNOWN.iter().find(|(name, _)| *name == handler)?;
        find(program)
    }

    /// The handlers that are here, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<&str> = KNOWN.iter().map(|(name, _)| *name).chain(self.configured.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|name| self.program(name).is_some()).map(str::to_owned).collect()
    }
}

/// A program of the node, by its name.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).filter(|dir| dir.is_absolute()).chain(DIRECTORIES.map(PathBuf::from));
    directories.map(|dir| dir.join(program)).find(|program| is_program(program))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_counts_while_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("mine");
        let handlers = Handlers { configured: [("mine".to_owned(), program.clone()), ("runc".to_owned(), program.clone())].into() };
        assert_eq!(handlers.program("mine"), None);
        std::fs::write(&program, "#!/bin/sh\n").unwrap();
        assert_eq!(handlers.program("mine"), None, "it cannot be executed");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(handlers.program("mine"), Some(program.clone()));
        assert_eq!(handlers.program("runc"), Some(program), "it takes the known one's place");
        assert_eq!(handlers.program("no-such"), None);
        assert!(handlers.names().windows(2).all(|pair| pair[0] < pair[1]) && handlers.names().contains(&"mine".to_owned()));
    }
}
