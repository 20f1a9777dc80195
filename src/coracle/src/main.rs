//! The `coracle` program.

mod cli;
mod config;
mod node;
mod place;
mod steps;

fn main() {}
