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
    pub(crate) platform: Option<Platform>,
    #[serde(default)]
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

/// For which machine an image is.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

/// An index of manifests, or one manifest: told apart by what is in it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    /// 1 is a format of before 2016, which has no configuration.
    #[serde(default, rename = "schemaVersion")]
    pub(crate) schema: u32,
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

/// The manifest of an index that suits this machine best; one without a platform is for any.
pub(crate) fn for_this_machine(manifests: &[Descriptor]) -> Option<&Descriptor> {
    best(ARCHITECTURE, manifests)
}

/// Whether a configuration of this architecture runs here.
pub(crate) fn runs_here(architecture: &str) -> bool {
    architecture.is_empty() || architecture == ARCHITECTURE || (ARCHITECTURE == "arm64" && architecture == "arm")
}

fn best<'a>(machine: &str, manifests: &'a [Descriptor]) -> Option<&'a Descriptor> {
    let ranked = manifests.iter().filter_map(|d| Some((d.platform.as_ref().map_or(Some(u8::MAX), |p| rank(machine, p))?, d)));
    // The first of equals: `min_by_key` keeps it.
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, d)| d)
}

/// How well a platform suits: 0 is best, `None` not at all. A machine runs what its family's older members run.
fn rank(machine: &str, platform: &Platform) -> Option<u8> {
    if platform.os != "linux" {
        return None;
    }
    let variant = platform.variant.as_deref().unwrap_or_default();
    match (machine, &*platform.architecture, variant) {
        ("amd64", "amd64", "" | "v1") | ("arm64", "arm64", "" | "v8") => Some(0),
        ("arm64", "arm64", older) if older.starts_with("v8.") => Some(1),
        ("arm64", "arm", "v8") => Some(2),
        ("arm64", "arm", "" | "v7") => Some(3),
        ("arm64", "arm", "v6") => Some(4),
        ("arm64", "arm", "v5") => Some(5),
        _ => None,
    }
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
            platform: platform.map(|(os, architecture)| Platform { os: os.into(), architecture: architecture.into(), variant: None }),
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

    #[test]
    fn the_variant_that_suits_best_is_taken() {
        let pick = |machine: &str, list: &[(&str, &str)]| {
            let entries: Vec<Descriptor> = list
                .iter()
                .map(|(architecture, variant)| Descriptor {
                    digest: Digest::of(format!("{architecture}/{variant}").as_bytes()),
                    size: 0,
                    platform: Some(Platform {
                        os: "linux".into(),
                        architecture: (*architecture).into(),
                        variant: Some((*variant).into()).filter(|v: &String| !v.is_empty()),
                    }),
                    annotations: Default::default(),
                })
                .collect();
            best(machine, &entries).and_then(|found| entries.iter().position(|entry| entry.digest == found.digest))
        };
        for (machine, list, want) in [
            ("arm64", &[("arm", "v7"), ("arm64", "v8")][..], Some(1)),
            ("arm64", &[("arm", "v5"), ("arm", "v7"), ("arm", "v6")], Some(1)),
            ("arm64", &[("arm64", "v9"), ("arm64", "")], Some(1)),
            ("amd64", &[("amd64", "v3"), ("amd64", "v1")], Some(1)),
            ("amd64", &[("amd64", "v3"), ("386", "")], None),
            ("amd64", &[("amd64", ""), ("amd64", "v1")], Some(0)),
        ] {
            assert_eq!(pick(machine, list), want, "{machine} {list:?}");
        }
    }
}
