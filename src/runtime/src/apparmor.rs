//! AppArmor (KEP-24): whether the node has it, by which profile a container is confined, and the default profile of ours.
//!
//! What confines is written down when the container is made; its processes write it for themselves, right before they execute (`process::execute`).

use std::{fs, io, path::Path, time::Duration};

use crate::{
    AppArmor, Security, handlers,
    plugin::{self, PluginError},
};

/// The kernel's files of it.
const FILES: &str = "/sys/kernel/security/apparmor";
/// Begins with `Y` when the kernel has it on.
const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
/// What makes the kernel's form of a profile, and hands it over.
const PARSER: &str = "apparmor_parser";
/// It takes a tenth of a second; on a machine that swaps, many.
const PATIENCE: Duration = Duration::from_secs(60);
/// Profiles for parsers of later kernels say for which set of rules they were written.
const RULES: &str = "abi/3.0";
const PROFILES: &str = "/etc/apparmor.d";

/// The profile of containers that name none.
pub const DEFAULT: &str = "coracle-default";
/// A container keeps its files, network, capabilities and signals among its own; it may not mount, and not write what is the kernel's: `/proc` but for
/// processes' own files, `/proc/sys` but for shared memory's, `/sys` but for control groups, and nothing of its security modules.
const TEXT: &str = "
profile coracle-default flags=(attach_disconnected, mediate_deleted) {
  file,
  network,
  capability,
  umount,
  signal (receive),
  signal (send) peer=coracle-default,
  ptrace (trace, tracedby, read, readby) peer=coracle-default,
  ptrace (tracedby, readby) peer=unconfined,

  deny mount,
  deny pivot_root,
  deny /proc/* w,
  deny /proc/{acpi,asound,bus,driver,fs,irq,scsi}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s]**,s[^h]**,sh[^m]**} w,
  deny /proc/{sysrq-trigger,mem,kmem,kcore} rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/firmware/** rwklx,
}
";

/// Why a container cannot be confined as its pod asks.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApparmorError {
    /// the node has none
    #[error("AppArmor is not enabled on this node")]
    Disabled,
    /// nobody has loaded it
    #[error("AppArmor profile {0:?} is not loaded on this node")]
    NotLoaded(String),
    /// which are there
    #[error("could not read which AppArmor profiles are loaded")]
    Read(#[source] io::Error),
    /// nothing that loads profiles
    #[error("the default AppArmor profile is loaded by apparmor_parser, which this node does not have")]
    NoParser,
    /// it is not taken
    #[error("the default AppArmor profile is not loaded")]
    Load(#[from] PluginError),
}

/// Whether this node has it.
pub fn is_enabled() -> bool {
    Path::new(FILES).exists() && fs::read(ENABLED).is_ok_and(|text| text.first() == Some(&b'Y'))
}

/// Confines containers. Of the default profile, what an earlier version loaded is replaced once.
#[derive(Debug, Default)]
pub(crate) struct Confinement {
    loaded: tokio::sync::Mutex<bool>,
}

impl Confinement {
    /// The profile of a container; `None` is none.
    pub(crate) async fn profile(&self, security: &Security) -> Result<Option<String>, ApparmorError> {
        match wanted(security, is_enabled())? {
            Wanted::None => Ok(None),
            Wanted::Loaded(name) if is_loaded(name)? => Ok(Some(name.to_owned())),
            Wanted::Loaded(name) => Err(ApparmorError::NotLoaded(name.to_owned())),
            Wanted::Default { asked } => match self.load().await {
                Ok(()) => Ok(Some(DEFAULT.to_owned())),
                Err(error) if asked => Err(error),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "containers that ask for no AppArmor profile are unconfined");
                    Ok(None)
                }
            },
        }
    }

    /// Loads the default profile, unless this process has and it is still there.
    async fn load(&self) -> Result<(), ApparmorError> {
        let mut loaded = self.loaded.lock().await;
        if *loaded && is_loaded(DEFAULT)? {
            return Ok(());
        }
        let parser = handlers::find(PARSER).ok_or(ApparmorError::NoParser)?;
        let args = ["--replace", "--skip-cache"].map(str::to_owned);
        let rules = Path::new(PROFILES).join(RULES).exists();
        let text = if rules { format!("abi <{RULES}>,\n{TEXT}") } else { TEXT.to_owned() };
        plugin::run(&parser, &args, &[], text.as_bytes(), PATIENCE).await?;
        *loaded = true;
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    None,
    /// One that somebody has loaded.
    Loaded(&'a str),
    /// The default one.
    Default {
        /// By the pod.
        asked: bool,
    },
}

/// As containerd and CRI-O have it: a privileged container has only the profile that is named for it.
fn wanted(security: &Security, enabled: bool) -> Result<Wanted<'_>, ApparmorError> {
    match &security.apparmor {
        Some(AppArmor::Unconfined) => Ok(Wanted::None),
        None if !enabled => Ok(Wanted::None),
        Some(_) if !enabled => Err(ApparmorError::Disabled),
        Some(AppArmor::Localhost(name)) => Ok(Wanted::Loaded(name)),
        None | Some(AppArmor::RuntimeDefault) if security.privileged => Ok(Wanted::None),
        asked => Ok(Wanted::Default { asked: asked.is_some() }),
    }
}

fn is_loaded(name: &str) -> Result<bool, ApparmorError> {
    let text = fs::read_to_string(Path::new(FILES).join("profiles")).map_err(ApparmorError::Read)?;
    Ok(is_listed(&text, name))
}

/// A line is a name and, in parentheses, how it holds.
fn is_listed(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(known, _)| known == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(asked: Option<AppArmor>, privileged: bool, enabled: bool) -> Result<String, String> {
        let security = Security { apparmor: asked, privileged, ..Security::default() };
        wanted(&security, enabled).map(|wanted| format!("{wanted:?}")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_asked_for_holds_or_is_refused() {
        let named = || Some(AppArmor::Localhost("mine".to_owned()));
        let none = Ok("None".to_owned());
        assert_eq!(check(None, false, true), Ok("Default { asked: false }".to_owned()));
        assert_eq!(check(Some(AppArmor::RuntimeDefault), false, true), Ok("Default { asked: true }".to_owned()));
        assert_eq!(check(named(), false, true), Ok("Loaded(\"mine\")".to_owned()));
        assert_eq!(check(Some(AppArmor::Unconfined), false, true), none);
        for asked in [None, Some(AppArmor::RuntimeDefault), Some(AppArmor::Unconfined)] {
            assert_eq!(check(asked, true, true), none, "a privileged container");
        }
        assert_eq!(check(named(), true, true), Ok("Loaded(\"mine\")".to_owned()), "named for a privileged one");
        for asked in [None, Some(AppArmor::Unconfined)] {
            assert_eq!(check(asked, false, false), none, "a node without");
        }
        for asked in [named(), Some(AppArmor::RuntimeDefault)] {
            check(asked, false, false).expect_err("a node without");
        }
    }

    #[test]
    fn profiles_are_found_by_their_whole_names() {
        let list = "coracle-default (enforce)\n/usr/bin/man (complain)\na b (c) (enforce)\n";
        for (name, there) in [("coracle-default", true), ("coracle", false), ("/usr/bin/man", true), ("a b (c)", true), ("a b", false)] {
            assert_eq!(is_listed(list, name), there, "{name}");
        }
        assert!(TEXT.contains(&format!("profile {DEFAULT} ")) && TEXT.contains(&format!("peer={DEFAULT},")));
    }
}
