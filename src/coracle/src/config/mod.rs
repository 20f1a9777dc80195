//! Configuration: flags over `CORACLE_*` variables over /etc/coracle/config.yaml and the files of config.yaml.d.

pub mod certificates;
pub mod file;
pub mod images;
pub mod node_resources;
pub mod origin;
pub mod pod_life;
pub mod server;
