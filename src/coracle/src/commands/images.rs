//! `coracle images`: what the node has, without asking the API server.

use std::{path::Path, sync::Arc};

use coracle_runtime::{
    Credentials, PodRuntime as _, RuntimeError,
    embedded::EmbeddedRuntime,
    images::{ImageStore, Progress, PullOptions, Registries},
};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::{
    cli::{ImagesCommand, ImagesFlags},
    cluster, config,
    failure::Failure,
    place,
};

/// Does what was asked.
pub async fn images(flags: &ImagesFlags) -> Result<(), Failure> {
    let data_dir = &flags.data_dir.data_dir;
    match &flags.command {
        ImagesCommand::Import { files } => {
            for file in files {
                for name in import(data_dir, file)? {
                    println!("{name}");
                }
            }
        }
        ImagesCommand::Pull { images, creds, ca_file, private_registry } => {
            let credentials = creds.as_deref().map(credentials).transpose()?;
            let authority = ca_file.as_deref().map(authority).transpose()?;
            let registries = config::images::registries(private_registry.as_deref()).map_err(Failure::of)?;
            let registries = if authority.is_some() { registries.trusting(authority.into_iter().collect()) } else { registries };
            for image in images {
                pull(data_dir, image, credentials.as_slice(), &registries).await?;
            }
        }
        ImagesCommand::Export { output, images } => open(data_dir)?.export(images, output).map_err(Failure::of)?,
        ImagesCommand::Ls => list(data_dir)?,
        ImagesCommand::Prune => {
            let runtime = runtime(data_dir).await?;
            let mut bytes = 0;
            for image in runtime.images().await.map_err(Failure::of)? {
                match runtime.remove_image(&image.id).await {
                    Ok(()) => {
                        println!("{}", image.tags.first().unwrap_or(&image.id));
                        bytes += image.size;
                    }
                    // What a container uses stays.
                    Err(RuntimeError::Invalid(_)) => {}
                    Err(error) => return Err(Failure::of(error)),
                }
            }
            println!("{} in all", HumanBytes(bytes));
        }
        ImagesCommand::Rm { images } => {
            let (runtime, store) = (runtime(data_dir).await?, open(data_dir)?);
            for image in images {
                if store.get(image).map_err(Failure::of)?.is_none() {
                    return Err(Failure::new(format!("there is no image {image}")));
                }
                runtime.remove_image(image).await.map_err(Failure::of)?;
            }
        }
    }
    Ok(())
}

/// By way of the runtime it is known which images containers use.
async fn runtime(data_dir: &Path) -> Result<EmbeddedRuntime, Failure> {
    let data_dir = data_dir.canonicalize().map_err(|e| Failure::new(data_dir.display().to_string()).because(e))?;
    let id = place::id(&data_dir);
    let options = cluster::runtime_options(data_dir, place::state_dir(&id), place::cgroup(&id));
    EmbeddedRuntime::open(options).await.map_err(Failure::of)
}

/// Imports an archive; the names that it brought.
pub fn import(data_dir: &Path, archive: &Path) -> Result<Vec<String>, Failure> {
    let images = open(data_dir)?.import(archive, None).map_err(Failure::of)?;
    Ok(images.into_iter().flat_map(|image| if image.tags.is_empty() { vec![image.id] } else { image.tags }).collect())
}

/// The images of a cluster.
pub fn open(data_dir: &Path) -> Result<ImageStore, Failure> {
    ImageStore::open(&data_dir.join("runtime")).map_err(Failure::of)
}

async fn pull(data_dir: &Path, image: &str, credentials: &[Credentials], registries: &Registries) -> Result<(), Failure> {
    let store = Arc::new(open(data_dir)?);
    let bar = ProgressBar::new(0).with_message(image.to_owned());
    let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let shown = bar.clone();
    let progress = move |progress: Progress| {
        shown.set_length(progress.total);
        shown.set_position(progress.done);
    };
    let options = PullOptions { credentials, registries: registries.clone(), progress: Some(Arc::new(progress)) };
    let pulled = store.pull(image, &options).await;
    bar.finish_and_clear();
    println!("{}", pulled.map_err(|e| Failure::new(format!("cannot pull {image}")).because(e))?.id);
    Ok(())
}

fn list(data_dir: &Path) -> Result<(), Failure> {
    println!("{:<60} {:<14} SIZE", "IMAGE", "ID");
    for image in open(data_dir)?.list().map_err(Failure::of)? {
        let id = image.id.strip_prefix("sha256:").unwrap_or(&image.id);
        // One whose names others have taken is there, too.
        let none = ["<none>".to_owned()];
        let names = [&image.tags[..], &image.digests, &none].into_iter().find(|names| !names.is_empty()).unwrap_or_default();
        for name in names {
            println!("{name:<60} {:<14} {}", &id[..id.len().min(12)], HumanBytes(image.size));
        }
    }
    Ok(())
}

fn authority(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|e| Failure::new(format!("cannot read {}", file.display())).because(e))
}

fn credentials(text: &str) -> Result<Credentials, Failure> {
    let (username, password) = text.split_once(':').ok_or_else(|| Failure::new("--creds: expected user:password"))?;
    Ok(Credentials { username: username.into(), password: password.into(), token: None })
}
