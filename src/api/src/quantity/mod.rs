//! Quantities: numbers with a unit as Kubernetes writes them (`500m`, `1Gi`, `12E`), exact to 1e-9 and canonical when printed.
//!
//! The rules are those of apimachinery's `resource.Quantity`: finer than a billionth is rounded away from zero, and the suffix's family
//! (binary, decimal, exponent) is kept when the number is printed again.

use std::{cmp::Ordering, fmt, str::FromStr};

/// Billionths in one.
const NANO: i128 = 1_000_000_000;
/// Longest text that is read; what is longer is no number that anyone meant.
const MAX_TEXT: usize = 256;
/// Digits of a number that upstream reads without its cap.
const MAX_SHORT_DIGITS: usize = 18;
/// Longer ones are held to 2^63-1 units.
const MAX_UNITS: i128 = i64::MAX as i128;

/// The family of suffixes that a quantity is printed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A number with a unit. Equality and order are those of the value: `1000m == 1`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// unable to parse quantity's suffix
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// A whole number.
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, format: Format::Decimal }
    }

    /// Thousandths, as CPU is counted.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * (NANO / 1000), format: Format::Decimal }
    }

    /// Bytes, printed with binary suffixes.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: Format::Binary }
    }

    /// Rounded up to whole units, and held to the range of i64.
    pub fn units(&self) -> i64 {
        clamp(div_away(self.nanos, NANO))
    }

    /// Rounded up to thousandths, and held to the range of i64.
    pub fn millis(&self) -> i64 {
        clamp(div_away(self.nanos, NANO / 1000))
    }

    /// -1, 0 or 1.
    pub fn signum(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// The sum, in the format of `self` (of `other` where `self` is zero).
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// The difference, in the format of `self`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos), format: self.format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        if text.len() > MAX_TEXT {
            return Err(ParseQuantityError::Format);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseQuantityError::Format);
        }
        let (scale, format) = parse_suffix(suffix)?;
        let magnitude = match scale {
            Scale::Ten(exponent) => decimal(whole, fraction, exponent),
            Scale::Two(shift) => binary(whole, fraction, shift),
        };
        // Upstream caps what its fast path for short decimal numbers does not take; `12E` is above the cap and still good.
        let short = matches!(scale, Scale::Ten(_)) && number.len() <= MAX_SHORT_DIGITS && magnitude < i128::MAX / 2;
        let nanos = if short { magnitude } else { magnitude.min(MAX_UNITS * NANO) };
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::Binary && self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0;
        if binary {
            let (mut value, mut power) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (Format::Exponent, 0) => write!(f, "{value}"),
            (Format::Exponent, _) => write!(f, "{value}e{exponent}"),
            _ => write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize]),
        }
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn parse_suffix(suffix: &str) -> Result<(Scale, Format), ParseQuantityError> {
    let scale = match suffix {
        "" => (Scale::Ten(0), Format::Decimal),
        "n" => (Scale::Ten(-9), Format::Decimal),
        "u" => (Scale::Ten(-6), Format::Decimal),
        "m" => (Scale::Ten(-3), Format::Decimal),
        "k" => (Scale::Ten(3), Format::Decimal),
        "M" => (Scale::Ten(6), Format::Decimal),
        "G" => (Scale::Ten(9), Format::Decimal),
        "T" => (Scale::Ten(12), Format::Decimal),
        "P" => (Scale::Ten(15), Format::Decimal),
        "E" => (Scale::Ten(18), Format::Decimal),
        "Ki" => (Scale::Two(10), Format::Binary),
        "Mi" => (Scale::Two(20), Format::Binary),
        "Gi" => (Scale::Two(30), Format::Binary),
        "Ti" => (Scale::Two(40), Format::Binary),
        "Pi" => (Scale::Two(50), Format::Binary),
        "Ei" => (Scale::Two(60), Format::Binary),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(|| unreadable(suffix))?;
            let exponent: i32 = exponent.parse().map_err(|_| unreadable(suffix))?;
            (Scale::Ten(exponent.clamp(-1000, 1000)), Format::Exponent)
        }
    };
    Ok(scale)
}

/// Letters that could be a suffix are a bad suffix, anything else is a bad quantity.
fn unreadable(suffix: &str) -> ParseQuantityError {
    let known = suffix.chars().all(|c| "eEinumkKMGTP+-0123456789".contains(c));
    if known { ParseQuantityError::Suffix } else { ParseQuantityError::Format }
}

/// Billionths of `whole.fraction * 10^exponent`, rounded up, saturating.
fn decimal(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes());
    let scale = 9 + exponent - fraction.len() as i32;
    let (mut value, mut lost) = (0i128, false);
    let total = (whole.len() + fraction.len()) as i32;
    for (i, digit) in digits.enumerate() {
        let place = total - 1 - i as i32 + scale;
        if place < 0 {
            lost |= digit != b'0';
        } else {
            value = value.saturating_mul(10).saturating_add(i128::from(digit - b'0'));
        }
    }
    for _ in 0..scale.max(0) {
        value = value.saturating_mul(10);
    }
    value.saturating_add(i128::from(lost))
}

/// Billionths of `whole.fraction * 2^shift`, rounded up, saturating.
fn binary(whole: &str, fraction: &str, shift: u32) -> i128 {
    let factor = 1i128 << shift;
    let whole = whole.bytes().fold(0i128, |v, d| v.saturating_mul(10).saturating_add(i128::from(d - b'0')));
    // Eighteen digits of a fraction are finer than a billionth even of 1Ei; the rest only rounds up.
    let (kept, rest) = fraction.split_at(fraction.len().min(18));
    let mut numerator = kept.bytes().fold(0i128, |v, d| v * 10 + i128::from(d - b'0'));
    let lost = rest.bytes().any(|d| d != b'0');
    let mut denominator = 10i128.pow(kept.len() as u32);
    // numerator * factor * NANO would not fit: multiply in two steps and keep the remainder.
    numerator = numerator.saturating_mul(factor);
    let units = numerator / denominator;
    let mut remainder = numerator % denominator;
    while denominator > 1_000_000_000_000_000_000 {
        remainder /= 10;
        denominator /= 10;
    }
    let nanos = div_away(remainder * NANO, denominator);
    whole.saturating_mul(factor).saturating_add(units).saturating_mul(NANO).saturating_add(nanos).saturating_add(i128::from(lost))
}

fn div_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests;
