//! Configuration: flags over `CORACLE_*` variables over /etc/coracle/config.yaml and the files of config.yaml.d.

pub mod file;
pub mod origin;
pub mod server;
