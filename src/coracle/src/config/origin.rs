//! Where the value of a flag came from, for the message that refuses it.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use clap::Command;

use super::file::Setting;

/// Values that did not come from the command line.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Variable by long flag.
    variables: BTreeMap<String, String>,
    /// File by long flag and value.
    files: BTreeMap<(String, String), PathBuf>,
}

impl Origins {
    /// Flags of the subcommand that a variable gives; what stands in its arguments goes before.
    pub fn of_environment(command: &Command, args: &[OsString]) -> Self {
        let mut variables = BTreeMap::new();
        for argument in command.get_arguments() {
            let (Some(long), Some(variable)) = (argument.get_long(), argument.get_env()) else { continue };
            let short = argument.get_short().map(|short| format!("-{short}"));
            let is_it = |word: &str| {
                let flag = word.strip_prefix("--").map(|word| word.split('=').next().unwrap_or(word));
                flag == Some(long) || short.as_ref().is_some_and(|short| word.starts_with(short))
            };
            let own = args.iter().take_while(|arg| *arg != "--");
            if std::env::var_os(variable).is_some() && !own.filter_map(|arg| arg.to_str()).any(is_it) {
                variables.insert(long.to_owned(), variable.to_string_lossy().into_owned());
            }
        }
        Self { variables, files: BTreeMap::new() }
    }

    /// With those of configuration files.
    pub fn add_files(&mut self, settings: Vec<Setting>) {
        self.files.extend(settings.into_iter().map(|s| ((s.key, s.value), s.file)));
    }

    /// ` (in FILE)`, ` (CORACLE_X)`, or nothing: it stands on the command line, or is a default.
    pub fn of(&self, flag: &str, value: &str) -> String {
        if let Some(file) = self.files.get(&(flag.to_owned(), value.to_owned())) {
            return format!(" (in {})", file.display());
        }
        self.variables.get(flag).map(|variable| format!(" ({variable})")).unwrap_or_default()
    }
}
