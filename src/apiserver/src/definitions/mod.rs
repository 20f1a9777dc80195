//! CustomResourceDefinitions at run time: gives them their names, serves what they define, and clears up behind those that go.

mod book;
mod clean;

use std::{collections::HashMap, sync::Weak, time::Duration};

use coracle_api::{
    custom::{GROUP, PLURAL, names},
    status::Status,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::AbortHandle;

pub(crate) use book::Book;

use crate::registry::{Inner, Target};

/// Between two tries when a write was refused: the store is full, or the definition is not valid by today's rules.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the catalogue as the definitions have it, for ever.
pub(crate) async fn run(registry: Weak<Inner>, mut book: Book) {
    let mut cleaning = Cleaning::default();
    let mut affected = book.names();
    loop {
        let Some(inner) = registry.upgrade() else { return };
        for name in affected {
            if let Err(error) = settle(&inner, &book, &name).await {
                tracing::warn!(definition = name, error = error.message, "the status of a definition was not written");
            }
        }
        cleaning.follow(&registry, &book);
        drop(inner);
        affected = match book.next().await {
            Ok(changed) => changed,
            // The feed was too fast: what is there is read again.
            Err(_) => {
                let Some(inner) = registry.upgrade() else { return };
                book = Book::open(&inner.cache, &inner.catalogue);
                book.names()
            }
        };
    }
}

/// Writes the status that a definition should have, if it has another one.
async fn settle(inner: &Inner, book: &Book, name: &str) -> Result<(), Status> {
    let Some(target) = definition(inner, name, "status") else { return Ok(()) };
    let Some(held) = target.collection.get(name) else { return Ok(()) };
    let taken = book.taken_by_others(name);
    let wanted = |definition: &Value| names::status(definition, &taken, Timestamp::now());
    let now = held.value();
    if wanted(&now) == now["status"] {
        return Ok(());
    }
    let mut make = |old: &Value| {
        let mut new = old.clone();
        new["status"] = wanted(old);
        new
    };
    match inner.change_own(&target, &mut make).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// A definition, or a subresource of it.
fn definition(inner: &Inner, name: &str, subresource: &str) -> Option<Target> {
    let target = Target::of(&inner.catalogue.now(), &inner.cache, GROUP, PLURAL, "", name)?;
    Some(Target { subresource: subresource.to_owned(), ..target })
}

/// The definitions that are being cleared up behind, each by a task of its own.
#[derive(Default)]
struct Cleaning {
    tasks: HashMap<String, AbortHandle>,
}

impl Cleaning {
    /// Starts on those that are new.
    fn follow(&mut self, registry: &Weak<Inner>, book: &Book) {
        self.tasks.retain(|_, task| !task.is_finished());
        for ending in book.ending() {
            if !self.tasks.contains_key(&ending.uid) {
                let uid = ending.uid.clone();
                let task = tokio::spawn(clean::run(registry.clone(), ending));
                self.tasks.insert(uid, task.abort_handle());
            }
        }
    }
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}
