//! The image store on real archives.

use std::{collections::HashSet, fs, path::Path};

use super::*;

/// A layer with these files.
pub(super) fn layer(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn configuration(layers: &[Vec<u8>]) -> Vec<u8> {
    let diffs: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    serde_json::to_vec(&serde_json::json!({
        "architecture": manifest::ARCHITECTURE, "os": "linux",
        "config": {"Env": ["PATH=/bin", "A=b=c"], "Entrypoint": ["/bin/sh"], "User": "7"},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }))
    .unwrap()
}

/// A tar as `docker save` makes it.
pub(super) fn saved(path: &Path, tag: &str, layers: &[Vec<u8>]) {
    let config = configuration(layers);
    let mut builder = tar::Builder::new(File::create(path).unwrap());
    let mut put = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    let names: Vec<String> = (0..layers.len()).map(|n| format!("{n}/layer.tar")).collect();
    put("manifest.json", serde_json::json!([{"Config": "c.json", "RepoTags": [tag], "Layers": names}]).to_string().as_bytes());
    put("c.json", &config);
    for (name, bytes) in names.iter().zip(layers) {
        put(name, bytes);
    }
    builder.finish().unwrap();
}

/// An OCI layout with one image; `damage` changes the layer after its digest was taken.
fn layout(dir: &Path, name: &str, bytes: &[u8], damage: bool) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        serde_json::json!({"digest": digest, "size": bytes.len(), "mediaType": "x"})
    };
    let config = put(&configuration(&[bytes.to_vec()]));
    let layer = put(bytes);
    if damage {
        fs::write(blobs.join(Digest::of(bytes).hex()), self::layer(&[("evil", "x")])).unwrap();
    }
    let mut manifest = put(serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string().as_bytes());
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": name});
    fs::write(dir.join("index.json"), serde_json::json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
}

#[test]
fn a_docker_archive_is_imported_by_any_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let layers = [layer(&[("a", "1"), ("b", "2")]), layer(&[(".wh.a", "")])];
    saved(&dir.path().join("i.tar"), "web:v1", &layers);
    let images = store.import(&dir.path().join("i.tar"), None).unwrap();
    assert_eq!(images[0].tags, ["docker.io/library/web:v1"]);
    assert_eq!(images[0].env, [("PATH".into(), "/bin".into()), ("A".into(), "b=c".into())]);
    for name in ["web:v1", "docker.io/library/web:v1", &images[0].id, &images[0].id[7..]] {
        assert_eq!(store.get(name).unwrap().unwrap().id, images[0].id, "{name}");
    }
    assert!(store.get("web:v2").unwrap().is_none());
    let (_, record) = store.record("web:v1").unwrap().unwrap();
    let dirs = store.layer_dirs(&record);
    assert_eq!(fs::read(dirs[1].join("a")).unwrap(), b"1");
    assert!(fs::symlink_metadata(dirs[0].join("a")).is_ok(), "the upper layer hides a");
}

#[test]
fn shared_layers_stay_until_the_last_image_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let base = layer(&[("base", "1")]);
    saved(&dir.path().join("one.tar"), "one", std::slice::from_ref(&base));
    saved(&dir.path().join("two.tar"), "two", &[base.clone(), layer(&[("more", "2")])]);
    store.import(&dir.path().join("one.tar"), None).unwrap();
    let two = store.import(&dir.path().join("two.tar"), None).unwrap().remove(0);
    let layers = || fs::read_dir(dir.path().join("images/layers")).unwrap().count();
    assert_eq!(layers(), 2);
    store.remove("one", &HashSet::new()).unwrap();
    assert_eq!(layers(), 2);
    let used = HashSet::from([two.id.clone()]);
    assert!(matches!(store.remove("two", &used), Err(StoreError::InUse(_))));
    assert!(store.get("two").unwrap().is_some(), "a refused removal changes nothing");
    store.remove("two", &HashSet::new()).unwrap();
    assert_eq!((layers(), store.list().unwrap().len()), (0, 0));
    assert_eq!(fs::read_dir(dir.path().join("images/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn a_damaged_index_is_read_from_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let (index, copy) = (dir.path().join("images/index.json"), dir.path().join("images/index.copy"));
    saved(&dir.path().join("i.tar"), "web", &[layer(&[("v", "1")])]);
    store.import(&dir.path().join("i.tar"), None).unwrap();
    let good = fs::read(&index).unwrap();
    fs::write(&index, &good[..good.len() / 2]).unwrap();
    assert!(store.get("web").unwrap().is_some());
    fs::remove_file(&index).unwrap();
    assert!(store.get("web").unwrap().is_some(), "and one that is lost");
    store.gc().unwrap();
    assert!(store.get("web").unwrap().is_some(), "what is in the copy alone is not taken away");
    saved(&dir.path().join("i.tar"), "more", &[layer(&[("v", "2")])]);
    store.import(&dir.path().join("i.tar"), None).unwrap();
    assert_eq!(store.read_index(INDEX).unwrap().unwrap().images.len(), 2, "the next change mends it");
    for path in [&index, &copy] {
        fs::write(path, "{").unwrap();
    }
    assert!(matches!(store.list(), Err(StoreError::Index { path, .. }) if path == index));
    fs::remove_file(&index).unwrap();
    assert!(matches!(store.list(), Err(StoreError::Index { path, .. }) if path == copy));
    fs::remove_file(&copy).unwrap();
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn an_image_without_one_of_its_layers_is_not_here_until_it_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    saved(&dir.path().join("i.tar"), "web", &[layer(&[("a", "1")]), layer(&[("b", "2")])]);
    store.import(&dir.path().join("i.tar"), None).unwrap();
    let (_, record) = store.record("web").unwrap().unwrap();
    fs::remove_dir_all(store.layer_dirs(&record)[1].parent().unwrap()).unwrap();
    assert!(store.get("web").unwrap().is_none());
    store.import(&dir.path().join("i.tar"), None).unwrap();
    assert!(store.get("web").unwrap().is_some());
    assert_eq!(fs::read(store.layer_dirs(&record)[1].join("a")).unwrap(), b"1");
}

#[test]
fn a_tag_moves_to_the_image_that_came_last() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    for text in ["old", "new"] {
        saved(&dir.path().join("i.tar"), "web", &[layer(&[("v", text)])]);
        store.import(&dir.path().join("i.tar"), None).unwrap();
    }
    let images = store.list().unwrap();
    assert_eq!((images.len(), images.iter().map(|image| image.tags.len()).sum::<usize>()), (2, 1));
}

#[test]
fn an_oci_layout_is_imported_from_a_directory_and_from_a_compressed_tar() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    layout(&dir.path().join("layout"), "example.org/app:1", &layer(&[("x", "1")]), false);
    let image = store.import(&dir.path().join("layout"), None).unwrap().remove(0);
    assert_eq!(image.tags, ["example.org/app:1"]);
    assert!(image.digests[0].starts_with("example.org/app@sha256:"), "{:?}", image.digests);
    let archive = dir.path().join("layout.tar.gz");
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(File::create(&archive).unwrap(), flate2::Compression::fast()));
    builder.append_dir_all(".", dir.path().join("layout")).unwrap();
    builder.into_inner().unwrap().finish().unwrap();
    assert_eq!(store.import(&archive, Some("renamed")).unwrap()[0].tags, ["docker.io/library/renamed:latest", "example.org/app:1"]);
}

#[test]
fn damaged_archives_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    layout(&dir.path().join("layout"), "app:1", &layer(&[("x", "1")]), true);
    assert!(matches!(store.import(&dir.path().join("layout"), None), Err(ImportError::Unpack(UnpackError::Digest { .. }))));
    fs::write(dir.path().join("not.tar"), "hello").unwrap();
    assert!(store.import(&dir.path().join("not.tar"), None).is_err());
    assert!(matches!(store.import(&dir.path().join("none"), None), Err(ImportError::Read { .. })));
    assert_eq!(store.list().unwrap().len(), 0);
    assert_eq!(fs::read_dir(dir.path().join("images/layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0);
}

#[test]
fn one_binary_makes_one_image() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let program = dir.path().join("demo");
    fs::write(&program, "#!").unwrap();
    let first = from_binary(&store, "coracle/demo", &program, &Defaults::default()).unwrap();
    assert_eq!((first.entrypoint[0].as_str(), first.tags[0].as_str()), ("/bin/demo", "docker.io/coracle/demo:latest"));
    assert_eq!(from_binary(&store, "coracle/demo", &program, &Defaults::default()).unwrap().id, first.id);
}

/// A tar with these files, as raw as an attacker would write it.
fn raw(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn archives_that_cannot_be_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let good = layer(&[("x", "1")]);
    let config = configuration(std::slice::from_ref(&good));
    let saved = |config: &str, layers: &[&str]| serde_json::json!([{"Config": config, "RepoTags": ["a"], "Layers": layers}]).to_string();
    let other = br#"{"architecture":"s390x","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let many: Vec<Digest> = (0..501).map(|n: u32| Digest::of(&n.to_be_bytes())).collect();
    let many = serde_json::json!({"architecture": ARCHITECTURE, "rootfs": {"type": "layers", "diff_ids": many}}).to_string();
    let names = vec!["l"; 501];
    let damaged = zstd::encode_all(&raw(&[("manifest.json", saved("c", &["l"]).as_bytes())])[..], 1).unwrap();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (raw(&[("manifest.json", saved("/etc/passwd", &[]).as_bytes())]), "/etc/passwd is missing"),
        (raw(&[("manifest.json", saved("../c", &[]).as_bytes()), ("../c", &config)]), "../c is missing"),
        (raw(&[("manifest.json", saved("c", &["l"]).as_bytes()), ("c", &config)]), "layer l is missing"),
        (raw(&[("manifest.json", saved("c", &[]).as_bytes()), ("c", &config)]), "0 layers for 1 entries of diff_ids"),
        (raw(&[("manifest.json", saved("c", &names).as_bytes()), ("c", many.as_bytes())]), "up to 500"),
        (raw(&[("manifest.json", saved("c", &[]).as_bytes()), ("c", other)]), "is for s390x"),
        (raw(&[("manifest.json", saved("c", &[]).as_bytes()), ("c", b"{")]), "image configuration"),
        (raw(&[("manifest.json", b"[]")]), "holds no image"),
        (raw(&[("manifest.json", &vec![b' '; (4 << 20) + 1])]), "more than 4194304 bytes"),
        (raw(&[("index.json", br#"{"manifests":[{"digest":"sha256:../x","size":1}]}"#)]), "not a sha256 digest"),
        (raw(&[("other", b"")]), "neither an OCI layout"),
        (damaged[..damaged.len() / 2].to_vec(), "could not read"),
        (good, "neither an OCI layout"),
    ];
    let path = dir.path().join("i.tar");
    for (bytes, want) in cases {
        fs::write(&path, bytes).unwrap();
        let error = crate::causes(&store.import(&path, None).expect_err(want));
        assert!(error.contains(want), "{want}: {error}");
        assert!(error.contains("i.tar"), "{error}");
    }
    assert_eq!(store.list().unwrap().len(), 0);
    assert_eq!(fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0);
}

#[test]
fn a_link_of_an_archive_leads_only_to_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(dir.path()).unwrap();
    let content = layer(&[("x", "1")]);
    let archive = |target: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut put = |name: &str, bytes: &[u8], link: Option<&str>| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            match link {
                Some(link) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    tar.append_link(&mut header, name, link).unwrap();
                }
                None => tar.append_data(&mut header, name, bytes).unwrap(),
            }
        };
        put("0/layer.tar", &content, None);
        put("1/layer.tar", b"", Some(target));
        put("c", &configuration(std::slice::from_ref(&content)), None);
        put("manifest.json", br#"[{"Config":"c","RepoTags":["a"],"Layers":["1/layer.tar"]}]"#, None);
        tar.into_inner().unwrap()
    };
    let path = dir.path().join("i.tar");
    let outside = dir.path().join("outside.tar");
    fs::write(&outside, &content).unwrap();
    for target in [outside.to_str().unwrap(), "../../../../etc/passwd", "missing"] {
        fs::write(&path, archive(target)).unwrap();
        let error = crate::causes(&store.import(&path, None).expect_err(target));
        assert!(error.contains("layer 1/layer.tar is missing"), "{target}: {error}");
    }
    fs::write(&path, archive("../0/layer.tar")).unwrap();
    store.import(&path, None).unwrap();
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_damage_to_an_archive_is_more_than_an_error(places in proptest::collection::vec((0usize..8192, proptest::prelude::any::<u8>()), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path()).unwrap();
        let path = dir.path().join("i.tar");
        saved(&path, "web:v1", &[layer(&[("a", "1")])]);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in places {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        fs::write(&path, bytes).unwrap();
        let images = store.import(&path, None).map_or(0, |images| images.len());
        proptest::prop_assert!(store.list().unwrap().len() <= images.max(1));
        proptest::prop_assert_eq!(fs::read_dir(dir.path().join("images/incoming")).unwrap().count(), 0);
    }
}
