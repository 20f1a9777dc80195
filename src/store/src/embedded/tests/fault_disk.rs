//! A disk in memory that tears, forgets and fills up, by seed. What was not synced may be lost sector by sector when the power goes.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use super::super::{
    disk::{Disk, DiskFile},
    record::SECTOR,
};

/// A small generator: the seed is the whole story.
#[derive(Debug)]
pub struct Chance(pub u64);

impl Chance {
    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

#[derive(Debug, Default)]
struct Content {
    /// What a reader sees.
    seen: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    /// What was written since the last sync. One that fails forgets it, as the kernel does: the next writes only what came after.
    dirty: Vec<std::ops::Range<usize>>,
}

type Shared = Arc<Mutex<Content>>;

#[derive(Debug)]
struct Machine {
    /// What a reader sees, and what the directory on the platter says.
    names: BTreeMap<String, Shared>,
    durable_names: BTreeMap<String, Shared>,
    chance: Chance,
    faults: Faults,
    dead: bool,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power goes after so many writes and syncs.
    pub power: Option<u64>,
    /// Writes fail with "no space", after writing a part, once so many have been done, so many times.
    pub full: Option<(u64, u64)>,
    /// Syncs fail once so many have been done.
    pub sync: Option<u64>,
}

/// The disk.
#[derive(Clone, Debug)]
pub struct FaultDisk(Arc<Mutex<Machine>>);

#[derive(Debug)]
struct FaultFile(Arc<Mutex<Machine>>, Shared);

fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}

impl Machine {
    /// Counts a step; an error when the power is gone.
    fn step(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.faults.power {
            *left = left.saturating_sub(1);
            self.dead |= *left == 0;
        }
        if self.dead { Err(power_is_gone()) } else { Ok(()) }
    }

    fn is_full(&mut self) -> bool {
        match &mut self.faults.full {
            Some((0, 0)) | None => false,
            Some((0, times)) => {
                *times -= 1;
                true
            }
            Some((after, _)) => {
                *after -= 1;
                false
            }
        }
    }
}

impl FaultDisk {
    /// An empty disk.
    pub fn new(seed: u64) -> Self {
        let machine = Machine {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            chance: Chance(seed),
            faults: Faults::default(),
            dead: false,
        };
        FaultDisk(Arc::new(Mutex::new(machine)))
    }

    /// From now on these things go wrong.
    pub fn set(&self, faults: Faults) {
        self.0.lock().expect("the disk").faults = faults;
    }

    /// The power goes and comes back: of what was not synced each sector is there or not, as chance has it.
    pub fn power_cycle(&self) {
        let mut machine = self.0.lock().expect("the disk");
        let machine = &mut *machine;
        (machine.dead, machine.faults) = (false, Faults::default());
        machine.names = machine.durable_names.clone();
        let style = machine.chance.below(4);
        for content in machine.names.values() {
            let mut content = content.lock().expect("a file");
            let Content { seen, durable, dirty } = &mut *content;
            dirty.clear();
            durable.resize(seen.len(), 0);
            for (old, new) in durable.chunks_mut(SECTOR).zip(seen.chunks(SECTOR)) {
                let survives = match style {
                    0 => false,
                    1 => true,
                    _ => machine.chance.below(2) == 0,
                };
                if survives {
                    old.copy_from_slice(new);
                }
            }
            *seen = durable.clone();
        }
    }
}

impl Disk for FaultDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().expect("the disk").names.keys().cloned().collect())
    }

    fn create(&self, name: &str, size: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut machine = self.0.lock().expect("the disk");
        machine.step()?;
        if machine.is_full() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        let content: Shared = Arc::new(Mutex::new(Content { seen: vec![0; size as usize], ..Content::default() }));
        machine.names.insert(name.to_owned(), content.clone());
        Ok(Box::new(FaultFile(self.0.clone(), content)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let machine = self.0.lock().expect("the disk");
        let content = machine.names.get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(FaultFile(self.0.clone(), content)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut machine = self.0.lock().expect("the disk");
        machine.step()?;
        let content = machine.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        machine.names.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut machine = self.0.lock().expect("the disk");
        machine.step()?;
        machine.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut machine = self.0.lock().expect("the disk");
        machine.step()?;
        machine.durable_names = machine.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("fault").join(name)
    }
}

impl DiskFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.1.lock().expect("a file").seen.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let content = self.1.lock().expect("a file");
        let bytes = content.seen.get(offset as usize..offset as usize + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.0.lock().expect("the disk");
        let powered = machine.step();
        let full = powered.is_ok() && machine.is_full();
        // A full disk leaves a part; a write that the power interrupts is in the cache, and the power cut decides on its sectors.
        let count = if full { machine.chance.below(bytes.len() as u64 + 1) as usize } else { bytes.len() };
        let mut content = self.1.lock().expect("a file");
        let target = content.seen.get_mut(offset as usize..offset as usize + count).ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(&bytes[..count]);
        content.dirty.push(offset as usize..offset as usize + count);
        powered?;
        if full { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.0.lock().expect("the disk");
        machine.step()?;
        let mut content = self.1.lock().expect("a file");
        let Content { seen, durable, dirty } = &mut *content;
        if let Some(left) = &mut machine.faults.sync {
            if *left == 0 {
                dirty.clear();
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            *left -= 1;
        }
        durable.resize(seen.len(), 0);
        for range in dirty.drain(..) {
            durable[range.clone()].copy_from_slice(&seen[range]);
        }
        Ok(())
    }
}
