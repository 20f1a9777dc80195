//! Start-up told step by step, with milliseconds.

use std::{fmt::Display, time::Instant};

/// Prints a line per step to standard error: what is done, and when since the start of the process.
#[derive(Debug)]
pub struct Steps {
    began: Instant,
}

impl Steps {
    /// Counts from now.
    pub fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// Something is done.
    pub fn done(&self, what: impl Display) {
        eprintln!("coracle {:>6} ms  {what}", self.began.elapsed().as_millis());
    }
}
