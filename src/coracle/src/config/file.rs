//! The configuration file: every long flag is a key. Files of `<file>.d/` follow in the order of their names; `key+` appends to a list.
//!
//! A key becomes the flag that it names and clap reads both alike, so a wrong value is told the same way wherever it stands.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, parser::ValueSource};
use serde_json::Value;

/// The file that is read when none is named.
pub const DEFAULT: &str = "/etc/coracle/config.yaml";
/// Longer files are refused: no configuration is a megabyte.
const MAX_BYTES: u64 = 1 << 20;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// cannot read {0}
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// {0} is larger than 1 MiB
    #[error("{0} is larger than {MAX_BYTES} bytes")]
    TooLarge(PathBuf),
    /// {0} is not valid YAML: {1}
    #[error("{0} is not valid YAML: {1}")]
    Yaml(PathBuf, String),
    /// {file}: unknown key {key:?}{hint}
    #[error("{file}: unknown key {key:?}{hint}")]
    UnknownKey {
        /// Where it stands.
        file: PathBuf,
        /// As it stands there.
        key: String,
        /// `; did you mean "..."?`
        hint: String,
    },
    /// {file}: {key} is a switch: true or false, not {value:?}
    #[error("{file}: {key} is a switch: true or false, not {value:?}")]
    NotBool {
        /// Which key.
        key: String,
        /// As it stands there.
        value: String,
        /// Where it stands.
        file: PathBuf,
    },
    /// {file}: {key} is neither a scalar nor a list of scalars
    #[error("{file}: {key} is neither a scalar nor a list of scalars")]
    Shape {
        /// Where it stands.
        file: PathBuf,
        /// Which key.
        key: String,
    },
}

/// One value that the files give a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The long flag.
    pub key: String,
    /// As it stands in the file.
    pub value: String,
    /// Where it stands.
    pub file: PathBuf,
    /// As the command line would have it.
    pub flag: OsString,
}

/// What the configuration adds to `given`, which clap has read already: nothing that the command line or the environment set.
pub fn settings(command: &Command, given: &ArgMatches) -> Result<Vec<Setting>, ConfigError> {
    let named = given.get_one::<PathBuf>("config");
    let main = named.cloned().unwrap_or_else(|| DEFAULT.into());
    let mut values: BTreeMap<String, Vec<(String, PathBuf)>> = BTreeMap::new();
    for file in files(&main, named.is_some())? {
        for (key, value) in read(&file)? {
            let (key, append) = match key.strip_suffix('+') {
                Some(key) => (key.to_owned(), true),
                None => (key, false),
            };
            let known = command.get_arguments().find(|a| a.get_long() == Some(&*key) && key != "config");
            let Some(argument) = known else { return Err(ConfigError::UnknownKey { hint: nearest(command, &key), key, file }) };
            let scalars = scalars(&value).ok_or_else(|| ConfigError::Shape { file: file.clone(), key: key.clone() })?;
            if !argument.get_action().takes_values()
                && let Some(value) = scalars.iter().find(|value| truth(value).is_none())
            {
                return Err(ConfigError::NotBool { key, value: value.clone(), file });
            }
            let entry = values.entry(key).or_default();
            if !append {
                entry.clear();
            }
            entry.extend(scalars.into_iter().map(|scalar| (scalar, file.clone())));
        }
    }
    Ok(values.into_iter().flat_map(|(key, values)| as_flags(command, given, &key, values)).collect())
}

fn as_flags(command: &Command, given: &ArgMatches, key: &str, mut values: Vec<(String, PathBuf)>) -> Vec<Setting> {
    let Some(argument) = command.get_arguments().find(|a| a.get_long() == Some(key)) else { return Vec::new() };
    let source = given.value_source(argument.get_id().as_str());
    if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
        return Vec::new();
    }
    let takes = argument.get_action().takes_values();
    if !takes {
        // The last word counts, and a flag is said once.
        values = values.pop().into_iter().filter(|(value, _)| truth(value) == Some(true)).collect();
    }
    let flag = |value: &str| if takes { format!("--{key}={value}").into() } else { format!("--{key}").into() };
    values.into_iter().map(|(value, file)| Setting { flag: flag(&value), key: key.to_owned(), value, file }).collect()
}

/// A switch, in the words that clap takes of the environment.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Some(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn files(main: &Path, must_exist: bool) -> Result<Vec<PathBuf>, ConfigError> {
    let mut out = Vec::new();
    if must_exist || main.exists() {
        out.push(main.to_owned());
    }
    let mut directory = main.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(out),
        Err(e) => return Err(ConfigError::Read(directory, e)),
    };
    let mut more: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml")).collect();
    more.sort();
    out.extend(more);
    Ok(out)
}

fn read(file: &Path) -> Result<serde_json::Map<String, Value>, ConfigError> {
    let size = std::fs::metadata(file).map_err(|e| ConfigError::Read(file.to_owned(), e))?.len();
    if size > MAX_BYTES {
        return Err(ConfigError::TooLarge(file.to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|e| ConfigError::Read(file.to_owned(), e))?;
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(serde_json::Map::new());
    }
    serde_saphyr::from_str(&text).map_err(|e| ConfigError::Yaml(file.to_owned(), first_line(&e.to_string())))
}

/// The parser draws the place of a mistake below its message; the message names it too.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn scalars(value: &Value) -> Option<Vec<String>> {
    let scalar = |v: &Value| match v {
        Value::String(s) => Some(s.clone()),
        Value::Bool(b) => Some(b.to_string()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(items) => items.iter().map(scalar).collect(),
        other => scalar(other).map(|s| vec![s]),
    }
}

fn nearest(command: &Command, key: &str) -> String {
    let longs = command.get_arguments().filter_map(|a| a.get_long()).filter(|long| *long != "config");
    match longs.map(|long| (distance(long, key), long)).min() {
        Some((steps, long)) if steps <= 1 + key.len() / 3 => format!("; did you mean {long:?}?"),
        _ => String::new(),
    }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn check(config: &str, more: &[(&str, &str)], args: &[&str]) -> Result<Vec<String>, ConfigError> {
        let directory = tempfile::tempdir().expect("a directory");
        let main = directory.path().join("config.yaml");
        std::fs::write(&main, config).expect("written");
        std::fs::create_dir(directory.path().join("config.yaml.d")).expect("made");
        for (name, text) in more {
            std::fs::write(directory.path().join("config.yaml.d").join(name), text).expect("written");
        }
        let mut command = Cli::command();
        let args = ["coracle", "server", "--config", main.to_str().expect("UTF-8")].into_iter().chain(args.iter().copied());
        let matches = command.try_get_matches_from_mut(args).expect("valid flags");
        let server = command.find_subcommand("server").expect("there is one");
        let found = settings(server, matches.subcommand_matches("server").expect("given"))?;
        Ok(found.into_iter().map(|s| s.flag.into_string().expect("UTF-8")).collect())
    }

    #[test]
    fn keys_become_flags_unless_the_command_line_says_otherwise() {
        let config = "cluster-domain: a.b\nhttps-listen-port: 7443\nnode-label:\n  - x=y\n  - z=w\ndisable-agent: true\ndebug: false\n";
        let all = ["--cluster-domain=a.b", "--disable-agent", "--https-listen-port=7443", "--node-label=x=y", "--node-label=z=w"];
        assert_eq!(check(config, &[], &[]).expect("good"), all);
        assert_eq!(check("cluster-domain: a.b\n", &[], &["--cluster-domain", "c.d"]).expect("good"), Vec::<String>::new());
    }

    #[test]
    fn later_files_replace_or_append() {
        let more = [("1.yaml", "tls-san: b\n"), ("2.yaml", "tls-san+: [c]\n"), ("3.txt", "nonsense: 1\n")];
        assert_eq!(check("tls-san: a\n", &more, &[]).expect("good"), ["--tls-san=b", "--tls-san=c"]);
        assert_eq!(check("# nothing\n", &[], &[]).expect("good"), Vec::<String>::new());
    }

    #[test]
    fn mistakes_are_named() {
        let error = |config: &str| check(config, &[], &[]).expect_err("refused").to_string();
        assert!(error("cluster-cdir: x\n").ends_with("unknown key \"cluster-cdir\"; did you mean \"cluster-cidr\"?"));
        assert!(error("qqqqqqqqqqqqqqq: x\n").ends_with("unknown key \"qqqqqqqqqqqqqqq\""));
        assert!(error("tls-san: {a: b}\n").contains("tls-san is neither"));
        assert!(error("disable-agent: perhaps\n").ends_with("disable-agent is a switch: true or false, not \"perhaps\""));
        assert!(error("a: [\n").contains("is not valid YAML") && !error("a: [\n").contains('\n'));
    }
}
