//! The images of the node's pods: what opens registries, who may use what is here already, how many are pulled at once.

pub mod keys;
pub mod pattern;
pub mod provider;
pub mod records;
pub mod verify;

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
};

use coracle_runtime::{Image, PodRuntime, PullError};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{
    keys::{Key, Owner, Source},
    provider::{
        Providers,
        config::{self, ConfigError},
    },
    records::{Access, Records, SecretUse},
    verify::{Policy, Shown, Verdict},
};
use crate::{context::Context, eviction::images::Collection, objects::Snapshot, pod::spec};

/// Pulls of different images at once, where nothing else is said: each has some buffers and connections.
pub const PULLS: usize = 16;

/// What the node is told of images.
#[derive(Clone, Debug)]
pub struct Settings {
    /// CredentialProviderConfig, and the directory of the programs.
    pub providers: Option<(PathBuf, PathBuf)>,
    /// Who may use what is here.
    pub verification: Policy,
    /// At least one.
    pub parallel_pulls: usize,
    /// When those that nobody uses go.
    pub collection: Collection,
}

impl Default for Settings {
    fn default() -> Self {
        Self { providers: None, verification: Policy::default(), parallel_pulls: PULLS, collection: Collection::default() }
    }
}

/// Why images cannot be brought.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// the credential providers cannot be used
    #[error("the credential providers cannot be used")]
    Providers(#[from] ConfigError),
    /// what was pulled with what is not to be read
    #[error("the records of pulls in {} cannot be used", path.display())]
    Records {
        /// Where they are.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What the node knows of images beside the runtime.
#[derive(Debug)]
pub struct Images {
    providers: Option<Providers>,
    verification: Policy,
    records: Records,
    pulls: Semaphore,
}

impl Images {
    /// Reads the configuration, and brings the records up to date with what the runtime has.
    pub async fn open(settings: &Settings, dir: &Path, runtime: &dyn PodRuntime) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Records { path: dir.to_owned(), source };
        let providers = match &settings.providers {
            Some((file, bin_dir)) => Some(Providers::new(config::read(file, bin_dir)?)),
            None => None,
        };
        let records = Records::open(dir).map_err(failed)?;
        match runtime.images().await {
            Ok(here) => {
                let find = |name: &str| {
                    let full = coracle_runtime::images::normalise(name).ok()?;
                    here.iter().find(|image| image.tags.contains(&full) || image.digests.contains(&full)).map(|image| image.id.clone())
                };
                records.recover(find, Timestamp::now()).map_err(failed)?;
                records.prune(&here.iter().map(|image| &*image.id).collect()).map_err(failed)?;
            }
            // They stay as they are until the next start: an intent counts as a pull.
            Err(error) => tracing::warn!(%error, "the records of pulls are not compared with the images"),
        }
        let pulls = Semaphore::new(settings.parallel_pulls.clamp(1, Semaphore::MAX_PERMITS));
        Ok(Self { providers, verification: settings.verification.clone(), records, pulls })
    }

    /// Forgets images that are not here any more.
    pub fn forget(&self, here: &HashSet<&str>) {
        if let Err(error) = self.records.prune(here) {
            tracing::warn!(%error, "records of images that are gone stay");
        }
    }

    /// What opens the image for the pod: its Secrets, then what credential providers give. `None` for Secrets that are not known yet.
    pub async fn keys(&self, ctx: &Context, pod: &Pod, secrets: Option<&Snapshot>, name: &str) -> Vec<Key> {
        let Ok(full) = coracle_runtime::images::normalise(name) else { return Vec::new() };
        let image = verify::without_version(&full);
        let mut out = Vec::new();
        let named = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
        for (name, data, uid) in named.filter_map(|r| secrets?.owned_secret(&r.name).map(|(data, uid)| (&r.name, data, uid))) {
            let owner = Owner { namespace: spec::namespace(pod).to_owned(), name: name.clone(), uid: uid.to_owned() };
            let list = keys::of_secret(data, image).into_iter();
            out.extend(list.map(|credentials| Key { credentials, source: Source::Secret(owner.clone()) }));
        }
        if let Some(providers) = &self.providers {
            out.extend(providers.keys(ctx, pod, image).await);
        }
        out
    }

    /// Whether a pod must show keys to use an image that is here: without them the answer is known for nearly all.
    pub fn asks(&self, image: &Image, name: &str) -> bool {
        if self.verification == Policy::NeverVerify {
            return false;
        }
        let known = self.records.find(&image.id);
        let pulled = known.is_some() || self.records.is_intended(name);
        let open =
            || known.as_ref().and_then(|record| record.access(verify::without_version(name))).is_some_and(|a| a.node_pods_accessible);
        self.verification.asks(name, pulled) && !open()
    }

    /// Whether these keys are on record for an image that is here.
    pub fn may(&self, image: &Image, name: &str, keys: &[Key]) -> bool {
        let bare = verify::without_version(name);
        let known = self.records.find(&image.id);
        let secret = |key: &Key| match &key.source {
            Source::Secret(owner) => Some(SecretUse { owner: owner.clone(), credential_hash: key.hash() }),
            _ => None,
        };
        let account = |key: &Key| match &key.source {
            Source::ServiceAccount(owner) => Some(owner.clone()),
            _ => None,
        };
        let shown = Shown { secrets: keys.iter().filter_map(secret).collect(), account: keys.iter().find_map(account) };
        match verify::judge(known.as_ref().and_then(|record| record.access(bare)), &shown) {
            Verdict::Allowed => true,
            Verdict::Learned(secret) => {
                let access = Access { kubernetes_secrets: vec![secret], ..Access::default() };
                if let Err(error) = self.records.learn(&image.id, bare, access, Timestamp::now()) {
                    tracing::warn!(%error, image = name, "what opens the image is not remembered");
                }
                true
            }
            Verdict::Unknown => false,
        }
    }

    /// Waits for its turn.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.pulls.acquire().await.ok()
    }

    /// Pulls with one key after the other, and puts on record which one opened.
    pub async fn pull(&self, runtime: &dyn PodRuntime, name: &str, keys: &[Key]) -> Result<Image, PullError> {
        let unrecorded = |source| PullError::System { what: "could not record what is pulled".to_owned(), source };
        self.records.begin(name).map_err(unrecorded)?;
        let mut intended = Intended { records: &self.records, name, pulled: None };
        let mut last = None;
        let tries: Vec<Option<&Key>> = if keys.is_empty() { vec![None] } else { keys.iter().map(Some).collect() };
        for key in tries {
            let credentials: Vec<_> = key.iter().map(|key| key.credentials.clone()).collect();
            match runtime.pull(name, &credentials).await {
                Ok(image) => {
                    intended.pulled = Some((image.id.clone(), Access::of(key)));
                    return Ok(image);
                }
                // Another key opens no door at which nobody answers.
                Err(error @ (PullError::InvalidName(_) | PullError::Unavailable(_) | PullError::System { .. })) => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| PullError::Refused(format!("nothing opens {name}"))))
    }
}

/// A pull that is on record as begun; its end is, too, also when nobody waits for it any more.
struct Intended<'a> {
    records: &'a Records,
    name: &'a str,
    pulled: Option<(String, Access)>,
}

impl Drop for Intended<'_> {
    fn drop(&mut self) {
        let pulled = self.pulled.take();
        let pulled = pulled.as_ref().map(|(id, access)| (id.as_str(), access.clone()));
        if let Err(error) = self.records.end(self.name, pulled, Timestamp::now()) {
            tracing::warn!(%error, image = self.name, "what the image was pulled with is not remembered");
        }
    }
}
