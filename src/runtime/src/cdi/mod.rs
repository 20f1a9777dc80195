//! The Container Device Interface: devices that files of the node describe, by name; what such a device means for a container.
//!
//! The files are read when a container asks for a device and at no other time: nothing is kept and nothing is watched.

mod edits;

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub(crate) use edits::EditError;
use edits::Edits;

use crate::ContainerSpec;

/// Where descriptions are; of two of one device that of the later directory counts.
pub(crate) const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Bytes of a description that are read: one of a machine with hundreds of devices has a hundredth of it.
const FILE_BYTES: u64 = 4 << 20;
/// Descriptions of a directory that are read.
const FILES: usize = 1_024;

/// Why a device cannot be given to a container.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CdiError {
    /// no name
    #[error("{0:?} is not the name of a CDI device, which is vendor/class=name")]
    Name(String),
    /// not described
    #[error("unresolvable CDI devices {0}")]
    Unknown(String),
    /// described twice
    #[error("CDI device {device} is described by {} and by {}", first.display(), second.display())]
    Conflict {
        /// Which.
        device: String,
        /// By whom.
        first: PathBuf,
        /// And by whom.
        second: PathBuf,
    },
    /// what it asks for
    #[error("CDI device {device}")]
    Edit {
        /// Which.
        device: String,
        /// What is wrong.
        #[source]
        source: EditError,
    },
    /// a description
    #[error("CDI description {}: {message}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// A description: devices of one kind.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Description {
    /// `vendor/class`.
    kind: String,
    devices: Vec<Described>,
    /// For whoever has any of them.
    container_edits: Edits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Described {
    name: String,
    container_edits: Edits,
}

/// Gives a container the devices that it names.
pub(crate) fn inject(spec: &mut ContainerSpec, directories: &[PathBuf]) -> Result<(), CdiError> {
    if spec.cdi_devices.is_empty() {
        return Ok(());
    }
    let names = std::mem::take(&mut spec.cdi_devices);
    let mut done: Vec<PathBuf> = Vec::new();
    for wanted in wanted(&names)? {
        let (path, description) = find(&wanted, directories)?;
        let own = description.devices.iter().filter(|d| d.name == wanted.name).map(|d| &d.container_edits);
        // What all devices of a description share is given once.
        let shared = (!done.contains(&path)).then_some(&description.container_edits);
        for edits in shared.into_iter().chain(own) {
            edits.apply(spec).map_err(|source| CdiError::Edit { device: wanted.full.to_owned(), source })?;
        }
        done.push(path);
    }
    spec.cdi_devices = names;
    Ok(())
}

/// A name, taken apart.
struct Wanted<'a> {
    full: &'a str,
    kind: &'a str,
    name: &'a str,
}

fn wanted(names: &[String]) -> Result<Vec<Wanted<'_>>, CdiError> {
    let part = |full: &'_ String| -> Option<(usize, usize)> {
        let (kind, name) = full.split_once('=')?;
        let (vendor, class) = kind.split_once('/')?;
        (!vendor.is_empty() && !class.is_empty() && !name.is_empty() && !name.contains('=')).then_some((kind.len(), kind.len() + 1))
    };
    let names = names.iter().map(|full| {
        let (kind, name) = part(full).ok_or_else(|| CdiError::Name(full.clone()))?;
        Ok(Wanted { full, kind: &full[..kind], name: &full[name..] })
    });
    names.collect()
}

/// The description of a device. One that cannot be read is nobody else's trouble, unless the device is nowhere else.
fn find(wanted: &Wanted<'_>, directories: &[PathBuf]) -> Result<(PathBuf, Description), CdiError> {
    let mut trouble = None;
    for directory in directories.iter().rev() {
        let mut found: Option<(PathBuf, Description)> = None;
        for path in files(directory) {
            let description = match read(&path) {
                Ok(description) => description,
                Err(message) => {
                    trouble.get_or_insert(CdiError::File { path, message });
                    continue;
                }
            };
            if description.kind != wanted.kind || description.devices.iter().all(|d| d.name != wanted.name) {
                continue;
            }
            if let Some((first, _)) = found {
                return Err(CdiError::Conflict { device: wanted.full.to_owned(), first, second: path });
            }
            found = Some((path, description));
        }
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(trouble.unwrap_or_else(|| CdiError::Unknown(wanted.full.to_owned())))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml")).take(FILES).collect();
    files.sort();
    files
}

fn read(path: &Path) -> Result<Description, String> {
    let mut text = String::new();
    let read = fs::File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_string(&mut text));
    read.map_err(|error: io::Error| error.to_string())?;
    // JSON is YAML, and is read faster as what it is.
    if path.extension().is_some_and(|e| e == "json") {
        return serde_json::from_str(&text).map_err(|error| error.to_string());
    }
    serde_saphyr::from_str(&text).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests;
