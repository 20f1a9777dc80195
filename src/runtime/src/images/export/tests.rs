//! What is exported is imported again.

use std::{collections::HashSet, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::images::tests::{layer, saved};

fn imported(layers: &[Vec<u8>]) -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    for (tag, layers) in [("one", layers), ("two", &layers[..1])] {
        saved(&dir.path().join("i.tar"), tag, layers);
        store.import(&dir.path().join("i.tar"), None).unwrap();
    }
    (dir, store)
}

/// A layer with one of everything.
fn everything() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut put = |name: &str, kind: EntryType, link: Option<&str>, data: &str, mode: u32| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(1000);
        header.set_gid(2_000_000_000);
        header.set_mtime(1_000_000);
        header.set_size(data.len() as u64);
        match link {
            Some(link) => tar.append_link(&mut header, name, link).unwrap(),
            None => tar.append_data(&mut header, name, data.as_bytes()).unwrap(),
        }
    };
    put("dir/", EntryType::Directory, None, "", 0o1777);
    put("dir/su", EntryType::Regular, None, "root", 0o4755);
    put("dir/hard", EntryType::Link, Some("dir/su"), "", 0o4755);
    put("link", EntryType::Symlink, Some("/dir/su"), "", 0o777);
    put("pipe", EntryType::Fifo, None, "", 0o644);
    put(&format!("dir/{}", "long".repeat(50)), EntryType::Regular, None, "x", 0o644);
    put("dir/.wh..wh..opq", EntryType::Regular, None, "", 0o644);
    put(".wh.gone", EntryType::Regular, None, "", 0o644);
    tar.into_inner().unwrap()
}

/// Every path of a tree with what it is.
fn tree(root: &Path) -> Vec<String> {
    let mut out = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let content = if meta.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            let opaque = attribute(&path, "trusted.overlay.opaque").unwrap();
            let kind = meta.file_type();
            let mode = meta.permissions().mode();
            out.push(format!(
                "{name} {kind:?} {mode:o} {}:{} {} {} {content} {opaque:?} {:?}",
                meta.uid(),
                meta.gid(),
                meta.rdev(),
                meta.nlink(),
                fs::read_link(&path).ok()
            ));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    out.sort();
    out
}

#[test]
fn what_is_exported_is_the_same_where_it_is_imported() {
    let (dir, store) = imported(&[layer(&[("base", "1")]), everything()]);
    let archive = dir.path().join("out.tar");
    store.export(&["one".into(), "two".into()], &archive).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let other = ImageStore::open(other_dir.path()).unwrap();
    let mut names: Vec<_> = other.import(&archive, None).unwrap().into_iter().flat_map(|image| image.tags).collect();
    names.sort();
    assert_eq!(names, ["docker.io/library/one:latest", "docker.io/library/two:latest"]);
    let of = |store: &ImageStore| {
        let (_, record) = store.record("one").unwrap().unwrap();
        let trees: Vec<_> = store.layer_dirs(&record).iter().map(|dir| tree(dir)).collect();
        (record.defaults, trees)
    };
    assert_eq!(of(&store), of(&other));
    let before = fs::read(&archive).unwrap();
    store.export(&["one".into(), "two".into()], &archive).unwrap();
    assert!(fs::read(&archive).unwrap() == before, "the same images give the same archive");
    // As an OCI layout, too, with each layer once.
    let layout = dir.path().join("layout");
    tar::Archive::new(File::open(&archive).unwrap()).unpack(&layout).unwrap();
    assert_eq!(fs::read_dir(layout.join("blobs/sha256")).unwrap().count(), 6, "two layers, two configurations, two manifests");
    fs::remove_file(layout.join("manifest.json")).unwrap();
    let again = other.import(&layout, None).unwrap();
    assert!(again.iter().all(|image| image.digests.len() == 1 && image.tags.len() == 1), "{again:?}");
    assert_eq!(other.list().unwrap().len(), 2);
    assert_eq!(fs::read_dir(store.root.join("incoming")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root.join("blobs/sha256")).unwrap().count(), 2, "nothing of it stays in the store");
}

#[test]
fn an_image_of_many_names_is_exported_by_those_that_were_asked_for() {
    let (dir, store) = imported(&[layer(&[("base", "1")])]);
    let id = store.get("one").unwrap().unwrap().id;
    let tags = |names: &[&str]| {
        let archive = dir.path().join("out.tar");
        store.export(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &archive).unwrap();
        let other = tempfile::tempdir().unwrap();
        let images = ImageStore::open(other.path()).unwrap().import(&archive, None).unwrap();
        images.into_iter().map(|image| image.tags.len()).collect::<Vec<_>>()
    };
    // Both archives hold the same image.
    assert_eq!((tags(&["one"]), tags(&["one", "two"]), tags(&[&id])), (vec![1], vec![2], vec![2]));
}

#[test]
fn an_export_that_fails_leaves_what_was_there() {
    let (dir, store) = imported(&[layer(&[("base", "1")])]);
    let archive = dir.path().join("out.tar");
    fs::write(&archive, "before").unwrap();
    assert!(matches!(store.export(&["one".into(), "none".into()], &archive), Err(ExportError::Unknown(name)) if name == "none"));
    assert_eq!(fs::read_to_string(&archive).unwrap(), "before");
    assert!(matches!(store.export(&["one".into()], Path::new("/nowhere/x.tar")), Err(ExportError::Io { .. })));
    store.remove("one", &HashSet::new()).unwrap();
}
