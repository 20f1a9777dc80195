//! `coracle demo`: proves a cluster with a real workload, made of this binary itself.

mod ask;
mod kill;
mod objects;
mod proof;
mod serve;

use std::process::ExitCode;

pub use ask::ask_dns;
pub use proof::demo;

/// The hidden subcommand that is the workload: `__demo serve` and `__demo ask URL PODS`.
pub const WORKLOAD: &str = "__demo";

/// Is the workload, if the arguments say so.
pub fn dispatch(args: &[String]) -> Option<ExitCode> {
    match args {
        [_, word, rest @ ..] if word == WORKLOAD => Some(match rest.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["serve"] => serve::serve(),
            ["ask", host, pods] => ask::ask(host, pods.parse().unwrap_or(1)),
            _ => ExitCode::from(2),
        }),
        _ => None,
    }
}
