//! The catalogue as it is now: who reads takes a snapshot, who changes it puts another one in its place.

use std::sync::Arc;

use arc_swap::ArcSwap;
use coracle_api::catalogue::{Catalogue, builtin};
use tokio::sync::watch;

/// What is served now; clones share it.
#[derive(Clone, Debug)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    now: ArcSwap<Catalogue>,
    revision: watch::Sender<u64>,
}

impl Default for Live {
    /// The built-in kinds.
    fn default() -> Self {
        let catalogue = builtin().clone();
        let revision = watch::Sender::new(catalogue.revision());
        Self { shared: Arc::new(Shared { now: ArcSwap::from_pointee(catalogue), revision }) }
    }
}

impl Live {
    /// A snapshot, taken without a lock.
    pub fn now(&self) -> Arc<Catalogue> {
        self.shared.now.load_full()
    }

    /// Serves this from now on.
    pub(crate) fn put(&self, catalogue: Catalogue) {
        let revision = catalogue.revision();
        self.shared.now.store(Arc::new(catalogue));
        self.shared.revision.send_replace(revision);
    }

    /// Tells of every change after this call.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.revision.subscribe()
    }
}
