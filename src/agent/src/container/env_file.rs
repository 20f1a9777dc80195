//! Variables from a file that a container of the pod left in an emptyDir (KEP-3721): found without leaving the volume, read within bounds.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::volume;

/// Bytes of such a file; an environment has no use for more.
const FILE_BYTES: u64 = 64 << 10;

/// What the files that a container's variables name have in them, by volume and path: their variables, `None` where there is no file, or
/// what is wrong with it.
pub type Files = BTreeMap<(String, String), Result<Option<BTreeMap<String, String>>, FileError>>;

/// Why a file gives no variables (`CreateContainerConfigError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// the pod has no emptyDir of this name
    #[error("the pod has no emptyDir {0:?}")]
    Volume(String),
    /// it is not a file inside the volume
    #[error("{0} is not a file inside the volume")]
    Outside(String),
    /// it cannot be read
    #[error("{path} cannot be read: {why}")]
    Unreadable {
        /// In the volume.
        path: String,
        /// In the kernel's words.
        why: String,
    },
    /// line 3 of f is not VAR='value'
    #[error("line {line} of {path} is not VAR='value'")]
    Syntax {
        /// In the volume.
        path: String,
        /// From 1.
        line: usize,
    },
}

/// Reads all files that variables of `container` come from. `pod_dir` has the pod's volumes.
pub fn read(pod: &Pod, container: &Container, pod_dir: &Path) -> Files {
    let named = container.env.iter().flatten().filter_map(|v| v.value_from.as_ref()?.file_key_ref.as_ref());
    named.map(|r| ((r.volume_name.clone(), r.path.clone()), one(pod, &r.volume_name, &r.path, pod_dir))).collect()
}

/// Whether any variable comes from a file.
pub fn is_asked_for(container: &Container) -> bool {
    container.env.iter().flatten().any(|v| v.value_from.as_ref().is_some_and(|from| from.file_key_ref.is_some()))
}

fn one(pod: &Pod, volume: &str, path: &str, pod_dir: &Path) -> Result<Option<BTreeMap<String, String>>, FileError> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let found = volumes.iter().find(|v| v.name == volume && v.empty_dir.is_some()).ok_or_else(|| FileError::Volume(volume.to_owned()))?;
    let unreadable = |error: io::Error| FileError::Unreadable { path: path.to_owned(), why: error.to_string() };
    match text(&volume::mount::path(pod_dir, found), path) {
        Ok(None) => Err(FileError::Outside(path.to_owned())),
        Ok(Some(text)) => parse(&text).map(Some).map_err(|line| FileError::Syntax { path: path.to_owned(), line }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => match error.raw_os_error() {
            Some(libc::EXDEV | libc::ELOOP) => Err(FileError::Outside(path.to_owned())),
            _ => Err(unreadable(error)),
        },
    }
}

/// The text of a plain file; `None` for what is none. A pipe that a container planted is not waited for.
fn text(volume: &Path, path: &str) -> io::Result<Option<String>> {
    let root = rustix::fs::open(volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut text = String::new();
    if file.take(FILE_BYTES + 1).read_to_string(&mut text)? as u64 > FILE_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(Some(text))
}

/// The variables of a text: `VAR='value'` with spaces around, values of several lines, comments on lines of their own. The error is the
/// line, from 1, that is none of these.
fn parse(text: &str) -> Result<BTreeMap<String, String>, usize> {
    let mut out = BTreeMap::new();
    let (mut rest, mut line) = (text, 1);
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if first.trim().is_empty() || first.trim_start().starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let (name, value) = first.split_once('=').ok_or(line)?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '\'' | '"')) {
            return Err(line);
        }
        let begins = rest.len() - after_spaces(rest, first, value).len();
        let quoted = rest[begins..].strip_prefix('\'').ok_or(line)?;
        let (value, behind) = quoted.split_once('\'').ok_or(line)?;
        let (tail, after) = behind.split_once('\n').unwrap_or((behind, ""));
        line += value.matches('\n').count();
        if !tail.trim().is_empty() {
            return Err(line);
        }
        out.insert(name.to_owned(), value.to_owned());
        (rest, line) = (after, line + 1);
    }
    Ok(out)
}

/// What of `rest` begins with the value of its first line.
fn after_spaces<'a>(rest: &'a str, first: &str, value: &str) -> &'a str {
    rest[first.len() - value.len()..].trim_start_matches([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(text: &str, want: Result<&[(&str, &str)], usize>) {
        let want = want.map(|list| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        assert_eq!(parse(text), want, "{text:?}");
    }

    #[test]
    fn values_are_quoted_and_literal() {
        check("", Ok(&[]));
        check("\n  # a comment\n A = 'x y' \nB='$A # \\n \"q\"'\n", Ok(&[("A", "x y"), ("B", "$A # \\n \"q\"")]));
        check("A='one\n two\n'\nB=''", Ok(&[("A", "one\n two\n"), ("B", "")]));
        check("A='1'\nA='2'", Ok(&[("A", "2")]));
        check("A='1'\r\nB='2'\r\n", Ok(&[("A", "1"), ("B", "2")]));
        for (text, line) in [
            ("A=1", 1),
            ("\nA=\"1\"", 2),
            ("A='1''2'", 1),
            ("A='1' # no comment", 1),
            ("A='1\n2'$B", 2),
            ("A='open\n", 1),
            ("export A='1'", 1),
            ("='1'", 1),
            ("A\n", 1),
            ("# fine\nA='1\n2'\nB", 4),
        ] {
            check(text, Err(line));
        }
    }

    #[test]
    fn only_a_plain_file_of_the_volume_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [],
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "h", "hostPath": { "path": "/etc" } }] } }))
        .expect("a pod");
        let volume = volume::mount::path(dir.path(), &pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).expect("volumes")[0]);
        std::fs::create_dir_all(&volume).expect("made");
        std::fs::write(volume.join("good"), "A='1'").expect("written");
        std::fs::write(volume.join("large"), "#".repeat(FILE_BYTES as usize + 1)).expect("written");
        std::os::unix::fs::symlink("/etc/hostname", volume.join("out")).expect("linked");
        std::os::unix::fs::symlink("good", volume.join("in")).expect("linked");
        nix::unistd::mkfifo(&volume.join("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("made");
        let get = |name: &str, path: &str| one(&pod, name, path, dir.path());
        let some = Ok(Some(BTreeMap::from([("A".to_owned(), "1".to_owned())])));
        assert_eq!((get("v", "good"), get("v", "in"), get("v", "none")), (some.clone(), some, Ok(None)));
        for path in ["out", "pipe", "../x", "."] {
            assert_eq!(get("v", path), Err(FileError::Outside(path.into())));
        }
        assert!(matches!(get("v", "large"), Err(FileError::Unreadable { .. })));
        assert_eq!(get("h", "passwd"), Err(FileError::Volume("h".into())));
    }
}
