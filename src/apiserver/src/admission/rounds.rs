//! The two rounds of mutating admission: who changed the object may ask that the plugins before it look again, once.

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// What plugins remember of the first round of one write.
#[derive(Debug, Default)]
pub struct Rounds {
    wanted: AtomicBool,
    second: AtomicBool,
    notes: Mutex<HashMap<&'static str, Box<dyn Any + Send>>>,
}

impl Rounds {
    /// Asks for a second round, from within the first.
    pub fn again(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether this is the second round.
    pub fn is_second(&self) -> bool {
        self.second.load(Ordering::Relaxed)
    }

    /// Begins the second round, if somebody asked for it; there is no third.
    pub(crate) fn begin_second(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && !self.second.swap(true, Ordering::Relaxed)
    }

    /// What the plugin of this name noted, which is taken out.
    pub fn take<T: Any + Default>(&self, plugin: &'static str) -> T {
        let note = self.notes.lock().unwrap_or_else(PoisonError::into_inner).remove(plugin);
        note.and_then(|note| note.downcast().ok()).map(|note| *note).unwrap_or_default()
    }

    /// Notes something for the next round.
    pub fn note<T: Any + Send>(&self, plugin: &'static str, note: T) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(plugin, Box::new(note));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_second_round_when_it_is_asked_for_and_never_a_third() {
        let rounds = Rounds::default();
        assert!(!rounds.begin_second());
        rounds.again();
        rounds.note("a", vec![1]);
        assert!(!rounds.is_second());
        assert!(rounds.begin_second() && rounds.is_second());
        rounds.again();
        assert!(!rounds.begin_second());
        assert_eq!((rounds.take::<Vec<i32>>("a"), rounds.take::<Vec<i32>>("a")), (vec![1], vec![]));
    }
}
