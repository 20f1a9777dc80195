//! One pure plan per controller, one runner that feeds, executes and records them.
