//! Writes a volume's files so that a reader sees all of the old or all of the new: a directory of its own, and one renamed symlink.
//!
//! The layout is the field's: `name -> ..data/name`, `..data -> ..<time>`, so that programs that watch `..data` go on working.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::payload::{File, Payload};

/// The symlink to what is valid.
const DATA: &str = "..data";
/// Where it is made before it is renamed.
const DATA_NEW: &str = "..data_tmp";

/// Why a volume could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}")]
pub struct WriteError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

fn at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> WriteError + 'a {
    move |source| WriteError { what, path: path.to_owned(), source }
}

/// Makes `dir` hold `payload` and nothing else; `group` gets what `fsGroup` promises. Returns whether anything changed.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> Result<bool, WriteError> {
    let data = dir.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.as_ref().is_some_and(|old| holds(&dir.join(old), payload, group)) {
        return Ok(false);
    }
    let name = format!("..{}.{:09}", now.strftime("%Y_%m_%d_%H_%M_%S"), now.subsec_nanosecond());
    let new = dir.join(&name);
    fs::create_dir(&new).map_err(at("make", &new))?;
    let dir_mode = if group.is_some() { 0o2755 } else { 0o755 };
    own(&new, None, group, dir_mode).map_err(at("open up", &new))?;
    for (path, file) in payload {
        place(&new, path, file, group, dir_mode)?;
    }
    let link = dir.join(DATA_NEW);
    let _ = fs::remove_file(&link);
    symlink(&name, &link).map_err(at("link", &link))?;
    fs::rename(&link, &data).map_err(at("rename to", &data))?;
    show(dir, payload)?;
    remove_old(dir, &name)?;
    Ok(true)
}

/// Removes what was valid before, and what a write that was cut off has left.
fn remove_old(dir: &Path, current: &str) -> Result<(), WriteError> {
    for entry in fs::read_dir(dir).map_err(at("list", dir))?.flatten() {
        let name = entry.file_name();
        let hidden = name.to_str().is_some_and(|n| n.starts_with("..") && n != current);
        // Not a link: `..data` is one.
        if hidden && entry.file_type().is_ok_and(|t| t.is_dir()) {
            let old = entry.path();
            fs::remove_dir_all(&old).map_err(at("remove", &old))?;
        }
    }
    Ok(())
}

fn place(root: &Path, path: &str, file: &File, group: Option<u32>, dir_mode: u32) -> Result<(), WriteError> {
    let full = root.join(path);
    let mut above = root.to_owned();
    for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
        above.push(part);
        if !above.is_dir() {
            fs::create_dir(&above).map_err(at("make", &above))?;
            own(&above, None, group, dir_mode).map_err(at("open up", &above))?;
        }
    }
    fs::write(&full, &file.data).map_err(at("write", &full))?;
    own(&full, file.owner, group, file_mode(file, group)).map_err(at("open up", &full))
}

fn file_mode(file: &File, group: Option<u32>) -> u32 {
    // A group that is given a volume can read it.
    if group.is_some() { file.mode | 0o440 } else { file.mode }
}

fn own(path: &Path, owner: Option<u32>, group: Option<u32>, mode: u32) -> io::Result<()> {
    if owner.is_some() || group.is_some() {
        chown(path, owner, group)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// The links that users see, for the first part of every path.
fn show(dir: &Path, payload: &Payload) -> Result<(), WriteError> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|p| p.split('/').next()).collect();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link).map_err(at("link", &link))?;
        }
    }
    for entry in fs::read_dir(dir).map_err(at("list", dir))?.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("..") && !wanted.contains(name) {
            let path = entry.path();
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(())
}

/// Whether a directory holds exactly the payload.
fn holds(dir: &Path, payload: &Payload, group: Option<u32>) -> bool {
    let mut found = 0;
    let same = walk(dir, &mut |path| {
        found += 1;
        let Some(file) = path.strip_prefix(dir).ok().and_then(Path::to_str).and_then(|p| payload.get(p)) else { return false };
        let mode = fs::metadata(path).map(|m| m.permissions().mode() & 0o7777);
        mode.is_ok_and(|m| m == file_mode(file, group)) && fs::read(path).is_ok_and(|d| d == file.data)
    });
    same && found == payload.len()
}

fn walk(dir: &Path, check: &mut impl FnMut(&Path) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().all(|e| {
        let path = e.path();
        if path.is_dir() { walk(&path, check) } else { check(&path) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files.iter().map(|(p, d)| ((*p).to_owned(), File { data: d.as_bytes().to_vec(), mode: 0o640, owner: None })).collect()
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut out: Vec<String> =
            fs::read_dir(dir).expect("a directory").flatten().map(|e| e.file_name().into_string().expect("utf8")).collect();
        out.retain(|n| !n.starts_with("..2") && !n.starts_with("..1"));
        out.sort();
        out
    }

    #[test]
    fn files_change_together_and_old_ones_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let at = |second: i64| Timestamp::from_second(1_700_000_000 + second).expect("a time");
        assert!(write(dir, &payload(&[("a", "1"), ("d/b", "2")]), None, at(0)).expect("written"));
        assert_eq!(names(dir), ["..data", "a", "d"]);
        assert_eq!(fs::read_to_string(dir.join("d/b")).expect("read"), "2");
        assert_eq!(fs::read_link(dir.join("a")).expect("a link"), Path::new("..data/a"));
        assert_eq!(fs::metadata(dir.join("a")).expect("there").permissions().mode() & 0o777, 0o640);
        let before = fs::read_link(dir.join(DATA)).expect("a link");
        assert!(!write(dir, &payload(&[("a", "1"), ("d/b", "2")]), None, at(1)).expect("unchanged"));
        assert_eq!(fs::read_link(dir.join(DATA)).expect("a link"), before, "nothing is touched when nothing changes");
        assert!(write(dir, &payload(&[("a", "3"), ("c", "4")]), None, at(2)).expect("written"));
        assert_eq!(names(dir), ["..data", "a", "c"]);
        assert_eq!(fs::read_to_string(dir.join("a")).expect("read"), "3");
        assert!(!dir.join(before).exists(), "the old directory is gone");
        fs::create_dir(dir.join("..2001_01_01_00_00_00.1")).expect("left by a write that was cut off");
        assert!(write(dir, &payload(&[]), None, at(3)).expect("written"));
        assert_eq!(names(dir), ["..data"]);
        assert!(!dir.join("..2001_01_01_00_00_00.1").exists());
    }
}
