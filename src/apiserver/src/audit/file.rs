//! The audit log's file: appended to, and replaced when it is full. Older files carry the time of that in their names, as upstream's do.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

/// How the time stands in the name of an older file.
const TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// What the disk may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A file that would be larger is replaced.
    pub file_bytes: u64,
    /// Older files that are kept; 0 is all.
    pub backups: usize,
    /// How long they are kept; zero is for ever.
    pub age: Duration,
}

impl Default for Bounds {
    /// 64 MiB in all: some 80,000 writes.
    fn default() -> Self {
        Self { file_bytes: 16 << 20, backups: 3, age: Duration::ZERO }
    }
}

/// The file that is written now.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    bounds: Bounds,
    file: File,
    bytes: u64,
}

impl LogFile {
    /// Goes on where the file ends.
    pub fn open(path: &Path, bounds: Bounds) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            fs::create_dir_all(directory)?;
        }
        let file = append_to(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), bounds, file, bytes })
    }

    /// Appends whole lines, in a new file when this one has no room.
    pub fn append(&mut self, lines: &[u8], now: Timestamp) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + lines.len() as u64 > self.bounds.file_bytes {
            self.rotate(now)?;
        }
        self.file.write_all(lines)?;
        self.bytes += lines.len() as u64;
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        let (before, after) = name(&self.path);
        let backup = self.path.with_file_name(format!("{before}{}{after}", now.strftime(TIME)));
        fs::rename(&self.path, backup)?;
        self.file = append_to(&self.path)?;
        self.bytes = 0;
        let directory = self.path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names = fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for name in surplus(names, (&before, &after), now, self.bounds) {
            fs::remove_file(directory.join(name))?;
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// `audit.log` is `audit-` and `.log`.
fn name(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy())).unwrap_or_default();
    (format!("{stem}-"), extension)
}

/// The older files, of all in the directory, that are too many or too old.
fn surplus(names: Vec<String>, (before, after): (&str, &str), now: Timestamp, bounds: Bounds) -> Vec<String> {
    let time = |name: &str| {
        let text = name.strip_prefix(before)?.strip_suffix(after)?;
        jiff::civil::DateTime::strptime(TIME, text).ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
    };
    let mut backups: Vec<(Timestamp, String)> = names.into_iter().filter_map(|name| Some((time(&name)?, name))).collect();
    backups.sort_unstable_by(|a, b| b.cmp(a));
    let old = |time: Timestamp| !bounds.age.is_zero() && Duration::try_from(now.duration_since(time)).is_ok_and(|age| age > bounds.age);
    let many = |at: usize| bounds.backups > 0 && at >= bounds.backups;
    backups.into_iter().enumerate().filter(|(at, (time, _))| many(*at) || old(*time)).map(|(_, (_, name))| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_holds_so_much_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let bounds = Bounds { file_bytes: 100, backups: 2, age: Duration::ZERO };
        let mut file = LogFile::open(&path, bounds).unwrap();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        for second in 0..20 {
            file.append(format!("{second:039}\n").as_bytes(), start + Duration::from_secs(second)).unwrap();
        }
        let mut names: Vec<String> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        assert_eq!(names, ["audit-2026-01-01T00-00-16.000.log", "audit-2026-01-01T00-00-18.000.log", "audit.log"]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        drop(file);
        let mut file = LogFile::open(&path, bounds).unwrap();
        file.append(b"after a restart\n", start).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    #[test]
    fn only_our_own_older_files_go() {
        let names = |days: &[u8]| days.iter().map(|day| format!("audit-2026-01-{day:02}T00-00-00.000.log")).collect::<Vec<_>>();
        let now = "2026-01-10T00:00:00Z".parse().unwrap();
        let check = |backups, days: u64| {
            let mut all = names(&[1, 5, 9]);
            all.extend(["audit.log", "audit-notes.log", "other-2026-01-01T00-00-00.000.log"].map(str::to_owned));
            surplus(all, ("audit-", ".log"), now, Bounds { file_bytes: 1, backups, age: Duration::from_secs(days * 86_400) })
        };
        assert_eq!(check(0, 0), Vec::<String>::new());
        assert_eq!(check(2, 0), names(&[1]));
        assert_eq!(check(0, 3), names(&[5, 1]));
        assert_eq!(check(1, 6), names(&[5, 1]));
    }
}
