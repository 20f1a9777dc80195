//! The `coracle` program.
//!
//! Hidden subcommands (a pod's shim, a container's first process, the resident DNS, the demo's workload) are dispatched first: they are
//! small processes that must not start a tokio runtime or read a configuration.

mod cli;
mod cluster;
mod commands;
mod config;
mod demo;
mod failure;
mod node;
mod parse;
mod place;
mod steps;

use std::{ffi::OsString, process::ExitCode};

use clap::CommandFactory as _;
use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let given: Vec<OsString> = std::env::args_os().collect();
    let args: Vec<String> = given.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    let resident = coracle_runtime::dispatch(std::env::args_os().skip(1))
        .or_else(|| coracle_dns::resident::dispatch(&args))
        .or_else(|| demo::dispatch(&args));
    if let Some(code) = resident {
        return code;
    }
    match parse::parse(&given).and_then(|cli| execute(&cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code)
        }
    }
}

fn execute(cli: &Cli) -> Result<(), Failure> {
    match &cli.command {
        Command::Version { output } => {
            commands::version::version(*output);
            return Ok(());
        }
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "coracle", &mut std::io::stdout());
            return Ok(());
        }
        Command::Doctor(flags) => return commands::doctor::doctor(&flags.data_dir),
        _ => {}
    }
    log(cli);
    bound_arenas();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers()).enable_all().build();
    let runtime = runtime.map_err(|e| Failure::new("cannot start").because(e))?;
    runtime.block_on(async {
        match &cli.command {
            Command::Server(flags) => commands::server::server(flags).await,
            Command::Run(flags) => commands::run::run(flags).await,
            Command::Demo(flags) => demo::demo(flags).await,
            Command::Images(flags) => commands::images::images(flags).await,
            Command::SecretsEncrypt(flags) => commands::secrets_encrypt::secrets_encrypt(flags).await,
            Command::Killall(flags) => commands::killall::killall(&flags.data_dir).await,
            Command::Version { .. } | Command::Completion { .. } | Command::Doctor(_) => Ok(()),
        }
    })
}

/// As many as the machine has, but few: a laptop's sixteen would each keep a stack and a cache.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 4)
}

/// Warnings by default; `--debug` or `CORACLE_LOG` say more.
fn log(cli: &Cli) {
    let debug = match &cli.command {
        Command::Server(flags) => flags.debug,
        Command::Run(flags) => flags.server.debug,
        _ => false,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CORACLE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(if debug { "info,coracle=debug" } else { "warn" }));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).with_target(debug).init();
}

/// After a burst glibc keeps one arena per thread (47 MB against 17 MB with one: shared notes on types).
fn bound_arenas() {
    // SAFETY: mallopt(3) only sets a number of the allocator; no other thread runs yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
