//! What is known of a namespace's quotas besides their objects: which sums are our own, and what is on its way.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use coracle_api::{amounts::Map, quota::Kind};

/// Quotas of one namespace that are remembered; those that are forgotten are counted anew.
const MAX_ACCOUNTS: usize = 256;

/// One namespace.
#[derive(Debug, Default)]
pub struct Space {
    turn: tokio::sync::Mutex<()>,
    /// By the uid of the quota.
    accounts: Mutex<HashMap<String, Account>>,
    charges: AtomicU64,
}

#[derive(Debug, Default)]
struct Account {
    /// The quota as we wrote or checked it last.
    revision: u64,
    /// Whether it was us who wrote that.
    ours: bool,
    /// Kinds for which `status.used` is no less than what is there and on its way.
    trusted: HashSet<Kind>,
    /// By their number.
    pending: HashMap<u64, Pending>,
}

/// A charge whose write is not done.
#[derive(Clone, Debug)]
pub struct Pending {
    /// `namespace/name` of the object.
    pub object: String,
    /// It is not there before the write.
    pub creates: bool,
    /// What it takes.
    pub amounts: Map,
}

impl Space {
    /// Waits until no other write of the namespace is being charged.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the sum at this revision needs no check for this kind.
    pub fn trusts(&self, uid: &str, kind: &Kind, revision: u64) -> bool {
        self.accounts().get(uid).is_some_and(|account| account.revision == revision && account.trusted.contains(kind))
    }

    /// The sum at this revision has been checked for this kind.
    pub fn trust(&self, uid: &str, kind: &Kind, revision: u64) {
        let mut accounts = self.accounts();
        if accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(uid) {
            accounts.retain(|_, account| !account.pending.is_empty());
        }
        let account = accounts.entry(uid.to_owned()).or_default();
        if account.revision != revision {
            *account = Account { revision, pending: std::mem::take(&mut account.pending), ..Account::default() };
        }
        account.trusted.insert(kind.clone());
    }

    /// We wrote a sum upon the one at `before`.
    pub fn wrote(&self, uid: &str, before: u64, revision: u64) {
        let mut accounts = self.accounts();
        let account = accounts.entry(uid.to_owned()).or_default();
        if account.revision != before {
            account.trusted.clear();
        }
        (account.revision, account.ours) = (revision, true);
    }

    /// Whether the quota at this revision is as we wrote it.
    pub fn wrote_last(&self, uid: &str, revision: u64) -> bool {
        self.accounts().get(uid).is_some_and(|account| account.ours && account.revision == revision)
    }

    /// A charge begins; it ends by its number.
    pub fn begin(&self, uid: &str, pending: Pending) -> u64 {
        let number = self.charges.fetch_add(1, Ordering::Relaxed);
        self.accounts().entry(uid.to_owned()).or_default().pending.insert(number, pending);
        number
    }

    /// A charge is done with.
    pub fn end(&self, uid: &str, number: u64) {
        if let Some(account) = self.accounts().get_mut(uid) {
            account.pending.remove(&number);
        }
    }

    /// What is on its way. Who counts what is there asks this first: what ends meanwhile is found there.
    pub fn open(&self, uid: &str) -> Vec<Pending> {
        self.accounts().get(uid).map(|account| account.pending.values().cloned().collect()).unwrap_or_default()
    }
}
