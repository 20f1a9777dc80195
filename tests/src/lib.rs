//! Harness of the end-to-end tests: the real program, the real kubectl, and nothing left behind.
//!
//! `CORACLE_BIN` names the program under test (`sh packaging/build.sh` leaves it at dist/coracle).

pub mod image;
pub mod kubectl;
pub mod memory;
pub mod server;

pub use kubectl::Kubectl;
pub use server::Server;
