//! A pod's life as tables: an in-memory node carries the actions out.
