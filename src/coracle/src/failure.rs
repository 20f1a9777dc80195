//! How a command ends badly: one clear line with its causes, and the exit code.

use std::{error::Error, fmt};

/// A command's failure.
#[derive(Debug)]
pub struct Failure {
    text: String,
    /// What the process exits with.
    pub code: u8,
}

impl Failure {
    /// One line, exit code 1.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// The error with its causes.
    pub fn of(error: impl Error) -> Self {
        Self::new(chain(&error))
    }

    /// With the error that is behind it.
    #[must_use]
    pub fn because(mut self, error: impl Error) -> Self {
        self.text = format!("{}: {}", self.text, chain(&error));
        self
    }

    /// With another exit code.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Another program's exit code, passed on without a word.
    pub fn silent(code: u8) -> Self {
        Self { text: String::new(), code }
    }

    /// Tells it to standard error.
    pub fn print(&self) {
        if !self.text.is_empty() {
            eprintln!("coracle: {}", self.text);
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Containers, network and cgroups are root's.
pub fn need_root() -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(Failure::new("this needs root: run it with sudo (`coracle doctor` says what for)"))
    }
}

/// `what: why: why that`.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !text.ends_with(&why) {
            text = format!("{text}: {why}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_follow_in_order() {
        let error = Outer(std::io::Error::other("no luck"));
        assert_eq!(Failure::of(error).to_string(), "cannot do it: no luck");
        assert_eq!(Failure::new("x").because(std::io::Error::other("y")).to_string(), "x: y");
    }
}
