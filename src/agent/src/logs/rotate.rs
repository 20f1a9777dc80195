//! Rotation: a log that has grown is renamed with the time, the shim opens it anew, the oldest files go.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

/// What to do about a run's log. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The new name of the current file.
    pub rename_to: PathBuf,
    /// Files that go.
    pub remove: Vec<PathBuf>,
}

/// Rotates when the current file (the last of `files`) has `size` >= `max_bytes`; keeps `max_files` with the new one.
pub fn plan(files: &[PathBuf], size: u64, max_bytes: u64, max_files: usize, now: Timestamp) -> Option<Rotation> {
    let (current, old) = files.split_last()?;
    if size < max_bytes {
        return None;
    }
    let mut name = current.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    // The new current file and the one that is renamed stay in any case.
    let surplus = (old.len() + 2).saturating_sub(max_files.max(2));
    Some(Rotation { rename_to: name.into(), remove: old[..surplus.min(old.len())].to_vec() })
}

/// Carries a rotation out; the log is then to be opened anew.
pub fn carry_out(current: &Path, rotation: &Rotation) -> io::Result<()> {
    for file in &rotation.remove {
        fs::remove_file(file)?;
    }
    fs::rename(current, &rotation.rename_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go() {
        let now = "2026-01-02T03:04:05Z".parse().expect("a time");
        let files = |n: usize| (0..n).map(|i| PathBuf::from(format!("0.log.{i}"))).chain(["0.log".into()]).collect::<Vec<_>>();
        assert_eq!(plan(&files(0), 9, 10, 5, now), None);
        let first = plan(&files(0), 10, 10, 5, now).expect("a rotation");
        assert_eq!(first, Rotation { rename_to: "0.log.20260102-030405".into(), remove: vec![] });
        assert_eq!(plan(&files(3), 10, 10, 5, now).expect("a rotation").remove, Vec::<PathBuf>::new());
        assert_eq!(plan(&files(4), 10, 10, 5, now).expect("a rotation").remove, [PathBuf::from("0.log.0")]);
        assert_eq!(plan(&files(9), 10, 10, 2, now).expect("a rotation").remove.len(), 9);
    }
}
