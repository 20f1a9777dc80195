//! Node ports and host ports.
