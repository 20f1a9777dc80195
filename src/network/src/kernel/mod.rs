//! The kernel's side as seen from here: the object, its maps, where its programs are attached.

pub mod attach;
pub mod bpf;
pub mod object;
pub mod tables;
