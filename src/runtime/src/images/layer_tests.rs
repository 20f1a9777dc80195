//! Layers, hostile ones too, unpacked into real directories.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

/// One entry of a tar, as raw as an attacker would write it.
struct Item<'a> {
    name: &'a [u8],
    kind: EntryType,
    link: &'a [u8],
    data: &'a [u8],
    mode: u32,
}

fn item<'a>(name: &'a str, kind: EntryType) -> Item<'a> {
    Item { name: name.as_bytes(), kind, link: b"", data: b"", mode: 0o755 }
}

fn file<'a>(name: &'a str, data: &'a str) -> Item<'a> {
    Item { data: data.as_bytes(), mode: 0o644, ..item(name, EntryType::Regular) }
}

fn link<'a>(name: &'a str, kind: EntryType, to: &'a str) -> Item<'a> {
    Item { link: to.as_bytes(), ..item(name, kind) }
}

fn tar_of(items: &[Item<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..item.name.len()].copy_from_slice(item.name);
        header.as_mut_bytes()[157..157 + item.link.len()].copy_from_slice(item.link);
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_uid(1000);
        header.set_gid(1001);
        header.set_mtime(1_000_000);
        header.set_size(item.data.len() as u64);
        if matches!(item.kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(if item.link.is_empty() { 1 } else { 0 }).unwrap();
            header.set_device_minor(if item.link.is_empty() { 3 } else { 0 }).unwrap();
        }
        header.set_cksum();
        builder.append(&header, item.data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn unpacked(items: &[Item<'_>]) -> (tempfile::TempDir, Result<(Digest, u64), UnpackError>) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("fs")).unwrap();
    let result = unpack(&tar_of(items)[..], None, &dir.path().join("fs"), Limits::default(), Meter::default());
    (dir, result)
}

#[test]
fn files_links_owners_and_times_arrive() {
    let (dir, result) = unpacked(&[
        item("./", EntryType::Directory),
        item("bin/", EntryType::Directory),
        Item { mode: 0o4755, ..file("bin/su", "root") },
        link("bin/hard", EntryType::Link, "bin/su"),
        link("sh", EntryType::Symlink, "/bin/su"),
        item("pipe", EntryType::Fifo),
        file("deep/er/than/its/parents", "x"),
    ]);
    assert_eq!(result.unwrap().1, 5);
    let root = dir.path().join("fs");
    let su = fs::metadata(root.join("bin/su")).unwrap();
    assert_eq!((su.uid(), su.gid(), su.mtime(), su.permissions().mode() & 0o7777), (1000, 1001, 1_000_000, 0o4755));
    assert_eq!(fs::metadata(root.join("bin/hard")).unwrap().ino(), su.ino());
    assert_eq!(fs::metadata(root.join("bin")).unwrap().mtime(), 1_000_000);
    assert_eq!(fs::read_link(root.join("sh")).unwrap(), Path::new("/bin/su"));
    assert!(fs::metadata(root.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read(root.join("deep/er/than/its/parents")).unwrap(), b"x");
}

#[test]
fn absolute_paths_and_devices_stay_in_the_layer() {
    let (dir, result) = unpacked(&[
        file("/absolute/file", "x"),
        link("linked", EntryType::Link, "/absolute/file"),
        item("/dev/null", EntryType::Char),
        item("disk", EntryType::Block),
    ]);
    result.unwrap();
    let root = dir.path().join("fs");
    assert_eq!(fs::metadata(root.join("absolute/file")).unwrap().ino(), fs::metadata(root.join("linked")).unwrap().ino());
    assert!(!Path::new("/absolute").exists());
    for name in ["dev/null", "disk"] {
        let device = fs::symlink_metadata(root.join(name)).unwrap();
        assert_eq!(
            (device.rdev(), device.file_type().is_file()),
            (rustix::fs::makedev(1, 3), false),
            "made as it is: containers have a filter"
        );
    }
}

#[test]
fn whiteouts_become_the_ones_of_overlayfs() {
    let (dir, result) = unpacked(&[file("etc/.wh.gone", ""), file("var/.wh..wh..opq", ""), file("kept", "1"), file(".wh.kept", "")]);
    result.unwrap();
    let root = dir.path().join("fs");
    let gone = fs::symlink_metadata(root.join("etc/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut value = [0; 4];
    let n = rustix::fs::getxattr(root.join("var"), "trusted.overlay.opaque", &mut value).unwrap();
    assert_eq!(&value[..n], b"y");
    assert_eq!(fs::read(root.join("kept")).unwrap(), b"1");
}

#[test]
fn a_hostile_tar_never_writes_outside() {
    let cases: Vec<(&str, Vec<Item<'_>>)> = vec![
        ("a path upwards", vec![file("../outside", "x")]),
        ("a path upwards in the middle", vec![file("a/../../outside", "x")]),
        ("an absolute symlink and a file through it", vec![link("out", EntryType::Symlink, "/tmp"), file("out/coracle-escaped", "x")]),
        ("a relative symlink and a file through it", vec![link("out", EntryType::Symlink, "../.."), file("out/outside", "x")]),
        ("a hard link to the outside", vec![link("passwd", EntryType::Link, "../outside-target")]),
        ("a hard link through a symlink", vec![link("etc", EntryType::Symlink, "/etc"), link("passwd", EntryType::Link, "etc/passwd")]),
        ("a whiteout of the parent", vec![file(".wh...", "")]),
        ("a raw whiteout", vec![link("null", EntryType::Char, "0:0")]),
        ("an unknown kind", vec![item("odd", EntryType::new(b'Z'))]),
        ("a file below a file", vec![file("a", "x"), file("a/b", "x")]),
    ];
    let before = fs::metadata("/etc/passwd").unwrap().nlink();
    for (name, items) in cases {
        let (dir, result) = unpacked(&items);
        fs::write(dir.path().join("outside-target"), "").ok();
        let contained = matches!(name, "an absolute symlink and a file through it" | "a relative symlink and a file through it");
        if contained {
            // Resolved inside the layer: the target does not exist there, or is the layer's own root.
            assert!(result.is_ok() || matches!(result, Err(UnpackError::Entry { .. })), "{name}: {result:?}");
        } else {
            assert!(matches!(result, Err(UnpackError::Entry { .. })), "{name}: {result:?}");
        }
        assert!(!dir.path().join("outside").exists(), "{name}");
        assert!(!Path::new("/tmp/coracle-escaped").exists(), "{name}");
        assert_eq!(fs::metadata("/etc/passwd").unwrap().nlink(), before, "{name}");
    }
}

#[test]
fn damaged_and_exchanged_layers_are_refused() {
    let good = tar_of(&[file("a", &"x".repeat(5000))]);
    let dir = tempfile::tempdir().unwrap();
    let target = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    assert!(matches!(unpack(&good[..3000], None, &target("cut"), Limits::default(), Meter::default()), Err(UnpackError::Damaged(_))));
    let other = Digest::of(b"other");
    assert!(matches!(
        unpack(&good[..], Some(&other), &target("other"), Limits::default(), Meter::default()),
        Err(UnpackError::Digest { .. })
    ));
    assert_eq!(unpack(&good[..], Some(&Digest::of(&good)), &target("good"), Limits::default(), Meter::default()).unwrap().1, 5000);
    let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut zip, &good).unwrap();
    let zip = zip.finish().unwrap();
    assert_eq!(unpack(&zip[..], Some(&Digest::of(&good)), &target("gzip"), Limits::default(), Meter::default()).unwrap().1, 5000);
    assert!(matches!(
        unpack(&zip[..zip.len() / 2], None, &target("half"), Limits::default(), Meter::default()),
        Err(UnpackError::Damaged(_))
    ));
    let zst = zstd::encode_all(&good[..], 1).unwrap();
    assert_eq!(unpack(&zst[..], Some(&Digest::of(&good)), &target("zstd"), Limits::default(), Meter::default()).unwrap().1, 5000);
}

#[test]
fn an_endless_extended_header_is_refused() {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_size(EXTENDED_BYTES + 1);
    header.set_cksum();
    let dir = tempfile::tempdir().unwrap();
    let stream = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'x'));
    assert!(matches!(unpack(stream, None, dir.path(), Limits::default(), Meter::default()), Err(UnpackError::TooLarge(_))));
}

proptest::proptest! {
    #[test]
    fn no_name_leads_out(name in "[a./]{0,12}") {
        if let Some(path) = inside(Path::new(&name)) {
            proptest::prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
        } else {
            proptest::prop_assert!(name.contains(".."));
        }
    }
}

#[test]
fn a_layer_is_bounded_in_bytes_entries_and_names() {
    let dir = tempfile::tempdir().unwrap();
    let unpacked = |tar: &[u8], limits: Limits| {
        let target = dir.path().join(super::super::blobs::unique());
        fs::create_dir(&target).unwrap();
        unpack(tar, None, &target, limits, Meter::default()).map(|(_, bytes)| bytes)
    };
    let refused = |tar: &[u8], limits: Limits, want: &str| match unpacked(tar, limits) {
        Err(UnpackError::TooLarge(what)) => assert!(what.contains(want), "{what}"),
        other => panic!("{want}: {other:?}"),
    };
    let none = Limits::default();
    let names: Vec<String> = (0..100).map(|n| format!("directory{n}")).collect();
    let many = tar_of(&names.iter().map(|name| item(name, EntryType::Directory)).collect::<Vec<_>>());
    assert_eq!(unpacked(&many, Limits { entries: 100, names: 1090, ..none }).unwrap(), 0);
    refused(&many, Limits { entries: 99, ..none }, "99 entries");
    refused(&many, Limits { names: 1089, ..none }, "names of directories");
    // A thousand times as long as what comes over the wire.
    let text = "0".repeat(4 << 20);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    io::Write::write_all(&mut bomb, &tar_of(&[file("zeros", &text)])).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 8 << 10, "{}", bomb.len());
    assert_eq!(unpacked(&bomb, none).unwrap(), 4 << 20);
    refused(&bomb, Limits { bytes: 1 << 20, ..none }, "1048576 bytes");
    assert_eq!(Limits::of_disk(Left { bytes: 1000, inodes: Some(100) }), Limits { bytes: 900, entries: 90, ..none });
    assert_eq!(Limits::of_disk(Left { bytes: u64::MAX, inodes: None }), none);
}

#[test]
fn a_name_that_comes_twice_is_what_came_last() {
    let (dir, result) = unpacked(&[
        file("a", "old"),
        file("a", "new"),
        file("b", "file"),
        item("b", EntryType::Directory),
        file("b/in", "1"),
        item("c", EntryType::Directory),
        file("c/in", "1"),
        file("c", "file"),
        link("d", EntryType::Symlink, "c"),
        file("d", "not through the link"),
    ]);
    result.unwrap();
    let root = dir.path().join("fs");
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!((read("a"), read("b/in"), read("c"), read("d")), ("new".into(), "1".into(), "file".into(), "not through the link".into()));
}
