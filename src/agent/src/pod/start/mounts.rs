//! What is mounted in a container: its volumes, subPaths of them, and the files that every container has.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use coracle_runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::Start;
use crate::{
    container::env,
    context::chain,
    pod::{message, status},
    volume::{self, subpath},
};

pub(super) async fn mounts(start: &Start, get: &(dyn Fn(&str) -> Option<String> + Sync)) -> Result<Vec<Mount>, String> {
    let mut planned = Vec::new();
    let can = start.sandbox.recursive_read_only;
    let volumes = start.pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let of_image = |name: &str| volumes.iter().any(|v| v.name == name && v.image.is_some());
    for mount in start.part.spec.volume_mounts.iter().flatten().filter(|m| !of_image(&m.name)) {
        if !can && mount.recursive_read_only.as_deref() == Some("Enabled") {
            return Err(format!("volume mount {:?} is to be read-only with all below it, which its runtime does not do", mount.name));
        }
        let sub = match mount.sub_path_expr.as_deref().filter(|s| !s.is_empty()) {
            Some(expression) => match env::expand(expression, get) {
                (_, Some(unknown)) => return Err(format!("missing value for {unknown:?} in the subPathExpr of {}", mount.mount_path)),
                (path, None) => path,
            },
            None => mount.sub_path.clone().unwrap_or_default(),
        };
        let recursive = mount.read_only == Some(true) && status::recursive(mount, can) == "Enabled";
        planned.push((mount.clone(), sub, recursive));
    }
    let (pod, dir, name, attempt) = (start.pod.clone(), start.ctx.pod_dir(&start.pod), start.part.spec.name.clone(), start.attempt);
    let container = start.part.spec.clone();
    let made = tokio::task::spawn_blocking(move || place(&pod, &dir, &container, &name, attempt, &planned));
    made.await.map_err(|e| e.to_string())?
}

/// Finds each mount's source, binds subPaths, and adds the files that every container has.
fn place(
    pod: &Pod,
    dir: &Path,
    container: &Container,
    name: &str,
    attempt: u32,
    planned: &[(VolumeMount, String, bool)],
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    let mut out = Vec::new();
    for (at, (mount, sub, recursive)) in planned.iter().enumerate() {
        let volume = volumes.iter().find(|v| v.name == mount.name).ok_or_else(|| format!("there is no volume {:?}", mount.name))?;
        let mut source = volume::mount::path(dir, volume);
        if !sub.is_empty() {
            let target = dir.join("volume-subpaths").join(&mount.name).join(name).join(at.to_string());
            source = subpath::bind(&source, sub, &target).map_err(|e| chain(&e))?;
        }
        // Volumes that follow objects are never written by containers.
        let follows = volume.config_map.is_some() || volume.secret.is_some() || volume.projected.is_some() || volume.downward_api.is_some();
        let read_only = mount.read_only == Some(true) || follows;
        out.push(Mount {
            source,
            destination: PathBuf::from(&mount.mount_path),
            read_only,
            recursive_read_only: *recursive,
            propagation: propagation(mount.mount_propagation.as_deref()).to_owned(),
        });
    }
    let message = message::file(dir, name, attempt);
    make_message_file(&message).map_err(|e| format!("cannot make {}: {e}", message.display()))?;
    let read_only_root = container.security_context.as_ref().and_then(|s| s.read_only_root_filesystem) == Some(true);
    let own = [
        (dir.join("etc-hosts"), "/etc/hosts", false),
        (dir.join("resolv.conf"), "/etc/resolv.conf", read_only_root),
        (dir.join("hostname"), "/etc/hostname", read_only_root),
        (message, container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log"), false),
    ];
    for (source, destination, read_only) in own {
        if out.iter().all(|m| m.destination != Path::new(destination)) {
            let destination = PathBuf::from(destination);
            out.push(Mount { source, destination, read_only, recursive_read_only: false, propagation: "private".to_owned() });
        }
    }
    Ok(out)
}

fn make_message_file(path: &Path) -> io::Result<()> {
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    fs::write(path, [])?;
    // Whoever the container runs as may write it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
}

fn propagation(of_mount: Option<&str>) -> &'static str {
    match of_mount {
        Some("HostToContainer") => "rslave",
        Some("Bidirectional") => "rshared",
        _ => "private",
    }
}
