//! The command line with what environment and configuration file add to it, and its mistakes in one line each.

use std::ffi::{OsStr, OsString};

use clap::{
    ArgMatches, Command, CommandFactory as _, FromArgMatches as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    cli::{self, Cli},
    config::{file, origin::Origins},
    failure::Failure,
};

/// Reads the arguments; `server` and `run` read the configuration file too.
pub fn parse(args: &[OsString]) -> Result<Cli, Failure> {
    let mut command = Cli::command();
    let Some((at, subcommand)) = subcommand(&command, args) else {
        let matches = command.try_get_matches_from_mut(args).map_err(|e| refuse(&e, &Origins::default()))?;
        return typed(&matches, Origins::default());
    };
    let mut origins = Origins::of_environment(&subcommand, &args[at + 1..]);
    let matches = command.try_get_matches_from_mut(args).map_err(|e| refuse(&e, &origins))?;
    let configured = matches.subcommand().filter(|(name, _)| matches!(*name, "server" | "run"));
    let Some((_, given)) = configured else { return typed(&matches, origins) };
    let settings = file::settings(&subcommand, given).map_err(Failure::of)?;
    // Flags of the file stand right behind the subcommand: before `--` and whatever follows it.
    let more = settings.iter().map(|s| s.flag.clone());
    let all: Vec<OsString> = args[..=at].iter().cloned().chain(more).chain(args[at + 1..].iter().cloned()).collect();
    origins.add_files(settings);
    let matches = command.try_get_matches_from_mut(all).map_err(|e| refuse(&e, &origins))?;
    typed(&matches, origins)
}

fn typed(matches: &ArgMatches, origins: Origins) -> Result<Cli, Failure> {
    let mut cli = Cli::from_arg_matches(matches).map_err(|e| refuse(&e, &origins))?;
    match &mut cli.command {
        cli::Command::Server(flags) => flags.origins = origins,
        cli::Command::Run(flags) => flags.server.origins = origins,
        _ => {}
    }
    Ok(cli)
}

/// The first argument, when it names a subcommand, and where it stands.
fn subcommand(command: &Command, args: &[OsString]) -> Option<(usize, Command)> {
    let name: &OsStr = args.get(1)?;
    command.get_subcommands().find(|c| name == c.get_name()).map(|c| (1, c.clone()))
}

/// Help is printed where it belongs; a mistake becomes one line.
fn refuse(error: &clap::Error, origins: &Origins) -> Failure {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) {
        error.exit();
    }
    let origin = match (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue)) {
        (Some(ContextValue::String(argument)), Some(ContextValue::String(value))) => origins.of(long(argument), value),
        _ => String::new(),
    };
    Failure::new(one_line(&error.render().to_string()) + &origin)
}

/// `--roles <ROLE,...>` is `roles`.
fn long(argument: &str) -> &str {
    let word = argument.split(' ').next().unwrap_or(argument);
    word.trim_start_matches('-')
}

/// What clap says, without its usage: its paragraphs are joined.
fn one_line(text: &str) -> String {
    let told = text.split("\nUsage:").next().unwrap_or(text).split("\nFor more information").next().unwrap_or(text);
    let lines = told.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut out = String::new();
    for line in lines.map(|line| line.strip_prefix("error: ").unwrap_or(line)) {
        let joint = if out.is_empty() {
            ""
        } else if line.starts_with("tip: ") {
            "; "
        } else {
            " "
        };
        out = out + joint + line.strip_prefix("tip: ").unwrap_or(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(args: &[&str]) -> String {
        let args: Vec<OsString> = ["coracle"].iter().chain(args).map(OsString::from).collect();
        parse(&args).expect_err("refused").to_string()
    }

    #[test]
    fn mistakes_are_one_line_and_name_what_is_near() {
        for (args, wanted) in [
            (
                &["server", "--cluster-cdir=x"][..],
                "unexpected argument '--cluster-cdir' found; a similar argument exists: '--cluster-cidr'",
            ),
            (&["sever"], "unrecognized subcommand 'sever'; a similar subcommand exists: 'server'"),
            (&["images", "import"], "the following required arguments were not provided: <FILES>..."),
            (&["completion", "csh"], "invalid value 'csh' for '<SHELL>' [possible values: bash, elvish, fish, powershell, zsh]"),
        ] {
            let text = refused(args);
            assert!(text.starts_with(wanted) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn a_value_of_the_file_is_told_with_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.yaml");
        std::fs::write(&main, "https-listen-port: many\n").expect("written");
        let text = refused(&["server", "--config", main.to_str().expect("UTF-8")]);
        assert!(text.contains("'many'") && text.ends_with(&format!(" (in {})", main.display())), "{text}");
    }
}
