//! Container logs on disk in the field's (CRI) format: reading, following, rotating.

pub mod line;
pub mod read;
pub mod rotate;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

/// The files of one run, oldest first: rotated ones, then the current one.
pub fn files_of(current: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (current.parent(), current.file_name().and_then(|n| n.to_str())) else { return Vec::new() };
    let prefix = format!("{name}.");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut out: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(&prefix))).map(|e| e.path()).collect();
    // Names end in the time of rotation.
    out.sort();
    out.push(current.to_owned());
    out
}

/// The newest run of each container that has a log in a pod's directory.
pub fn attempts(pod_dir: &Path) -> BTreeMap<String, u32> {
    let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
    let newest = |container: &str| names(&pod_dir.join(container)).filter_map(|file| file.split('.').next()?.parse().ok()).max();
    names(pod_dir).filter_map(|container| newest(&container).map(|attempt| (container, attempt))).collect()
}

/// Removes all files of a run.
pub fn remove_run(dir: &Path, attempt: u32) {
    for file in files_of(&dir.join(format!("{attempt}.log"))) {
        let _ = fs::remove_file(file);
    }
}

/// The last words of a log, without the format: what stands in for a termination message.
pub fn last_text(path: &Path, lines: usize, bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        // The format costs some 40 bytes a line.
        file.seek(SeekFrom::Start(length.saturating_sub(bytes + 64 * lines as u64)))?;
        let mut out = Vec::new();
        file.read_to_end(&mut out)?;
        Ok(out)
    };
    let raw = read().unwrap_or_default();
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    for line in raw.split_inclusive(|b| *b == b'\n').filter_map(line::parse) {
        if last.len() == lines {
            last.pop_front();
        }
        last.push_back(line.text());
    }
    let text: Vec<u8> = last.into_iter().flatten().collect();
    let from = text.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    String::from_utf8_lossy(&text[from..]).into_owned()
}

/// Bytes of all files of a container's log directory.
pub fn bytes(dir: &Path) -> u64 {
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|e| e.metadata().ok()).map(|m| m.len()).sum()
}
