//! How many requests are served at once: reads and writes have a bound each, and who exceeds it is told to come back.

use std::sync::Arc;

use coracle_api::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{authorization::masters, request::User};

/// Reads at once; upstream's default.
const READS: usize = 400;
/// Writes at once; upstream's default.
const WRITES: usize = 200;
/// When who was refused should ask again, in seconds.
const RETRY_S: u32 = 1;

/// The places that are left.
#[derive(Debug)]
pub struct InFlight {
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Default for InFlight {
    fn default() -> Self {
        Self { reads: Arc::new(Semaphore::new(READS)), writes: Arc::new(Semaphore::new(WRITES)) }
    }
}

impl InFlight {
    /// A place for the request, kept as long as the permit; none for administrators, who must get in when nobody does.
    pub fn enter(&self, user: &User, verb: &str) -> Result<Option<OwnedSemaphorePermit>, Status> {
        if user.groups.iter().any(|group| group == masters::GROUP) {
            return Ok(None);
        }
        let places = if matches!(verb, "get" | "list" | "watch") { &self.reads } else { &self.writes };
        Arc::clone(places).try_acquire_owned().map(Some).map_err(|_| {
            let mut status = Status::new(429, "TooManyRequests", "Too many requests, please try again later.");
            status.details.get_or_insert_default().retry_after_seconds = RETRY_S;
            status
        })
    }
}
