//! The documents of an image, as far as a runtime reads them: index, manifest, configuration.

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// Bytes of a manifest or index; the registry protocol bounds them at 4 MiB as well.
pub(crate) const MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of a configuration.
pub(crate) const CONFIG_BYTES: u64 = 4 << 20;
/// Layers of an image: overlayfs takes no more than 500 lower directories.
pub(crate) const LAYERS: usize = 500;

/// What a document points at.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) digest: Digest,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) media_type: String,
    #[serde(default)]
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// For which machine an image is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
}

/// An index of manifests, or one manifest: told apart by what is in it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) config: Option<Descriptor>,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
}

/// An image configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Configuration {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) config: Option<Defaults>,
    #[serde(default)]
    pub(crate) rootfs: Layers,
}

/// `rootfs` of a configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Layers {
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) diff_ids: Vec<Digest>,
}

/// What containers of an image are by default; absent and null lists are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Defaults {
    /// Who it runs as.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// Executable and first arguments.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// Further arguments.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// Where it starts.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// By name or number.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
}

fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// The machine's name in image documents.
pub(crate) const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

/// The manifest of an index that is for this machine; one without a platform is for any.
pub(crate) fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == ARCHITECTURE);
    manifests.iter().find(fits).or_else(|| manifests.iter().find(|d| d.platform.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_lists_are_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"User":null,"Cmd":null,"Env":["A=1"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let read: Configuration = serde_json::from_str(text).unwrap();
        assert_eq!(read.config.unwrap(), Defaults { env: vec!["A=1".into()], ..Defaults::default() });
    }

    #[test]
    fn the_index_entry_of_this_machine_is_taken() {
        let entry = |text: &str, platform: Option<(&str, &str)>| Descriptor {
            digest: Digest::of(text.as_bytes()),
            size: 0,
            media_type: String::new(),
            platform: platform.map(|(os, architecture)| Platform { os: os.into(), architecture: architecture.into() }),
            annotations: Default::default(),
        };
        let windows = entry("w", Some(("windows", ARCHITECTURE)));
        let ours = entry("l", Some(("linux", ARCHITECTURE)));
        let any = entry("any", None);
        let pick =
            |list: &[&Descriptor]| for_this_machine(&list.iter().map(|d| (*d).clone()).collect::<Vec<_>>()).map(|d| d.digest.clone());
        assert_eq!(pick(&[&windows, &any, &ours]), Some(ours.digest.clone()));
        assert_eq!(pick(&[&windows, &any]), Some(any.digest.clone()));
        assert_eq!(pick(&[&windows]), None);
    }
}
