//! The eBPF object: loaded and pinned once, adopted by every later process of the same build, replaced in place by another build.
//!
//! `/sys/fs/bpf/coracle/<cluster>/` holds `layout<N>/` (the maps), `programs-<hash>/` and `links/`. A later build of the same layout loads its programs on
//! the maps that are there, and swaps each link's program; a new layout begins with empty maps.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{EbpfLoader, programs::Program};
use coracle_ebpf_common::LAYOUT;

use super::bpf;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/coracle.bpf.o");

/// Where pins live.
pub const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// All programs of the object.
pub const PROGRAMS: [&str; 8] = ["from_pod", "to_pod", "from_outside", "to_outside", "connect4", "sendmsg4", "recvmsg4", "getpeername4"];

/// Directories of a cluster's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    /// All of them.
    pub root: PathBuf,
    /// Maps.
    pub maps: PathBuf,
    /// Programs of this build.
    pub programs: PathBuf,
    /// Links.
    pub links: PathBuf,
}

impl Pins {
    /// Those of a cluster.
    pub fn of(cluster_id: &str) -> Self {
        let root = Path::new(BPFFS).join("coracle").join(cluster_id);
        Self {
            maps: root.join(format!("layout{LAYOUT}")),
            programs: root.join(format!("programs-{:016x}", fnv(OBJECT))),
            links: root.join("links"),
            root,
        }
    }
}

/// Why the object could not be loaded or adopted.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// bpffs.
    #[error("mount the BPF file system on {BPFFS}")]
    Mount(#[source] io::Error),
    /// A directory or pin.
    #[error("prepare {0}")]
    Pin(PathBuf, #[source] io::Error),
    /// The object as a whole: a map, or BTF.
    #[error("load the eBPF object")]
    Object(#[source] Box<aya::EbpfError>),
    /// A program.
    #[error("load the eBPF program {0}")]
    Program(&'static str, #[source] Box<aya::programs::ProgramError>),
}

/// The programs, loaded.
#[derive(Debug)]
pub struct Programs {
    fds: BTreeMap<&'static str, OwnedFd>,
    /// Whether this process loaded them: links of earlier ones hold older programs.
    pub fresh: bool,
}

impl Programs {
    /// One of [`PROGRAMS`].
    pub fn get(&self, name: &str) -> io::Result<BorrowedFd<'_>> {
        self.fds.get(name).map(AsFd::as_fd).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no eBPF program {name}")))
    }
}

/// Adopts this build's programs when they are pinned, else loads and pins them.
pub fn load(pins: &Pins) -> Result<Programs, LoadError> {
    mount_bpffs().map_err(LoadError::Mount)?;
    for directory in [&pins.maps, &pins.links] {
        fs::create_dir_all(directory).map_err(|error| LoadError::Pin(directory.clone(), error))?;
    }
    match open_all(&pins.programs) {
        Ok(fds) => return Ok(Programs { fds, fresh: false }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(LoadError::Pin(pins.programs.clone(), error)),
    }
    // What an earlier process left when it died in here.
    remove_dir(&pins.programs).map_err(|error| LoadError::Pin(pins.programs.clone(), error))?;
    let mut object =
        EbpfLoader::new().default_map_pin_directory(&pins.maps).load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
    fs::create_dir_all(&pins.programs).map_err(|error| LoadError::Pin(pins.programs.clone(), error))?;
    for name in PROGRAMS {
        let fail = |error| LoadError::Program(name, Box::new(error));
        let not_found = || fail(aya::programs::ProgramError::NotLoaded);
        let fd = match object.program_mut(name).ok_or_else(not_found)? {
            Program::SchedClassifier(program) => {
                program.load().and_then(|()| program.fd()?.try_clone().map_err(Into::into)).map_err(fail)?
            }
            Program::CgroupSockAddr(program) => {
                program.load().and_then(|()| program.fd()?.try_clone().map_err(Into::into)).map_err(fail)?
            }
            _ => return Err(not_found()),
        };
        let path = pins.programs.join(name);
        bpf::pin(fd.as_fd(), &path).map_err(|error| LoadError::Pin(path, error))?;
    }
    let fds = open_all(&pins.programs).map_err(|error| LoadError::Pin(pins.programs.clone(), error))?;
    Ok(Programs { fds, fresh: true })
}

/// Removes the programs and maps of other builds, once no link uses them.
pub fn remove_others(pins: &Pins) -> io::Result<()> {
    for entry in fs::read_dir(&pins.root)? {
        let path = entry?.path();
        if path != pins.maps && path != pins.programs && path != pins.links {
            remove_dir(&path)?;
        }
    }
    Ok(())
}

/// Removes all pins of a cluster. A link without pin and descriptor is detached by the kernel.
pub fn remove_all(pins: &Pins) -> io::Result<()> {
    remove_dir(&pins.root)?;
    // The last cluster's going leaves nothing; while there are others this fails, and shall.
    let _ = pins.root.parent().map(fs::remove_dir);
    Ok(())
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn open_all(directory: &Path) -> io::Result<BTreeMap<&'static str, OwnedFd>> {
    PROGRAMS.into_iter().map(|name| Ok((name, bpf::open(&directory.join(name))?))).collect()
}

/// Whether a BPF file system is mounted where pins go.
pub fn has_bpffs() -> bool {
    nix::sys::statfs::statfs(BPFFS).is_ok_and(|found| found.filesystem_type().0 == BPF_FS_MAGIC)
}

fn mount_bpffs() -> io::Result<()> {
    if has_bpffs() {
        return Ok(());
    }
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), nix::mount::MsFlags::empty(), Some("mode=0700")).map_err(Into::into)
}

/// FNV-1a: names builds and links; nothing depends on its strength.
pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
