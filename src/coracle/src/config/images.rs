//! How images come to the node: the flags, and what they lead to.

use std::path::{Path, PathBuf};

use clap::{Args, builder::BoolishValueParser};
use coracle_agent::images::{self, Settings, verify::Policy};
use coracle_runtime::images::{Registries, RegistriesError};

/// The file that is read when none is named, if it is there.
const REGISTRIES: &str = "/etc/coracle/registries.yaml";

const POLICIES: &str = "NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages or AlwaysVerify";
const ALLOWLIST: &str = "images without tag, or their beginnings with /* at the end, beside the policy NeverVerifyAllowlistedImages";

/// Flags of images, named as those of k3s and of the kubelet.
#[derive(Clone, Debug, Default, Args)]
pub struct ImageFlags {
    /// Mirrors of registries, and what opens them, in the format of k3s [default: /etc/coracle/registries.yaml]
    #[arg(long, env = "CORACLE_PRIVATE_REGISTRY", value_name = "FILE")]
    pub private_registry: Option<PathBuf>,
    /// Ask no registry itself that has a mirror
    #[arg(long, env = "CORACLE_DISABLE_DEFAULT_REGISTRY_ENDPOINT", value_parser = BoolishValueParser::new())]
    pub disable_default_registry_endpoint: bool,
    /// CredentialProviderConfig, a file or a directory of them: programs that give what opens registries
    #[arg(long, env = "CORACLE_IMAGE_CREDENTIAL_PROVIDER_CONFIG", value_name = "PATH", requires = "image_credential_provider_bin_dir")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory of these programs
    #[arg(long, env = "CORACLE_IMAGE_CREDENTIAL_PROVIDER_BIN_DIR", value_name = "DIR", requires = "image_credential_provider_config")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Which images that are here a pod may only use that shows what opens their registry: NeverVerify, NeverVerifyPreloadedImages,
    /// NeverVerifyAllowlistedImages or AlwaysVerify [default: NeverVerifyPreloadedImages]
    #[arg(long, env = "CORACLE_IMAGE_PULL_CREDENTIALS_VERIFICATION_POLICY", value_name = "POLICY")]
    pub image_pull_credentials_verification_policy: Option<String>,
    /// Images of NeverVerifyAllowlistedImages, without tags; /* at the end is all that begin so
    #[arg(long, env = "CORACLE_PRELOADED_IMAGES_VERIFICATION_ALLOWLIST", value_name = "IMAGE", value_delimiter = ',')]
    pub preloaded_images_verification_allowlist: Vec<String>,
    /// Pull one image after the other
    #[arg(long, env = "CORACLE_SERIALIZE_IMAGE_PULLS", value_parser = BoolishValueParser::new())]
    pub serialize_image_pulls: bool,
    /// Images that are pulled at once [default: 16]
    #[arg(long, env = "CORACLE_MAX_PARALLEL_IMAGE_PULLS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parallel_image_pulls: Option<u32>,
}

impl ImageFlags {
    /// What the agent is told; or the flag that is wrong, its value, and what it may be.
    pub fn settings(&self) -> Result<Settings, (&'static str, String, &'static str)> {
        let providers = self.image_credential_provider_config.clone().zip(self.image_credential_provider_bin_dir.clone());
        let (policy, list) =
            (self.image_pull_credentials_verification_policy.as_deref().unwrap_or_default(), &self.preloaded_images_verification_allowlist);
        Policy::named(policy, &[]).map_err(|_| ("image-pull-credentials-verification-policy", policy.to_owned(), POLICIES))?;
        let verification =
            Policy::named(policy, list).map_err(|_| ("preloaded-images-verification-allowlist", list.join(","), ALLOWLIST))?;
        let parallel_pulls = match self.max_parallel_image_pulls {
            Some(n) if n > 1 && self.serialize_image_pulls => {
                return Err(("max-parallel-image-pulls", n.to_string(), "1 beside --serialize-image-pulls"));
            }
            _ if self.serialize_image_pulls => 1,
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None => images::PULLS,
        };
        Ok(Settings { providers, verification, parallel_pulls })
    }

    /// Where images are pulled from.
    pub fn registries(&self) -> Result<Registries, RegistriesError> {
        let mut registries = registries(self.private_registry.as_deref())?;
        registries.mirrors_only = self.disable_default_registry_endpoint;
        Ok(registries)
    }
}

/// What the file says: one that is named must be there.
pub fn registries(named: Option<&Path>) -> Result<Registries, RegistriesError> {
    Registries::read(named.unwrap_or(Path::new(REGISTRIES)), named.is_some())
}
