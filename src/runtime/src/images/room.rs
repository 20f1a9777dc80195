//! What images leave of their disk to everybody else: an image that fills it must not be why pods are ended.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Bytes that are written before it is looked again at what is left. What is written at once beside it is the more than may be taken.
const LOOK_BYTES: u64 = 4 << 20;

/// An amount of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Of(u64),
    /// So many hundredths of all.
    Percent(u64),
}

impl Share {
    fn amount(self, all: u64) -> u64 {
        match self {
            Share::Of(amount) => amount,
            Share::Percent(percent) => all / 100 * percent,
        }
    }
}

/// What must stay free: the most of each list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spare {
    /// Bytes.
    pub bytes: Vec<Share>,
    /// Files.
    pub inodes: Vec<Share>,
}

/// What a disk has, in all and left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Files; `None` where the file system has no table of them.
    pub(crate) inodes: Option<u64>,
}

/// The disk of the images.
#[derive(Debug)]
pub(crate) struct Room {
    root: PathBuf,
    spare: OnceLock<Spare>,
}

impl Room {
    pub(crate) fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self { root: root.to_owned(), spare: OnceLock::new() })
    }

    /// Said once, by who knows when pods are ended.
    pub(crate) fn keep_free(&self, spare: Spare) {
        let _ = self.spare.set(spare);
    }

    /// What may be taken now: all that is left, without what must stay free.
    pub(crate) fn left(&self) -> io::Result<Left> {
        let disk = rustix::fs::statvfs(&self.root)?;
        let spare = self.spare.get().cloned().unwrap_or_default();
        let beyond = |available: u64, all: u64, keep: &[Share]| {
            // What is kept for root is nobody's: df's way, and that of eviction.
            let most = keep.iter().map(|share| share.amount(all)).max().unwrap_or(0);
            available.saturating_sub(most)
        };
        let all = (disk.f_blocks.saturating_sub(disk.f_bfree) + disk.f_bavail).saturating_mul(disk.f_frsize);
        let bytes = beyond(disk.f_bavail.saturating_mul(disk.f_frsize), all, &spare.bytes);
        let files = disk.f_files.saturating_sub(disk.f_ffree) + disk.f_favail;
        let inodes = (disk.f_files > 0).then(|| beyond(disk.f_favail, files, &spare.inodes));
        Ok(Left { bytes, inodes })
    }
}

/// Looks now and then, while something is written, whether there is still room.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    room: Option<Arc<Room>>,
    unseen: u64,
}

impl Meter {
    pub(crate) fn of(room: &Arc<Room>) -> Self {
        // The first write is looked at, too.
        Self { room: Some(room.clone()), unseen: LOOK_BYTES }
    }

    /// So many bytes are about to be written.
    pub(crate) fn take(&mut self, bytes: u64) -> io::Result<()> {
        let Some(room) = &self.room else { return Ok(()) };
        self.unseen += bytes;
        if self.unseen < LOOK_BYTES {
            return Ok(());
        }
        self.unseen = 0;
        match room.left()? {
            Left { bytes, inodes } if bytes > LOOK_BYTES && inodes != Some(0) => Ok(()),
            _ => Err(full(room)),
        }
    }
}

fn full(room: &Room) -> io::Error {
    let kept = room.spare.get().is_some_and(|spare| *spare != Spare::default());
    let why = if kept { ": what is left of the disk is kept free for pods" } else { "" };
    io::Error::new(io::ErrorKind::StorageFull, format!("there is no room for images{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_stay_free_is_not_there_to_be_taken() {
        let dir = tempfile::tempdir().unwrap();
        let of = |bytes: Vec<Share>, inodes: Vec<Share>| {
            let room = Room::new(dir.path());
            room.keep_free(Spare { bytes, inodes });
            room
        };
        let left = |bytes, inodes| of(bytes, inodes).left().unwrap();
        let all = left(vec![], vec![]);
        assert!(all.bytes > 2 << 30, "this test needs some room");
        // The machine is not ours alone.
        let about = |bytes: u64, want: u64| bytes.abs_diff(want) < 1 << 30;
        assert!(about(left(vec![Share::Of(2 << 30), Share::Of(1)], vec![]).bytes, all.bytes - (2 << 30)));
        assert!(left(vec![Share::Percent(1)], vec![]).bytes < all.bytes);
        assert_eq!(left(vec![Share::Percent(100)], vec![Share::Percent(100)]).bytes, 0);
        let mut meter = Meter::of(&of(vec![], vec![]));
        meter.take(1).unwrap();
        // Where nobody counts inodes nobody is short of them.
        assert_eq!(Meter::of(&of(vec![], vec![Share::Of(u64::MAX)])).take(1).is_err(), all.inodes.is_some());
        let mut meter = Meter { room: Some(of(vec![Share::Of(u64::MAX)], vec![])), unseen: 0 };
        meter.take(LOOK_BYTES - 1).unwrap();
        assert_eq!(meter.take(1).unwrap_err().kind(), io::ErrorKind::StorageFull, "looked at after so many bytes");
    }
}
