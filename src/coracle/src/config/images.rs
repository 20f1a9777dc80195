//! How images come to the node: the flags, and what they lead to.

use std::path::{Path, PathBuf};

use clap::{Args, builder::BoolishValueParser};
use coracle_agent::{
    eviction::images::Collection,
    images::{self, Settings, verify::Policy},
};
use coracle_runtime::images::{Registries, RegistriesError};

use super::server::duration;

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
    /// Hundredths of the disk in use from which images go that nobody uses; 100 is never [default: 85]
    #[arg(long, env = "CORACLE_IMAGE_GC_HIGH_THRESHOLD", value_name = "PERCENT")]
    pub image_gc_high_threshold: Option<u32>,
    /// Hundredths in use down to which they go [default: 80]
    #[arg(long, env = "CORACLE_IMAGE_GC_LOW_THRESHOLD", value_name = "PERCENT")]
    pub image_gc_low_threshold: Option<u32>,
    /// How long an image stays that nobody has used yet [default: 2m]
    #[arg(long, env = "CORACLE_MINIMUM_IMAGE_TTL_DURATION", value_name = "DURATION")]
    pub minimum_image_ttl_duration: Option<String>,
    /// After how long an image goes that nobody uses, however much room there is; 0s is never [default: 0s]
    #[arg(long, env = "CORACLE_IMAGE_MAXIMUM_GC_AGE", value_name = "DURATION")]
    pub image_maximum_gc_age: Option<String>,
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
        Ok(Settings { providers, verification, parallel_pulls, collection: self.collection()? })
    }

    /// When images go.
    fn collection(&self) -> Result<Collection, (&'static str, String, &'static str)> {
        const HIGH: &str = "image-gc-high-threshold";
        const LOW: &str = "image-gc-low-threshold";
        const LEAST: &str = "minimum-image-ttl-duration";
        const MOST: &str = "image-maximum-gc-age";
        let usual = Collection::default();
        let percent = |given: Option<u32>, usual| given.map_or(usual, u64::from);
        let (high, low) =
            (percent(self.image_gc_high_threshold, usual.high_percent), percent(self.image_gc_low_threshold, usual.low_percent));
        if high > 100 {
            return Err((HIGH, high.to_string(), "from 0 to 100"));
        }
        if low >= high {
            return Err(if self.image_gc_low_threshold.is_some() {
                (LOW, low.to_string(), "less than --image-gc-high-threshold")
            } else {
                (HIGH, high.to_string(), "more than --image-gc-low-threshold")
            });
        }
        let age = |flag, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => duration(text).map(Some).ok_or_else(|| (flag, text.clone(), "a duration such as 2m or 12h")),
        };
        let least_age = age(LEAST, &self.minimum_image_ttl_duration)?.unwrap_or(usual.least_age);
        let most_age = age(MOST, &self.image_maximum_gc_age)?.filter(|age| !age.is_zero());
        if most_age.is_some_and(|most| most <= least_age) {
            return Err((MOST, self.image_maximum_gc_age.clone().unwrap_or_default(), "more than --minimum-image-ttl-duration"));
        }
        Ok(Collection { high_percent: high, low_percent: low, least_age, most_age })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn images_go_when_the_flags_say_so() {
        let text = |text: &str| Some(text.to_owned());
        let check = |flags: &ImageFlags, want: Result<Collection, &str>| {
            assert_eq!(flags.settings().map(|s| s.collection).map_err(|(flag, ..)| flag), want, "{flags:?}");
        };
        let of = |high, low, least, most| ImageFlags {
            image_gc_high_threshold: high,
            image_gc_low_threshold: low,
            minimum_image_ttl_duration: least,
            image_maximum_gc_age: most,
            ..ImageFlags::default()
        };
        let usual = Collection::default();
        check(&of(None, None, None, None), Ok(usual));
        let hours = Some(Duration::from_secs(7200));
        check(
            &of(Some(100), Some(10), text("1s"), text("2h")),
            Ok(Collection { high_percent: 100, low_percent: 10, least_age: Duration::from_secs(1), most_age: hours }),
        );
        check(&of(None, None, None, text("0s")), Ok(usual));
        check(&of(Some(101), None, None, None), Err("image-gc-high-threshold"));
        check(&of(Some(80), None, None, None), Err("image-gc-high-threshold"));
        check(&of(None, Some(85), None, None), Err("image-gc-low-threshold"));
        check(&of(None, None, text("soon"), None), Err("minimum-image-ttl-duration"));
        check(&of(None, None, None, text("2m")), Err("image-maximum-gc-age"));
    }
}
