//! Writes that are on their way: what a store may wait for before it syncs.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How many writes are on their way or wait for their answer, and who hears when one fewer is.
pub(crate) trait Announcements: Send + Sync + fmt::Debug {
    /// The count.
    fn count(&self) -> &AtomicUsize;
    /// One fewer.
    fn fewer(&self);
}

/// A write that will come soon. Dropped when it has been answered, or will not come.
#[derive(Debug, Default)]
pub struct Announced(Option<Arc<dyn Announcements>>);

impl Announced {
    /// One more at `desk`.
    pub(crate) fn at(desk: Arc<dyn Announcements>) -> Self {
        desk.count().fetch_add(1, Ordering::Relaxed);
        Self(Some(desk))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        if let Some(desk) = self.0.take() {
            desk.count().fetch_sub(1, Ordering::Relaxed);
            desk.fewer();
        }
    }
}
