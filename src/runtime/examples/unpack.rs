//! How long an image takes to unpack, against `tar -x` of the same layers, interleaved.
//!
//! `unpack [DIRECTORY] [ROUNDS]`, as root: an image of three gzip layers is made of the directory (/usr), imported, and its layers extracted by
//! tar. Both end when the files are on the disk (syncfs). Ours also checks every digest and refuses what leads out of the layer. Prints medians and a ratio.

use std::{
    error::Error,
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use coracle_runtime::images::{Digest, ImageStore};

/// Layers of the image.
const LAYERS: usize = 3;
/// Bytes of files in it, at most.
const BYTES: u64 = 300_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let source = args.next().unwrap_or_else(|| "/usr".to_owned());
    let rounds: usize = args.next().map_or(Ok(5), |text| text.parse())?;
    let dir = tempfile::Builder::new().prefix("coracle-unpack-").tempdir_in("/var/tmp")?;
    let (entries, bytes) = image(Path::new(&source), dir.path())?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let store = ImageStore::open(&dir.path().join(format!("ours{round}")))?;
        let began = Instant::now();
        store.import(&dir.path().join("image.tar"), None)?;
        ours.push(began.elapsed());
        drop(store);
        fs::remove_dir_all(dir.path().join(format!("ours{round}")))?;

        let target = dir.path().join("theirs");
        let began = Instant::now();
        for layer in 0..LAYERS {
            let target = target.join(layer.to_string());
            fs::create_dir_all(&target)?;
            let done = Command::new("tar").arg("-xzf").arg(dir.path().join(format!("{layer}.tar.gz"))).arg("-C").arg(&target).status()?;
            if !done.success() {
                return Err("tar failed".into());
            }
        }
        rustix::fs::syncfs(File::open(&target)?)?;
        theirs.push(began.elapsed());
        fs::remove_dir_all(&target)?;
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "{LAYERS} layers, {entries} entries, {} MiB: coracle {:.2} s, tar -xz {:.2} s",
        bytes >> 20,
        ours.as_secs_f64(),
        theirs.as_secs_f64()
    );
    println!("unpack: coracle/tar {:.3}", ours.as_secs_f64() / theirs.as_secs_f64());
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Writes the layers and a tar of `docker save` with them; entries and bytes of files.
fn image(source: &Path, dir: &Path) -> Result<(usize, u64), Box<dyn Error>> {
    let mut layers: Vec<_> = (0..LAYERS).map(|_| tar::Builder::new(Vec::new())).collect();
    layers.iter_mut().for_each(|layer| layer.follow_symlinks(false));
    let (mut todo, mut entries, mut bytes) = (vec![source.to_owned()], 0, 0);
    while let Some(path) = todo.pop() {
        for entry in fs::read_dir(&path)?.flatten() {
            let (path, meta) = (entry.path(), entry.metadata()?);
            if meta.is_dir() {
                todo.push(path.clone());
            } else if !(meta.is_file() || meta.is_symlink()) || bytes + meta.len() > BYTES {
                continue;
            }
            let layer = &mut layers[entries % LAYERS];
            let name = path.strip_prefix("/")?;
            if meta.is_dir() {
                layer.append_dir(name, &path)?
            } else {
                layer.append_path_with_name(&path, name)?
            }
            (entries, bytes) = (entries + 1, bytes + if meta.is_file() { meta.len() } else { 0 });
        }
    }
    let mut archive = tar::Builder::new(File::create(dir.join("image.tar"))?);
    let mut put = |name: &str, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, data)
    };
    let (mut diffs, mut names) = (Vec::new(), Vec::new());
    for (number, layer) in layers.into_iter().enumerate() {
        let plain = layer.into_inner()?;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&plain)?;
        let packed = gzip.finish()?;
        let name = format!("{number}.tar.gz");
        fs::write(dir.join(&name), &packed)?;
        put(&name, &packed)?;
        diffs.push(Digest::of(&plain));
        names.push(name);
    }
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({"architecture": arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diffs}});
    put("c.json", config.to_string().as_bytes())?;
    let manifest = serde_json::json!([{"Config": "c.json", "RepoTags": ["unpack:bench"], "Layers": names}]);
    put("manifest.json", manifest.to_string().as_bytes())?;
    archive.finish()?;
    Ok((entries, bytes))
}
