//! Harness of the end-to-end tests: the real program, the real kubectl, and nothing left behind.
//!
//! `CORACLE_BIN` names the program under test (`sh packaging/build.sh` leaves it at dist/coracle).

pub mod containerd;
pub mod disk;
pub mod extension;
pub mod http;
pub mod image;
pub mod kubectl;
pub mod left;
pub mod manifests;
pub mod memory;
pub mod pty;
pub mod reboot;
pub mod registry;
pub mod screen;
pub mod server;
pub mod webhook;

pub use kubectl::Kubectl;
pub use server::Server;
