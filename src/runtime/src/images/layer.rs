//! Unpacks a layer's tar into a directory that overlayfs stacks. The tar is hostile until proven otherwise.
//!
//! Every path is resolved by the kernel inside the layer's directory (openat2, RESOLVE_IN_ROOT), so neither `..` nor a symlink leads out of it.
//! Whiteouts become overlayfs' own (OCI image specification, "Whiteouts"). Device nodes are made as they are: the data directory is closed to others
//! (0700), root file systems are mounted `nodev`, and a container's device filter stands before them.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use tar::{Entry, EntryType, Header, PaxExtensions};

use super::{
    digest::Digest,
    pipe,
    room::{Left, Meter},
};

/// Bytes of one unpacked layer: a bound against decompression bombs, far above any real layer.
pub(crate) const LAYER_BYTES: u64 = 64 << 30;
/// Entries of one layer: Linux distributions have some 100,000.
const ENTRIES: u64 = 4_000_000;
/// Bytes of the names of directories that are remembered until their times are set: of a million short ones.
const NAME_BYTES: usize = 64 << 20;
/// Bytes of a file that are moved at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of one extended header (a long name, extended attributes): Linux bounds names at 4 KiB and attributes at 64 KiB.
const EXTENDED_BYTES: u64 = 1 << 20;
/// What an entry takes in its tar, and, whatever it is, of the disk.
const ENTRY_BYTES: u64 = 512;
/// Bytes of memory that a zstd window may take, as a power of two: the `--long` default of the tool.
const ZSTD_WINDOW_LOG: u32 = 27;

/// Why a layer was refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// what is in it leads out, or is nothing that a layer may hold
    #[error("layer entry {path:?}: {what}")]
    Entry {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// larger than allowed
    #[error("a layer of more than {0} is refused")]
    TooLarge(String),
    /// its bytes are not the ones that the configuration promises
    #[error("layer has the content of {found}, its image promises {expected}")]
    Digest {
        /// The promise.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// it is no tar, or its compression is damaged
    #[error("layer is damaged")]
    Damaged(#[source] io::Error),
    /// the disk
    #[error("could not unpack a layer")]
    Io(#[from] io::Error),
}

/// How much one layer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Bytes of its tar, unpacked.
    pub(crate) bytes: u64,
    /// Entries of it.
    pub(crate) entries: u64,
    /// Bytes of the names of its directories.
    pub(crate) names: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: LAYER_BYTES, entries: ENTRIES, names: NAME_BYTES }
    }
}

impl Limits {
    /// Those of a disk of which images may take so much: nine tenths of it.
    pub(crate) fn of_disk(left: Left) -> Self {
        let all = Self::default();
        let share = |left: u64| left / 10 * 9;
        Self {
            bytes: all.bytes.min(share(left.bytes)),
            entries: left.inodes.map_or(all.entries, |left| all.entries.min(share(left))),
            ..all
        }
    }
}

/// Unpacks `source` (a tar, plain, gzip or zstd) into the empty directory `target` while `meter` says that there is room; returns the bytes of
/// its files. Decompression has a thread of its own, as it has beside tar.
pub(crate) fn unpack(
    source: impl Read + Send,
    expected: Option<&Digest>,
    target: &Path,
    limits: Limits,
    meter: Meter,
) -> Result<(Digest, u64), UnpackError> {
    let root = rustix::fs::open(target, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?;
    let mut layer = Layer { root, parent: None, times: Vec::new(), names: 0, bytes: 0, limits, meter, piece: vec![0; PIECE_BYTES] };
    let (unpacked, flow) = pipe::through(
        || decompressed(source),
        limits.bytes,
        |tar| {
            layer.entries(tar)?;
            // The digest is of the whole stream, with whatever follows the end of the archive.
            io::copy(tar, &mut io::sink()).map_err(UnpackError::Damaged)
        },
    );
    if flow.cut {
        return Err(UnpackError::TooLarge(format!("{} bytes", limits.bytes)));
    }
    unpacked?;
    let bytes = layer.bytes;
    layer.finish()?;
    let found = flow.digest;
    match expected {
        Some(expected) if *expected != found => Err(UnpackError::Digest { expected: expected.clone(), found }),
        _ => Ok((found, bytes)),
    }
}

/// Undoes gzip or zstd, told by their first bytes.
pub(crate) fn decompressed<'a>(mut source: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut magic = [0; 4];
    let mut have = 0;
    while have < magic.len() {
        match source.read(&mut magic[have..])? {
            0 => break,
            n => have += n,
        }
    }
    let whole = io::Cursor::new(magic[..have].to_vec()).chain(source);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(128 * 1024, whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::new(whole)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(io::BufReader::with_capacity(128 * 1024, whole)),
    })
}

struct Layer {
    root: OwnedFd,
    /// The directory that the last entry was in: tars come sorted, so this saves most look-ups.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Times of directories, set last because filling a directory changes them.
    times: Vec<(PathBuf, i64)>,
    /// Bytes of the names in `times`.
    names: usize,
    bytes: u64,
    limits: Limits,
    meter: Meter,
    piece: Vec<u8>,
}

/// What an extended header says about the entry after it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<i64>,
    attributes: Vec<(String, Vec<u8>)>,
}

impl Layer {
    fn entries(&mut self, source: &mut impl Read) -> Result<(), UnpackError> {
        let mut archive = tar::Archive::new(source);
        let mut extended = Extended::default();
        let mut count = 0;
        for entry in archive.entries().map_err(UnpackError::Damaged)?.raw(true) {
            let mut entry = entry.map_err(UnpackError::Damaged)?;
            count += 1;
            if count > self.limits.entries {
                return Err(UnpackError::TooLarge(format!("{} entries", self.limits.entries)));
            }
            // An entry without content takes an inode.
            self.meter.take(ENTRY_BYTES)?;
            match entry.header().entry_type() {
                EntryType::GNULongName => extended.path = Some(trimmed(body(&mut entry)?)),
                EntryType::GNULongLink => extended.link = Some(trimmed(body(&mut entry)?)),
                EntryType::XHeader => read_pax(&mut entry, &mut extended)?,
                EntryType::XGlobalHeader => drop(body(&mut entry)?),
                _ => self.entry(&mut entry, std::mem::take(&mut extended))?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &mut Entry<'_, &mut impl Read>, extended: Extended) -> Result<(), UnpackError> {
        let raw = extended.path.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let refused = |what: &str| UnpackError::Entry { path: path_of(&raw).to_owned(), what: what.to_owned() };
        let path = inside(path_of(&raw)).ok_or_else(|| refused("leads out of the layer"))?;
        let header = entry.header().clone();
        let owner = (
            extended
                .uid
                .or_else(|| header.uid().ok().and_then(|id| u32::try_from(id).ok()))
                .ok_or_else(|| refused("has no valid owner"))?,
            extended
                .gid
                .or_else(|| header.gid().ok().and_then(|id| u32::try_from(id).ok()))
                .ok_or_else(|| refused("has no valid group"))?,
        );
        let mode = Mode::from_raw_mode(header.mode().map_err(|_| refused("has no valid mode"))? & 0o7777);
        let mtime = extended.mtime.unwrap_or_else(|| header.mtime().ok().and_then(|t| i64::try_from(t).ok()).unwrap_or(0));
        let Some(name) = path.file_name() else {
            // The root itself: its owner and mode are the container's `/`.
            own(self.root.as_fd(), Path::new("."), owner, Some(mode))?;
            return Ok(());
        };
        let parent_path = path.parent().unwrap_or(Path::new("")).to_owned();
        self.enter(&parent_path).map_err(|error| at(&path, error))?;
        let (_, parent) = self.parent.as_ref().ok_or_else(|| refused("has no directory"))?;
        let parent = parent.as_fd();

        if let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix(".wh.")) {
            if hidden == ".wh..opq" {
                let dir = reopen(parent, Path::new("."))?;
                return rustix::fs::fsetxattr(&dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()).map_err(|e| at(&path, e));
            }
            if hidden.is_empty() || hidden == "." || hidden == ".." || hidden.starts_with(".wh.") {
                return Err(refused("is no whiteout of a name"));
            }
            return match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
                // A layer that has a name and hides it keeps its own.
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(at(&path, error)),
            };
        }

        let kind = header.entry_type();
        let name = Path::new(name);
        // Nearly every name is new: only one that is not is looked at.
        if !matches!(kind, EntryType::Directory | EntryType::Regular | EntryType::Continuous) {
            replace(parent, name, false).map_err(|error| at(&path, error))?;
        }
        match kind {
            EntryType::Directory => {
                if rustix::fs::mkdirat(parent, name, Mode::RWXU) == Err(Errno::EXIST) {
                    replace(parent, name, true).map_err(|error| at(&path, error))?;
                    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                        Err(Errno::EXIST) | Ok(()) => {}
                        Err(error) => return Err(at(&path, error)),
                    }
                }
                let dir = reopen(parent, name).map_err(|error| at(&path, error))?;
                own_open(&dir, owner, mode)?;
                attributes(&dir, &extended.attributes).map_err(|error| at(&path, error))?;
                self.names += path.as_os_str().len();
                if self.names > self.limits.names {
                    return Err(UnpackError::TooLarge(format!("{} bytes in the names of directories", self.limits.names)));
                }
                self.times.push((path, mtime));
            }
            EntryType::Regular | EntryType::Continuous => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let open = || rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
                let file = match open() {
                    Err(Errno::EXIST) => {
                        replace(parent, name, false).map_err(|error| at(&path, error))?;
                        open()
                    }
                    other => other,
                };
                let mut file = File::from(file.map_err(|e| at(&path, e))?);
                self.bytes += copy(entry, &mut file, &mut self.piece, &mut self.meter)
                    .map_err(|error| error.unwrap_or_else(|error| at(&path, error)))?;
                let file = OwnedFd::from(file);
                own_open(&file, owner, mode)?;
                attributes(&file, &extended.attributes).map_err(|error| at(&path, error))?;
                let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
                rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time }).map_err(|e| at(&path, e))?;
            }
            EntryType::Symlink => {
                let link = link_name(&header, extended.link).ok_or_else(|| refused("is a symbolic link to nothing"))?;
                rustix::fs::symlinkat(path_of(&link), parent, name).map_err(|e| at(&path, e))?;
                own(parent, name, owner, None)?;
                stamp(parent, name, mtime)?;
            }
            EntryType::Link => {
                let link = link_name(&header, extended.link).ok_or_else(|| refused("is a hard link to nothing"))?;
                let link = inside(path_of(&link)).ok_or_else(|| refused("is a hard link that leads out of the layer"))?;
                let source_name = link.file_name().ok_or_else(|| refused("is a hard link to a directory"))?;
                let source = resolve(self.root.as_fd(), link.parent().unwrap_or(Path::new(""))).map_err(|e| at(&path, e))?;
                rustix::fs::linkat(&source, source_name, parent, name, AtFlags::empty()).map_err(|e| at(&path, e))?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let number = |part: io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
                let device = rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
                let kind = match kind {
                    EntryType::Char if device == 0 => return Err(refused("is a raw overlay whiteout")),
                    EntryType::Char => FileType::CharacterDevice,
                    EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                rustix::fs::mknodat(parent, name, kind, mode, device).map_err(|e| at(&path, e))?;
                own(parent, name, owner, Some(mode))?;
                stamp(parent, name, mtime)?;
            }
            other => return Err(refused(&format!("is of a kind that no layer has ({:?})", char::from(other.as_byte())))),
        }
        Ok(())
    }

    /// Makes `self.parent` the directory `path`, with what is missing on the way.
    fn enter(&mut self, path: &Path) -> Result<(), Errno> {
        if self.parent.as_ref().is_some_and(|(known, _)| known == path) {
            return Ok(());
        }
        let dir = match resolve(self.root.as_fd(), path) {
            Err(Errno::NOENT) => {
                let mut at = PathBuf::new();
                for part in path.components() {
                    let above = resolve(self.root.as_fd(), &at)?;
                    match rustix::fs::mkdirat(&above, part.as_os_str(), Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    at.push(part);
                }
                resolve(self.root.as_fd(), path)?
            }
            other => other?,
        };
        self.parent = Some((path.to_owned(), dir));
        Ok(())
    }

    fn finish(self) -> Result<(), UnpackError> {
        for (path, mtime) in self.times.iter().rev() {
            let parent = match resolve(self.root.as_fd(), path.parent().unwrap_or(Path::new(""))) {
                Ok(parent) => parent,
                // Replaced later in the same layer.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(at(path, error)),
            };
            if let Some(name) = path.file_name() {
                match stamp(parent.as_fd(), Path::new(name), *mtime) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// The path without its root, `.` and doubled slashes; `None` when it has a `..` or is no path at all.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) if name.len() <= 255 && !name.as_encoded_bytes().contains(&0) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return None,
        }
    }
    Some(clean)
}

fn path_of(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV)
}

/// A directory by a descriptor that can be written to.
fn reopen(parent: BorrowedFd<'_>, name: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Takes away what an earlier entry of the same name left; a directory stays for a directory.
fn replace(parent: BorrowedFd<'_>, name: &Path, by_directory: bool) -> io::Result<()> {
    let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        if by_directory {
            return Ok(());
        }
        // By the descriptor of its parent: no symlink of the layer is on this path. std removes trees without following links.
        use std::os::fd::AsRawFd;
        return fs::remove_dir_all(format!("/proc/self/fd/{}/{}", parent.as_raw_fd(), name.display()));
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::empty())?)
}

fn own(parent: BorrowedFd<'_>, name: &Path, (uid, gid): (u32, u32), mode: Option<Mode>) -> io::Result<()> {
    rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    if let Some(mode) = mode {
        // Never a symlink: the caller just made it as something else.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
    }
    Ok(())
}

/// Owner before mode: changing the owner clears set-user-id.
fn own_open(file: &OwnedFd, (uid, gid): (u32, u32), mode: Mode) -> io::Result<()> {
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(rustix::fs::fchmod(file, mode)?)
}

/// All of an entry into its file: an error of the tar, or (within) of the disk.
fn copy(entry: &mut impl Read, file: &mut File, piece: &mut [u8], meter: &mut Meter) -> Result<u64, Result<UnpackError, io::Error>> {
    let mut bytes = 0;
    loop {
        match entry.read(piece) {
            Ok(0) => return Ok(bytes),
            Ok(n) => {
                meter.take(n as u64).map_err(Err)?;
                file.write_all(&piece[..n]).map_err(Err)?;
                bytes += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Ok(UnpackError::Damaged(error))),
        }
    }
}

fn stamp(parent: BorrowedFd<'_>, name: &Path, seconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    Ok(rustix::fs::utimensat(parent, name, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// File capabilities and the user's own attributes; the kernel's and overlayfs' are not for images to set.
fn attributes(file: &OwnedFd, list: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (name, value) in list {
        if name == "security.capability" || name.starts_with("user.") {
            match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
                Err(Errno::NOTSUP) if name.starts_with("user.") => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn at(path: &Path, error: impl Into<io::Error>) -> UnpackError {
    let error = error.into();
    // What a hostile path runs into, told apart from a disk that fails.
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EIO | libc::EROFS) => UnpackError::Io(error),
        _ => UnpackError::Entry { path: path.to_owned(), what: error.to_string() },
    }
}

fn link_name(header: &Header, extended: Option<Vec<u8>>) -> Option<Vec<u8>> {
    extended.or_else(|| header.link_name_bytes().map(|name| name.into_owned())).filter(|name| !name.is_empty())
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn body(entry: &mut Entry<'_, &mut impl Read>) -> Result<Vec<u8>, UnpackError> {
    if entry.size() > EXTENDED_BYTES {
        return Err(UnpackError::TooLarge(format!("{EXTENDED_BYTES} bytes in one extended header")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(UnpackError::Damaged)?;
    Ok(bytes)
}

fn read_pax(entry: &mut Entry<'_, &mut impl Read>, into: &mut Extended) -> Result<(), UnpackError> {
    let bytes = body(entry)?;
    for record in PaxExtensions::new(&bytes) {
        let record = record.map_err(UnpackError::Damaged)?;
        let value = record.value_bytes();
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.split('.').next()?.parse::<i64>().ok());
        match record.key().unwrap_or("") {
            "path" => into.path = Some(value.to_vec()),
            "linkpath" => into.link = Some(value.to_vec()),
            "uid" => into.uid = number().and_then(|n| u32::try_from(n).ok()),
            "gid" => into.gid = number().and_then(|n| u32::try_from(n).ok()),
            "mtime" => into.mtime = number(),
            key if key.starts_with("GNU.sparse.") || key == "size" => {
                return Err(UnpackError::Entry {
                    path: PathBuf::from(key),
                    what: "sparse files and files of 8 GiB and more are refused".to_owned(),
                });
            }
            key => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    into.attributes.push((name.to_owned(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
