//! ConfigMaps and Secrets that pods of this node use: each is watched while some pod uses it, and no other.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_client::watch::watch_object;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{container::env::Source, volume::references::References};

/// How long a pod waits for the first sight of an object.
const FIRST_SIGHT: Duration = Duration::from_secs(10);

type Data = BTreeMap<String, Vec<u8>>;

/// An object as pods use it. `None`: it was not seen yet; `Some(None)`: it does not exist.
type Sight = Option<Option<Arc<Object>>>;

/// What pods need of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Object {
    uid: String,
    data: Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ConfigMap,
    Secret,
}

type Key = (Kind, String, String);

/// One watched object; the watch ends with the last user.
struct Watched {
    sight: watch::Receiver<Sight>,
    _stop: DropGuard,
}

/// All watched objects.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    shared: Arc<Mutex<HashMap<Key, std::sync::Weak<Watched>>>>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

/// What one pod uses. Dropping it ends the watches that no other pod needs.
pub struct Used {
    watched: Vec<(Key, Arc<Watched>)>,
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Used").field("objects", &self.watched.len()).finish()
    }
}

/// The objects of a pod at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    config_maps: BTreeMap<String, Arc<Object>>,
    secrets: BTreeMap<String, Arc<Object>>,
}

impl Snapshot {
    /// A Secret's data, and its uid.
    pub fn owned_secret(&self, name: &str) -> Option<(&BTreeMap<String, Vec<u8>>, &str)> {
        self.secrets.get(name).map(|object| (&object.data, &*object.uid))
    }
}

impl Source for Snapshot {
    fn config_map(&self, name: &str) -> Option<Data> {
        self.config_maps.get(name).map(|o| o.data.clone())
    }
    fn secret(&self, name: &str) -> Option<Data> {
        self.secrets.get(name).map(|o| o.data.clone())
    }
}

/// The API has not answered in time.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the API did not tell in time of the ConfigMaps and Secrets that the pod uses")]
pub struct NotSeen;

impl Objects {
    /// Watches with this client.
    pub fn new(client: Client) -> Self {
        Self { client, shared: Arc::default() }
    }

    /// Begins (or joins) the watches of all that a pod refers to.
    pub fn using(&self, namespace: &str, references: &References) -> Used {
        let maps = references.config_maps.iter().map(|n| (Kind::ConfigMap, n));
        let keys = maps.chain(references.secrets.iter().map(|n| (Kind::Secret, n)));
        let watched = keys.map(|(kind, name)| {
            let key = (kind, namespace.to_owned(), name.clone());
            let watched = self.watched(&key);
            (key, watched)
        });
        Used { watched: watched.collect() }
    }

    fn watched(&self, key: &Key) -> Arc<Watched> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = shared.get(key).and_then(std::sync::Weak::upgrade) {
            return watched;
        }
        // Entries of ended watches go with the next new one.
        shared.retain(|_, w| w.strong_count() > 0);
        let stop = CancellationToken::new();
        let (told, sight) = watch::channel(None);
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow(self.client.clone(), key.clone(), told)));
        let watched = Arc::new(Watched { sight, _stop: stop.drop_guard() });
        shared.insert(key.clone(), Arc::downgrade(&watched));
        watched
    }
}

async fn follow(client: Client, (kind, namespace, name): Key, told: watch::Sender<Sight>) {
    let tell = |object: Option<Object>| {
        told.send_if_modified(|old| {
            let new = Some(object.map(Arc::new));
            let changed = *old != new;
            *old = new;
            changed
        });
    };
    // After an error the watch goes on by itself; the last sight stays valid.
    match kind {
        Kind::ConfigMap => {
            let mut states = watch_object::<ConfigMap>(&client, Some(&namespace), &name);
            while let Some(state) = states.next().await {
                if let Ok(object) = state {
                    tell(object.map(|o| {
                        let text = o.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes()));
                        let data = text.chain(o.binary_data.into_iter().flatten().map(|(k, v)| (k, v.0))).collect();
                        Object { uid: o.metadata.uid.unwrap_or_default(), data }
                    }));
                }
            }
        }
        Kind::Secret => {
            let mut states = watch_object::<Secret>(&client, Some(&namespace), &name);
            while let Some(state) = states.next().await {
                if let Ok(object) = state {
                    tell(object.map(|o| {
                        let data = o.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect();
                        Object { uid: o.metadata.uid.unwrap_or_default(), data }
                    }));
                }
            }
        }
    }
}

impl Used {
    /// All objects now; waits for the first sight of each.
    pub async fn snapshot(&self) -> Result<Snapshot, NotSeen> {
        let mut out = Snapshot::default();
        for ((kind, _, name), watched) in &self.watched {
            let mut sight = watched.sight.clone();
            let seen =
                tokio::time::timeout(FIRST_SIGHT, sight.wait_for(Option::is_some)).await.map_err(|_| NotSeen)?.map_err(|_| NotSeen)?;
            if let Some(Some(object)) = &*seen {
                let list = if *kind == Kind::ConfigMap { &mut out.config_maps } else { &mut out.secrets };
                list.insert(name.clone(), object.clone());
            }
        }
        Ok(out)
    }

    /// Waits until one of the objects changes. Never, when there are none.
    pub async fn changed(&self, seen: &mut Seen) {
        if self.watched.is_empty() {
            return std::future::pending().await;
        }
        if seen.receivers.len() != self.watched.len() {
            seen.receivers = self.watched.iter().map(|(_, w)| w.sight.clone()).collect();
            // What was there before the pod looked is a change too: it looks once more than needed, and never too seldom.
            seen.receivers.iter_mut().for_each(watch::Receiver::mark_unchanged);
        }
        let changes = seen.receivers.iter_mut().map(|r| Box::pin(r.changed()));
        let _ = futures::future::select_all(changes).await;
    }
}

/// What a waiter has seen.
#[derive(Default)]
pub struct Seen {
    receivers: Vec<watch::Receiver<Sight>>,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seen").finish_non_exhaustive()
    }
}
