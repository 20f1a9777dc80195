//! How long a request may take: `?timeout=`, as Go writes durations, within the server's bound.

use std::time::Duration;

/// How long a request may take that is not a stream; upstream's default.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a duration cannot be read, as Go says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// No number.
    #[error("time: invalid duration {0:?}")]
    Invalid(String),
    /// A number alone.
    #[error("time: missing unit in duration {0:?}")]
    MissingUnit(String),
    /// A number of what?
    #[error("time: unknown unit {0:?} in duration {1:?}")]
    UnknownUnit(String, String),
}

/// The time that a request has.
pub fn of(query: &[(String, String)]) -> Result<Duration, DurationError> {
    let asked = query.iter().find(|(key, value)| key == "timeout" && !value.is_empty());
    let asked = asked.map(|(_, value)| parse(value)).transpose()?.unwrap_or(0.0);
    // None, or more than there is: what there is.
    Ok(if asked > 0.0 && asked < LONGEST.as_secs_f64() { Duration::from_secs_f64(asked) } else { LONGEST })
}

/// Seconds, of either sign.
fn parse(text: &str) -> Result<f64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (sign, mut rest) = match text.split_at_checked(1) {
        Some(("-", rest)) => (-1.0, rest),
        Some(("+", rest)) => (1.0, rest),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Ok(0.0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let amount: f64 = rest[..number].parse().map_err(|_| invalid())?;
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "" => return Err(DurationError::MissingUnit(text.to_owned())),
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            other => return Err(DurationError::UnknownUnit(other.to_owned(), text.to_owned())),
        };
        seconds += amount * scale;
        rest = &rest[unit..];
    }
    Ok(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_time_that_it_asks_for_up_to_a_bound() {
        let check = |text: &str| of(&[("timeout".into(), text.into())]);
        for (text, millis) in [
            ("", 60_000),
            ("0", 60_000),
            ("0s", 60_000),
            ("1.5s", 1500),
            ("1m", 60_000),
            ("10ms", 10),
            ("1h", 60_000),
            ("-3s", 60_000),
            ("1s500ms", 1500),
        ] {
            assert_eq!(check(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, why) in [
            ("10", "time: missing unit in duration \"10\""),
            ("x", "time: invalid duration \"x\""),
            ("-", "time: invalid duration \"-\""),
            ("1y", "time: unknown unit \"y\" in duration \"1y\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
        ] {
            assert_eq!(check(text).unwrap_err().to_string(), why);
        }
        assert_eq!(of(&[]), Ok(LONGEST));
    }
}
