//! What a container is made with: environment, user and rights, mounts, network files. Pure but for reading what volumes hold.

pub mod apparmor;
pub mod downward;
pub mod env;
pub mod env_file;
pub mod network_files;
pub mod security;
pub mod service_env;
pub mod user_ranges;
