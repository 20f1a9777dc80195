//! A pod's life on this node: one pure state machine (`plan`), what it looks like (`status`), and the task that carries it out (`worker`).

pub mod absorb;
pub mod admit;
pub mod adopt;
pub mod backoff;
pub mod clock;
pub mod hooks;
pub mod life;
pub mod message;
pub mod phase;
pub mod plan;
pub mod preempt;
pub mod resize;
pub mod restart_all;
pub mod sandbox;
pub mod shown;
pub mod spec;
pub mod start;
pub mod startup;
pub mod status;
pub mod stop;
pub mod sysctls;
pub mod volumes;
pub mod worker;
pub mod write;

#[cfg(test)]
mod tests;
