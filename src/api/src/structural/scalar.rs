//! Scalars in the one spelling that Kubernetes writes: times, durations, quantities, bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Quantity;
use crate::schema::Type;

/// Go's zero time, which is written as `null`.
const ZERO_TIME_SECONDS: i64 = -62_135_596_800;

/// Brings a scalar into its canonical spelling, or tells what it should be.
pub(super) fn canonical(kind: Type, value: &mut Value) -> Result<(), &'static str> {
    match kind {
        Type::Boolean if value.is_boolean() => Ok(()),
        Type::Boolean => Err("true or false"),
        Type::Int32 if value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Type::Int32 => Err("a whole number of 32 bits"),
        Type::Int64 if value.is_i64() || value.as_u64().is_some_and(|n| i64::try_from(n).is_ok()) => Ok(()),
        Type::Int64 => Err("a whole number of 64 bits"),
        Type::Number if value.is_number() => Ok(()),
        Type::Number => Err("a number"),
        Type::String if value.is_string() => Ok(()),
        Type::String => Err("a string"),
        Type::IntOrString if value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Type::IntOrString => Err("a whole number of 32 bits or a string"),
        Type::Bytes => bytes(value),
        Type::Quantity => quantity(value),
        Type::Time => time(value, 0),
        Type::MicroTime => time(value, 6),
        Type::Duration => {
            let nanos = value.as_str().and_then(parse_duration).ok_or("a duration such as 1m30s")?;
            *value = format_duration(nanos).into();
            Ok(())
        }
        _ => Ok(()),
    }
}

fn bytes(value: &mut Value) -> Result<(), &'static str> {
    const EXPECTED: &str = "base64";
    let text = value.as_str().ok_or(EXPECTED)?;
    if text.contains(['\r', '\n']) {
        *value = text.replace(['\r', '\n'], "").into();
    }
    let text = value.as_str().ok_or(EXPECTED)?;
    if is_base64(text.as_bytes()) { Ok(()) } else { Err(EXPECTED) }
}

/// Whether the text decodes, without decoding long ones into memory.
fn is_base64(text: &[u8]) -> bool {
    if !text.len().is_multiple_of(4) {
        return false;
    }
    let body = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && (body.len() == text.len() || STANDARD.decode(&text[text.len() - 4..]).is_ok())
}

fn quantity(value: &mut Value) -> Result<(), &'static str> {
    const EXPECTED: &str = "a quantity such as 100m, 1.5 or 2Gi";
    let canonical = match value {
        Value::String(text) if text.is_empty() => return Err(EXPECTED),
        Value::String(text) => text.parse::<Quantity>().map_err(|_| EXPECTED)?.to_string(),
        Value::Number(number) => number.to_string().parse::<Quantity>().map_err(|_| EXPECTED)?.to_string(),
        _ => return Err(EXPECTED),
    };
    if value.as_str() != Some(canonical.as_str()) {
        *value = canonical.into();
    }
    Ok(())
}

fn time(value: &mut Value, digits: usize) -> Result<(), &'static str> {
    const EXPECTED: &str = "a time as in RFC 3339";
    let text = value.as_str().ok_or(EXPECTED)?;
    let shape = text.as_bytes();
    // jiff also reads other ISO 8601 forms.
    let strict = shape.len() >= 20 && shape[4] == b'-' && shape[7] == b'-' && shape[10] == b'T' && shape[13] == b':' && shape[16] == b':';
    let time: Timestamp = text.parse().map_err(|_| EXPECTED)?;
    if !strict {
        return Err(EXPECTED);
    }
    if time.as_second() == ZERO_TIME_SECONDS && time.subsec_nanosecond() == 0 {
        *value = Value::Null;
        return Ok(());
    }
    let canonical = format_time(time, digits);
    if canonical != text {
        *value = canonical.into();
    }
    Ok(())
}

/// RFC 3339 in UTC with this many digits below the second (0 or 6).
pub(crate) fn format_time(time: Timestamp, digits: usize) -> String {
    match digits {
        0 => time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        _ => format!("{}.{:06}Z", time.strftime("%Y-%m-%dT%H:%M:%S"), time.subsec_nanosecond() / 1000),
    }
}

/// Nanoseconds of a duration as Go spells it: `1h2m3.5s`, `300ms`, `-1s`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 30 {
            return None;
        }
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let kept = &fraction[..fraction.len().min(15)];
            total = total.checked_add(kept.parse::<i128>().ok()? * scale / 10i128.pow(u32::try_from(kept.len()).ok()?))?;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A duration of nanoseconds as Go spells it.
pub(crate) fn format_duration(nanos: i64) -> String {
    let (sign, total) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let fraction = |value: u64, scale: u64| {
        let text = format!("{:0width$}", value % scale, width = scale.ilog10() as usize);
        let text = text.trim_end_matches('0');
        if text.is_empty() { (value / scale).to_string() } else { format!("{}.{text}", value / scale) }
    };
    match total {
        0 => "0s".into(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = fraction(total % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}
