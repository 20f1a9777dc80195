//! The commands, one file each.

pub mod doctor;
pub mod images;
pub mod killall;
pub mod run;
pub mod secrets_encrypt;
pub mod server;
pub mod signals;
pub mod version;
