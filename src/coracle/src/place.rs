//! A cluster's place on the machine: its directories, its name in shared spaces, its own slice of the pod network.
//!
//! Several clusters may run on one machine. What they share (links, cgroups, bpffs, routes) they tell apart by the cluster's id, and each
//! node takes a pod network that no other cluster of the machine has: a slot, which lasts as long as the data directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// State that a reboot may forget.
const STATE_ROOT: &str = "/run/coracle";
/// Clusters of one machine at once: each takes a /24 of the cluster CIDR.
pub const SLOTS: u32 = 64;

/// What stands in `<state>/<id>/cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The cluster's data directory.
    pub data_dir: PathBuf,
    /// Number of its pod network within the cluster CIDR.
    pub slot: u32,
    /// It ends with the process that made it (`coracle run`): whoever finds it without its process takes it down.
    pub temporary: bool,
    /// Its data outlives it all the same: the user named the directory, or asked to keep it.
    #[serde(default)]
    pub keep: bool,
}

/// How long a cluster is to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Over restarts: `coracle server`.
    Standing,
    /// As long as its process: `coracle run`.
    Temporary {
        /// Whether its data stays.
        keep: bool,
    },
}

/// A cluster's place, held by this process.
#[derive(Debug)]
pub struct Place {
    /// Eight hex digits that name the cluster on this machine.
    pub id: String,
    /// Its data.
    pub data_dir: PathBuf,
    /// `/run/coracle/<id>`.
    pub state_dir: PathBuf,
    /// Number of its pod network.
    pub slot: u32,
    /// The machine had nothing of this cluster before.
    pub fresh: bool,
    _lock: Flock<File>,
}

/// A cluster that has no process, held: nobody starts it or takes it down meanwhile.
#[derive(Debug)]
pub struct Hold {
    /// `None`: the machine has no state of it that could be locked.
    _lock: Option<Flock<File>>,
}

/// Why a cluster has no place.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// another coracle runs with the data directory {0}
    #[error("another coracle runs with the data directory {0}")]
    Running(PathBuf),
    /// cannot {what} {path}
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// all {0} pod networks of this machine are taken: end some with `coracle killall`
    #[error("all {0} pod networks of this machine are taken: end some with `coracle killall`")]
    Full(u32),
}

impl Place {
    /// Takes the place of the cluster with this data directory, making it when it is new. At most `slots` clusters share the machine.
    pub fn take(data_dir: &Path, life: Life, slots: u32) -> Result<Self, PlaceError> {
        make_private(data_dir)?;
        let data_dir = data_dir.canonicalize().map_err(|e| io_error("find", data_dir, e))?;
        probe_writable(&data_dir)?;
        let id = id(&data_dir);
        let state_dir = state_dir(&id);
        let fresh = !state_dir.exists();
        make_private(&state_dir)?;
        let lock = lock(&state_dir.join("lock"))?.ok_or_else(|| PlaceError::Running(data_dir.clone()))?;
        let slot = claim_slot(&data_dir, &state_dir, life, slots)?;
        Ok(Self { id, data_dir, state_dir, slot, fresh, _lock: lock })
    }

    /// The cgroup of everything that this cluster runs, relative to the hierarchy.
    pub fn cgroup(&self) -> String {
        cgroup(&self.id)
    }
}

/// The cgroup of a cluster, relative to the hierarchy.
pub fn cgroup(id: &str) -> String {
    format!("/coracle-{id}")
}

/// Temporary clusters whose process is gone: id, record, and the hold of the caller, who takes them down.
pub fn abandoned() -> Vec<(String, Record, Hold)> {
    let temporary = known().into_iter().filter(|(_, record)| record.temporary);
    // One that cannot be held is another's: its own process, or somebody who takes it down already.
    temporary.filter_map(|(id, record)| hold(&id).ok().flatten().map(|hold| (id, record, hold))).collect()
}

/// Every cluster that this machine knows of.
pub fn known() -> Vec<(String, Record)> {
    let entries = fs::read_dir(STATE_ROOT).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, read(&entry.path())?))).collect()
}

/// The id that a data directory has on this machine.
pub fn id(data_dir: &Path) -> String {
    // FNV-1a: names must be short and the same in every version.
    let hash = data_dir
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    format!("{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}

/// Where the state of a cluster is.
pub fn state_dir(id: &str) -> PathBuf {
    Path::new(STATE_ROOT).join(id)
}

/// Holds a cluster that has no process; `None`: somebody else has it.
pub fn hold(id: &str) -> Result<Option<Hold>, PlaceError> {
    let path = state_dir(id).join("lock");
    if !path.exists() {
        return Ok(Some(Hold { _lock: None }));
    }
    Ok(lock(&path)?.map(|lock| Hold { _lock: Some(lock) }))
}

/// Picks the lowest free number, under a lock of the machine. The number stays the data directory's own over restarts and reboots.
fn claim_slot(data_dir: &Path, state_dir: &Path, life: Life, slots: u32) -> Result<u32, PlaceError> {
    let path = Path::new(STATE_ROOT).join("slots.lock");
    let file = open_lock(&path)?;
    let _machine = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| io_error("lock", &path, e.into()))?;
    let mine = state_dir.join("cluster.json");
    let taken: Vec<u32> =
        known().iter().filter(|(id, record)| state_dir != self::state_dir(id) && record.data_dir.exists()).map(|(_, r)| r.slot).collect();
    let remembered = fs::read_to_string(data_dir.join("slot")).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let wanted = remembered.into_iter().chain(0..slots).find(|slot| *slot < slots && !taken.contains(slot));
    let slot = wanted.ok_or(PlaceError::Full(slots))?;
    let (temporary, keep) = match life {
        Life::Standing => (false, true),
        Life::Temporary { keep } => (true, keep),
    };
    let record = Record { data_dir: data_dir.to_owned(), slot, temporary, keep };
    write(&mine, &serde_json::to_vec(&record).unwrap_or_default())?;
    write(&data_dir.join("slot"), format!("{slot}\n").as_bytes())?;
    Ok(slot)
}

fn read(state_dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(state_dir.join("cluster.json")).ok()?).ok()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), PlaceError> {
    let fresh = path.with_extension("new");
    let written = File::create(&fresh).and_then(|mut f| f.write_all(bytes)).and_then(|()| fs::rename(&fresh, path));
    written.map_err(|e| io_error("write", path, e))
}

fn make_private(path: &Path) -> Result<(), PlaceError> {
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|e| io_error("make", path, e))
}

fn probe_writable(data_dir: &Path) -> Result<(), PlaceError> {
    let probe = data_dir.join(".writable");
    File::create(&probe).and_then(|_| fs::remove_file(&probe)).map_err(|e| io_error("write to", data_dir, e))
}

/// `None`: somebody else has it.
fn lock(path: &Path) -> Result<Option<Flock<File>>, PlaceError> {
    match Flock::lock(open_lock(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, e)) => Err(io_error("lock", path, e.into())),
    }
}

fn open_lock(path: &Path) -> Result<File, PlaceError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).custom_flags(libc::O_CLOEXEC).open(path);
    opened.map_err(|e| io_error("open", path, e))
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> PlaceError {
    PlaceError::Io { what, path: path.to_owned(), source }
}
