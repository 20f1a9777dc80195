//! How a pod's network comes into another runtime's sandbox: this program is the network plugin (CNI 1.0) that the runtime calls.
//!
//! The pod's namespace is made, wired and under policy before the runtime hears of the pod. What the runtime calls the plugin with is an empty
//! namespace at a path; the plugin mounts the pod's over that path, so the pod never has another. It needs no server: a restart goes unnoticed.

mod netns;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Deserialize;
use serde_json::{Value, json};

/// The plugin's type, and so the name under which the runtime looks for the program.
const TYPE: &str = "coracle";
/// The plugin that upstream has for a namespace's loopback link; some runtimes call it beside.
const LOOPBACK: &str = "loopback";
/// The configuration's file: the runtime takes the first of its directory.
const CONF: &str = "10-coracle.conflist";
/// The link that a pod has.
const LINK: &str = "eth0";
/// Versions whose results are written here.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Bytes of a network configuration.
const CONF_BYTES: u64 = 1 << 20;

/// The runtime's own directories, as its configuration names them.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Of network configurations: `/etc/cni/net.d`.
    pub conf: PathBuf,
    /// Of plugins: `/opt/cni/bin`.
    pub bin: PathBuf,
}

/// Puts the plugin and its configuration where the runtime looks. Plugins of others stay as they are.
pub fn install(directories: &Directories, state_dir: &Path, program: &Path) -> io::Result<()> {
    fs::create_dir_all(&directories.conf)?;
    fs::create_dir_all(&directories.bin)?;
    link(program, &directories.bin.join(TYPE))?;
    let loopback = directories.bin.join(LOOPBACK);
    if fs::metadata(&loopback).is_err() || is_ours(&loopback) {
        link(program, &loopback)?;
    }
    let conf = json!({ "cniVersion": "1.0.0", "name": TYPE, "plugins": [{ "type": TYPE, "stateDir": state_dir }] });
    replace(&directories.conf.join(CONF), conf.to_string().as_bytes())
}

/// Takes away what was installed for this state directory; what is another cluster's or not ours stays.
pub fn uninstall(directories: &Directories, state_dir: &Path) -> io::Result<()> {
    let conf = directories.conf.join(CONF);
    let of_us = |conf: &Value| conf["plugins"][0]["stateDir"].as_str() == state_dir.to_str();
    match fs::read(&conf) {
        Ok(bytes) if serde_json::from_slice(&bytes).is_ok_and(|value: Value| of_us(&value)) => fs::remove_file(&conf)?,
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // Another cluster's: it has the plugins, too.
        _ => return Ok(()),
    }
    for name in [LOOPBACK, TYPE] {
        let path = directories.bin.join(name);
        if is_ours(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A plugin that is a link to the program that the type's link names, or to nothing any more, is ours.
fn is_ours(path: &Path) -> bool {
    let Ok(target) = fs::read_link(path) else { return false };
    path.file_name().is_some_and(|name| name == TYPE)
        || path.parent().is_some_and(|dir| fs::read_link(dir.join(TYPE)).is_ok_and(|ours| ours == target))
}

fn link(program: &Path, at: &Path) -> io::Result<()> {
    let new = at.with_extension("new");
    let _ = fs::remove_file(&new);
    symlink(program, &new)?;
    fs::rename(new, at)
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)?;
    fs::rename(new, path)
}

/// Which namespace the pod's sandbox is to get.
pub(super) fn offer(state_dir: &Path, uid: &str, netns: &Path) -> io::Result<()> {
    withdraw(state_dir, uid)?;
    replace(&offered(state_dir, uid)?, netns.as_os_str().as_encoded_bytes())
}

/// Whether the plugin has handed it over.
pub(super) fn is_taken(state_dir: &Path, uid: &str) -> bool {
    taken(state_dir, uid).is_ok_and(|path| path.exists())
}

/// The pod has no sandbox any more.
pub(super) fn withdraw(state_dir: &Path, uid: &str) -> io::Result<()> {
    for path in [offered(state_dir, uid)?, taken(state_dir, uid)?] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn offered(state_dir: &Path, uid: &str) -> io::Result<PathBuf> {
    let good = !uid.is_empty() && uid.len() <= 64 && uid.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{uid:?} is no uid of a pod"));
    if good { Ok(state_dir.join(uid)) } else { Err(bad()) }
}

fn taken(state_dir: &Path, uid: &str) -> io::Result<PathBuf> {
    Ok(offered(state_dir, uid)?.with_extension("taken"))
}

/// Why a call of the plugin came to nothing; the codes are CNI's.
#[derive(Debug, thiserror::Error)]
enum PluginError {
    #[error("the environment does not say {0}")]
    Environment(&'static str),
    #[error("the network configuration cannot be read: {0}")]
    Conf(#[source] io::Error),
    #[error("the network configuration is not to be understood: {0}")]
    Json(#[source] serde_json::Error),
    #[error("no plugin {0:?} is here")]
    Type(String),
    #[error("no command {0:?} is known")]
    Command(String),
    #[error("the cluster of this node has no network for the pod {uid}: {source}")]
    Unknown {
        uid: String,
        #[source]
        source: io::Error,
    },
    #[error("could not hand over the pod's network: {0}")]
    System(#[from] io::Error),
}

impl PluginError {
    fn code(&self) -> u32 {
        match self {
            Self::Environment(_) | Self::Command(_) => 4,
            Self::Conf(_) | Self::System(_) => 5,
            Self::Json(_) => 6,
            Self::Type(_) => 7,
            Self::Unknown { .. } => 11,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default)]
    cni_version: String,
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    state_dir: PathBuf,
}

/// The plugin: reads its call from the environment and standard input, as CNI has it. `None` when nobody calls it.
pub(crate) fn called() -> Option<ExitCode> {
    let command = std::env::var("CNI_COMMAND").ok()?;
    let mut input = Vec::new();
    let read = io::stdin().take(CONF_BYTES).read_to_end(&mut input).map_err(PluginError::Conf);
    let conf = read.and_then(|_| serde_json::from_slice::<Conf>(&input).map_err(PluginError::Json));
    let version = conf.as_ref().map(|conf| conf.cni_version.clone()).ok().filter(|version| !version.is_empty());
    let version = version.unwrap_or_else(|| "1.0.0".to_owned());
    let (answer, code) = match conf.and_then(|conf| serve(&command, &conf, &version)) {
        Ok(answer) => (answer, ExitCode::SUCCESS),
        Err(error) => (Some(json!({ "cniVersion": version, "code": error.code(), "msg": error.to_string() })), ExitCode::FAILURE),
    };
    if let Some(answer) = answer
        && io::stdout().write_all(answer.to_string().as_bytes()).is_err()
    {
        return Some(ExitCode::FAILURE);
    }
    Some(code)
}

fn serve(command: &str, conf: &Conf, version: &str) -> Result<Option<Value>, PluginError> {
    if command == "VERSION" {
        return Ok(Some(json!({ "cniVersion": "1.0.0", "supportedVersions": VERSIONS })));
    }
    let netns = std::env::var_os("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
    let needed = || netns.clone().ok_or(PluginError::Environment("CNI_NETNS"));
    match (conf.kind.as_str(), command) {
        (LOOPBACK, "ADD") => {
            let netns = needed()?;
            netns::loopback_up(&netns)?;
            Ok(Some(result(version, "lo", &netns, &["127.0.0.1/8".to_owned()])))
        }
        (LOOPBACK | TYPE, "GC" | "STATUS") | (LOOPBACK, "DEL" | "CHECK") => Ok(None),
        (TYPE, "ADD") => {
            let netns = needed()?;
            let uid = uid(&std::env::var("CNI_ARGS").unwrap_or_default()).ok_or(PluginError::Environment("K8S_POD_UID in CNI_ARGS"))?;
            let ours = of_pod(&conf.state_dir, &uid)?;
            if !is_same(&ours, &netns) {
                netns::bind(&ours, &netns)?;
            }
            let addresses = netns::addresses(&ours, LINK)?;
            fs::write(taken(&conf.state_dir, &uid)?, [])?;
            Ok(Some(result(version, LINK, &netns, &addresses)))
        }
        (TYPE, "CHECK") => Ok(None),
        (TYPE, "DEL") => {
            let uid = uid(&std::env::var("CNI_ARGS").unwrap_or_default());
            // What is not there any more needs no end.
            if let (Some(netns), Some(Ok(ours))) = (netns, uid.map(|uid| of_pod(&conf.state_dir, &uid))) {
                // The runtime's own is below, for the runtime to remove.
                while is_same(&ours, &netns) {
                    netns::unbind(&netns)?;
                }
            }
            Ok(None)
        }
        (LOOPBACK | TYPE, other) => Err(PluginError::Command(other.to_owned())),
        (other, _) => Err(PluginError::Type(other.to_owned())),
    }
}

fn of_pod(state_dir: &Path, uid: &str) -> Result<PathBuf, PluginError> {
    let unknown = |source| PluginError::Unknown { uid: uid.to_owned(), source };
    let text = offered(state_dir, uid).and_then(fs::read_to_string).map_err(unknown)?;
    Ok(PathBuf::from(text))
}

fn is_same(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

/// The pod's uid among `CNI_ARGS`: `K8S_POD_NAMESPACE=a;K8S_POD_UID=b`.
fn uid(args: &str) -> Option<String> {
    let args: BTreeMap<&str, &str> = args.split(';').filter_map(|arg| arg.split_once('=')).collect();
    args.get("K8S_POD_UID").filter(|uid| !uid.is_empty()).map(|uid| (*uid).to_owned())
}

/// What CNI wants to know of a link.
fn result(version: &str, link: &str, netns: &Path, addresses: &[String]) -> Value {
    let ip = |address: &String| {
        let mut ip = json!({ "address": address, "interface": 0 });
        if version.starts_with("0.") {
            ip["version"] = json!(if address.contains(':') { "6" } else { "4" });
        }
        ip
    };
    let ips: Vec<Value> = addresses.iter().map(ip).collect();
    json!({ "cniVersion": version, "interfaces": [{ "name": link, "sandbox": netns }], "ips": ips, "dns": {} })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uid_is_among_the_arguments() {
        for (args, found) in [
            ("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u-1", Some("u-1")),
            ("K8S_POD_UID=", None),
            ("", None),
        ] {
            assert_eq!(uid(args).as_deref(), found, "{args}");
        }
    }

    #[test]
    fn results_have_the_form_of_their_version() {
        let addresses = ["10.42.0.2/32".to_owned()];
        let (new, old) = (result("1.0.0", "eth0", Path::new("/n"), &addresses), result("0.3.1", "eth0", Path::new("/n"), &addresses));
        assert_eq!(new["ips"][0], json!({ "address": "10.42.0.2/32", "interface": 0 }));
        assert_eq!(old["ips"][0]["version"], "4");
    }

    #[test]
    fn offers_are_taken_and_withdrawn_and_no_path_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        offer(dir.path(), "u", Path::new("/run/n")).unwrap();
        assert_eq!(of_pod(dir.path(), "u").unwrap(), Path::new("/run/n"));
        assert!(!is_taken(dir.path(), "u"));
        fs::write(taken(dir.path(), "u").unwrap(), []).unwrap();
        assert!(is_taken(dir.path(), "u"));
        withdraw(dir.path(), "u").unwrap();
        assert!(!is_taken(dir.path(), "u") && of_pod(dir.path(), "u").is_err());
        withdraw(dir.path(), "u").unwrap();
        for uid in ["", "..", "a/b", &"a".repeat(65)] {
            assert!(offer(dir.path(), uid, Path::new("/n")).is_err(), "{uid}");
        }
    }

    #[test]
    fn what_is_installed_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let directories = Directories { conf: dir.path().join("net.d"), bin: dir.path().join("bin") };
        let program = dir.path().join("coracle-1");
        install(&directories, Path::new("/run/a"), &program).unwrap();
        install(&directories, Path::new("/run/a"), &program).unwrap();
        uninstall(&directories, Path::new("/run/b")).unwrap();
        assert!(directories.conf.join(CONF).exists(), "another cluster's stays");
        uninstall(&directories, Path::new("/run/a")).unwrap();
        assert_eq!(fs::read_dir(&directories.conf).unwrap().count() + fs::read_dir(&directories.bin).unwrap().count(), 0);

        fs::write(directories.bin.join(LOOPBACK), "theirs").unwrap();
        install(&directories, Path::new("/run/a"), &program).unwrap();
        uninstall(&directories, Path::new("/run/a")).unwrap();
        assert_eq!(fs::read(directories.bin.join(LOOPBACK)).unwrap(), b"theirs");
    }
}
