//! Restarts, other builds, other clusters, teardown.
