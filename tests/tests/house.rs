//! The house checks itself: the floors of docs/architecture.md against cargo metadata, and what must be absent from a room.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What each crate may use of ours. Foundations know no role, roles know the API only through `client`.
const FLOORS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &[]),
    ("pki", &[]),
    ("runtime", &[]),
    ("client", &[]),
    ("apiserver", &["api", "store", "pki"]),
    ("dns", &["client"]),
    ("network", &["client"]),
    ("agent", &["api", "client", "network", "pki", "runtime"]),
    ("scheduler", &["api", "client"]),
    ("controllers", &["api", "client", "pki"]),
];

/// No file is longer.
const MAX_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the house").to_owned()
}

fn sources(crate_: &str) -> Vec<(PathBuf, String)> {
    let found = rust_files(&root().join("src").join(crate_).join("src"));
    assert!(!found.is_empty(), "{crate_} has sources");
    found
}

fn rust_files(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display())).flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is text");
                found.push((path, text));
            }
        }
    }
    found
}

fn crates() -> Vec<String> {
    let entries = fs::read_dir(root().join("src")).expect("src/ is there").flatten();
    entries.filter(|e| e.path().join("Cargo.toml").exists()).filter_map(|e| e.file_name().into_string().ok()).collect()
}

#[test]
fn a_crate_uses_only_crates_below_it() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let floors: BTreeMap<&str, &[&str]> = FLOORS.iter().copied().collect();
    let mut seen = BTreeSet::new();
    for package in metadata["packages"].as_array().expect("packages") {
        let Some(name) = package["name"].as_str().and_then(|n| n.strip_prefix("coracle-")).filter(|n| *n != "tests") else { continue };
        let allowed = floors.get(name).unwrap_or_else(|| panic!("{name} is not in the drawing"));
        seen.insert(name.to_owned());
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter().filter(|d| d["kind"].is_null());
        for used in dependencies.filter_map(|d| d["name"].as_str()?.strip_prefix("coracle-")) {
            assert!(used == "ebpf-common" || allowed.contains(&used), "{name} stands on {used}, which the drawing does not show");
        }
    }
    assert_eq!(seen.len(), FLOORS.len(), "every crate of the drawing exists");
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    for crate_ in crates() {
        for (path, text) in sources(&crate_) {
            assert!(text.starts_with("//! "), "{} opens with one line that says what it is", path.display());
            let lines = text.lines().count();
            assert!(lines <= MAX_LINES, "{} has {lines} lines, the bound is {MAX_LINES}", path.display());
            let name = path.file_stem().and_then(|n| n.to_str()).unwrap_or_default();
            assert!(!["util", "utils", "common", "helpers", "manager"].contains(&name), "{} is named for nothing", path.display());
            for unfinished in [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!(")] {
                assert!(!text.contains(unfinished), "{} is unfinished: {unfinished}", path.display());
            }
        }
    }
}

#[test]
fn the_vocabulary_is_pure() {
    for (path, text) in sources("api") {
        for (word, why) in [
            (".await", "waits"),
            ("Timestamp::now", "reads a clock"),
            ("SystemTime", "reads a clock"),
            ("std::net::Tcp", "opens sockets"),
            ("apiserver::", "knows the front"),
        ] {
            assert!(!text.contains(word), "{} {why} ({word})", path.display());
        }
    }
}

#[test]
fn controllers_and_scheduler_open_no_socket_and_start_no_process() {
    for crate_ in ["controllers", "scheduler"] {
        for (path, text) in sources(crate_) {
            for word in ["TcpStream", "TcpListener", "UdpSocket", "process::Command", "Command::new"] {
                assert!(!text.contains(word), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn only_the_runtime_the_resident_and_run_start_processes() {
    let allowed = ["src/runtime/", "src/coracle/src/commands/run.rs", "src/dns/src/"];
    for crate_ in crates() {
        for (path, text) in sources(&crate_) {
            let path = path.strip_prefix(root()).expect("in the house").display().to_string();
            let is_test = path.ends_with("tests.rs") || path.contains("/tests/") || text.contains("#[cfg(test)]");
            let starts = text.contains("Command::new");
            assert!(!starts || is_test || allowed.iter().any(|a| path.starts_with(a)), "{path} starts a process");
        }
    }
}

/// `docs/SPECIFICATION.md` names tests as `crate: ` and names in backticks: functions, or files and modules of tests.
#[test]
fn every_test_of_the_specification_exists() {
    let text = fs::read_to_string(root().join("docs/SPECIFICATION.md")).expect("the specification");
    let mut named = 0;
    for (crate_, name) in named_tests(&text) {
        let directory = if crate_ == "tests" { root().join("tests") } else { root().join("src").join(crate_) };
        assert!(directory.is_dir(), "the specification names the crate {crate_}");
        let found = rust_files(&directory).iter().any(|(path, text)| {
            let is_test = path.components().any(|c| c.as_os_str() == "tests")
                || text.contains("#[cfg(test)]")
                || path.to_string_lossy().ends_with("tests.rs");
            let is_file =
                path.file_stem().is_some_and(|stem| stem == name) || path.parent().and_then(Path::file_name).is_some_and(|d| d == name);
            is_test && (is_file || text.contains(&format!("fn {name}(")))
        });
        assert!(found, "the specification names a test of {crate_} that does not exist: {name}");
        named += 1;
    }
    assert!(named > 10, "the names are found");
}

/// Pairs of crate and name.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for cell in text.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('|')) {
        for part in cell.split(';') {
            let Some((crate_, names)) = part.trim().split_once(": ") else { continue };
            if crate_ != "tests" && !FLOORS.iter().any(|(name, _)| *name == crate_) {
                continue;
            }
            let names = names.split(" (").next().unwrap_or(names);
            found.extend(names.split('`').skip(1).step_by(2).map(|name| (crate_, name)));
        }
    }
    found
}

#[test]
fn names_of_tests_are_read_off_a_table() {
    let row = "| a promise | store: `a`, `b` (of 3); tests: `c` | bench: store |";
    assert_eq!(named_tests(row), [("store", "a"), ("store", "b"), ("tests", "c")]);
}

/// Licences that the house lets in; an expression with OR needs one of them, with AND all.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MPL-2.0",
    "0BSD",
    "Zlib",
    "Unlicense",
    "CC0-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "bzip2-1.0.6",
];

/// Crates whose manifest names a file instead of an expression, read by us.
const READ: &[(&str, &str)] = &[];

fn allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], " ").replace('/', " OR ");
    let fine = |licence: &str| LICENCES.contains(&licence.split_whitespace().collect::<Vec<_>>().join(" ").as_str());
    // `A AND (B OR C)` reads as `A AND B` or `C`: stricter readings of a permissive list are not needed.
    plain.split(" OR ").any(|either| either.split(" AND ").all(fine))
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output();
    let output = output.expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100, "all dependencies are listed");
    let refused: Vec<String> = packages
        .iter()
        .filter(|p| !p["license"].as_str().is_some_and(allowed) && !READ.iter().any(|(name, _)| p["name"] == *name))
        .map(|p| format!("{} {}", p["name"], p["license"]))
        .collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

#[test]
fn licences_are_read_as_expressions() {
    for (expression, good) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/Apache-2.0", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-2.0", false),
    ] {
        assert_eq!(allowed(expression), good, "{expression}");
    }
}
