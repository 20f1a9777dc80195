//! How many watches are open: each holds a few KiB for as long as its client likes, so all have a bound, and what one user may hold a smaller one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use coracle_api::status::Status;

/// Watches at once. One costs some 8 KiB with its stream, so all cost no more than 80 MiB; a node with its pods has about ten.
const WATCHES: usize = 10_000;
/// Watches of one user at once, so that nobody takes them all.
pub(super) const WATCHES_OF_A_USER: usize = 5_000;
/// When who was refused should ask again, in seconds: watches last long.
const RETRY_S: u32 = 10;

/// The watches that are open.
#[derive(Debug, Default)]
pub struct Watches {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_user: HashMap<Arc<str>, usize>,
}

/// The place of one watch, free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    watches: Arc<Watches>,
    user: Arc<str>,
}

impl Watches {
    /// A place for a watch of this user.
    pub fn enter(self: &Arc<Self>, user: &str) -> Result<Place, Status> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.by_user.get(user).copied().unwrap_or_default();
        if own >= WATCHES_OF_A_USER {
            return Err(refused(&format!("{user:?} has {own} watches open, and no user may have more")));
        }
        if open.all >= WATCHES {
            return Err(refused(&format!("{WATCHES} watches are open, which is all that this server keeps")));
        }
        let user: Arc<str> = match open.by_user.get_key_value(user) {
            Some((known, _)) => Arc::clone(known),
            None => user.into(),
        };
        open.all += 1;
        *open.by_user.entry(Arc::clone(&user)).or_default() += 1;
        drop(open);
        Ok(Place { watches: Arc::clone(self), user })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.watches.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(own) = open.by_user.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                open.by_user.remove(&self.user);
            }
        }
    }
}

fn refused(why: &str) -> Status {
    let mut status = Status::new(429, "TooManyRequests", format!("too many watches: {why}"));
    status.details.get_or_insert_default().retry_after_seconds = RETRY_S;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_does_not_take_them_all() {
        let watches = Arc::new(Watches::default());
        let mut held: Vec<Place> = (0..WATCHES_OF_A_USER).map(|_| watches.enter("greedy").expect("a place")).collect();
        let refusal = watches.enter("greedy").expect_err("too many");
        assert_eq!((refusal.code, refusal.reason), (429, "TooManyRequests"));
        assert!(refusal.message.contains("greedy") && refusal.details.is_some_and(|d| d.retry_after_seconds == RETRY_S));
        held.extend((WATCHES_OF_A_USER..WATCHES).map(|i| watches.enter(&format!("u{i}")).expect("a place")));
        assert!(watches.enter("late").expect_err("all are taken").message.contains("all that this server keeps"));
        held.clear();
        assert!(watches.enter("greedy").is_ok());
        let open = watches.open.lock().expect("no panic");
        assert_eq!((open.all, open.by_user.len()), (0, 0), "nothing is kept of who has left");
    }
}
