//! The cache against a store in memory.
