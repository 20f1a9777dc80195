//! Functions and operators: the standard ones, strings, lists, math. Kubernetes' own are next door.

use std::borrow::Cow;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::rc::Rc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{EvalError, Value, eval::failed, kubernetes};
use crate::custom::checks::pattern;
use crate::structural::{format_duration, parse_duration};

type Answer<'v> = Result<Value<'v>, EvalError>;

/// `receiver name argument... -> result`; `.` for no receiver, `A` for any type, `number` for int, uint or double.
pub(super) const SIGNATURES: &str = "
. size string -> int|. size bytes -> int|. size list(A) -> int|. size map(A,B) -> int
string size -> int|bytes size -> int|list(A) size -> int|map(A,B) size -> int
string contains string -> bool|string startsWith string -> bool|string endsWith string -> bool|string matches string -> bool|. matches string string -> bool
. type dyn -> type|. dyn dyn -> dyn|. bool bool -> bool|. bool string -> bool
. int int -> int|. int uint -> int|. int double -> int|. int string -> int|. int google.protobuf.Timestamp -> int|. int google.protobuf.Duration -> int
. uint uint -> uint|. uint int -> uint|. uint double -> uint|. uint string -> uint
. double double -> double|. double int -> double|. double uint -> double|. double string -> double|. bytes bytes -> bytes|. bytes string -> bytes
. string string -> string|. string bool -> string|. string int -> string|. string uint -> string|. string double -> string|. string bytes -> string
. string google.protobuf.Timestamp -> string|. string google.protobuf.Duration -> string|. string net.IP -> string|. string net.CIDR -> string
. duration string -> google.protobuf.Duration|. duration google.protobuf.Duration -> google.protobuf.Duration
. timestamp string -> google.protobuf.Timestamp|. timestamp google.protobuf.Timestamp -> google.protobuf.Timestamp|. timestamp int -> google.protobuf.Timestamp
google.protobuf.Timestamp getFullYear -> int|google.protobuf.Timestamp getMonth -> int|google.protobuf.Timestamp getDayOfYear -> int
google.protobuf.Timestamp getDayOfMonth -> int|google.protobuf.Timestamp getDate -> int|google.protobuf.Timestamp getDayOfWeek -> int
google.protobuf.Timestamp getHours -> int|google.protobuf.Timestamp getMinutes -> int|google.protobuf.Timestamp getSeconds -> int|google.protobuf.Timestamp getMilliseconds -> int
google.protobuf.Timestamp getFullYear string -> int|google.protobuf.Timestamp getMonth string -> int|google.protobuf.Timestamp getDayOfYear string -> int
google.protobuf.Timestamp getDayOfMonth string -> int|google.protobuf.Timestamp getDate string -> int|google.protobuf.Timestamp getDayOfWeek string -> int
google.protobuf.Timestamp getHours string -> int|google.protobuf.Timestamp getMinutes string -> int|google.protobuf.Timestamp getSeconds string -> int
google.protobuf.Duration getHours -> int|google.protobuf.Duration getMinutes -> int|google.protobuf.Duration getSeconds -> int|google.protobuf.Duration getMilliseconds -> int
string charAt int -> string|string indexOf string -> int|string indexOf string int -> int|string lastIndexOf string -> int|string lastIndexOf string int -> int
string lowerAscii -> string|string upperAscii -> string|string replace string string -> string|string replace string string int -> string|string split string -> list(string)
string split string int -> list(string)|string substring int -> string|string substring int int -> string|string trim -> string|string reverse -> string
list(string) join -> string|list(string) join string -> string|. strings.quote string -> string|string format list(dyn) -> string
string find string -> string|string findAll string -> list(string)|string findAll string int -> list(string)
list(A) isSorted -> bool|list(A) sum -> A|list(A) min -> A|list(A) max -> A|list(A) indexOf A -> int|list(A) lastIndexOf A -> int
list(A) reverse -> list(A)|list(A) distinct -> list(A)|list(A) sort -> list(A)|list(list(A)) flatten -> list(A)|list(dyn) flatten int -> list(dyn)
list(A) slice int int -> list(A)|list(A) first -> optional(A)|list(A) last -> optional(A)|. lists.range int -> list(int)
. sets.contains list(A) list(A) -> bool|. sets.equivalent list(A) list(A) -> bool|. sets.intersects list(A) list(A) -> bool
. math.greatest number number -> dyn|. math.least number number -> dyn|. math.greatest list(A) -> A|. math.least list(A) -> A|. math.greatest number number number -> dyn|. math.least number number number -> dyn
. math.abs A -> A|. math.sign A -> A|. math.ceil double -> double|. math.floor double -> double|. math.round double -> double|. math.trunc double -> double|. math.isNaN double -> bool
. optional.of A -> optional(A)|. optional.ofNonZeroValue A -> optional(A)|. optional.none -> optional(A)
. optional.unwrap list(optional(A)) -> list(A)|list(optional(A)) unwrapOpt -> list(A)
optional(A) hasValue -> bool|optional(A) value -> A|optional(A) orValue A -> A|optional(A) or optional(A) -> optional(A)
. base64.encode bytes -> string|. base64.decode string -> bytes
";

/// Whether a name is the first half of functions' names.
pub(super) fn is_namespace(name: &str) -> bool {
    matches!(name, "math" | "sets" | "strings" | "lists" | "optional" | "base64" | "ip" | "cidr" | "format" | "cel" | "jsonpatch")
}

/// A name of a type.
pub(super) fn type_of_name(name: &str) -> Option<&'static str> {
    ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"].into_iter().find(|known| *known == name)
}

fn none<'v>(name: &str, args: &[Value<'v>]) -> Answer<'v> {
    let words: Vec<&str> = args.iter().map(Value::type_name).collect();
    failed(format!("no such overload: {name}({})", words.join(", ")))
}

fn int(n: usize) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Calls a function; a receiver is the first argument.
pub(super) fn call<'v>(name: &str, has_receiver: bool, all: &[Value<'v>]) -> Answer<'v> {
    if let Some(out) = kubernetes::call(name, all) {
        return out;
    }
    if let [Value::Text(text), rest @ ..] = all
        && has_receiver
        && let Some(out) = of_text(name, text, rest)
    {
        return out;
    }
    if has_receiver
        && let Some(list) = all[0].elements()
        && let Some(out) = of_list(name, &list, &all[1..])
    {
        return out;
    }
    Ok(match (name, all) {
        ("!", [Value::Bool(b)]) => Value::Bool(!b),
        ("-", [Value::Int(n)]) => Value::Int(n.checked_neg().ok_or_else(overflow)?),
        ("-", [Value::Double(n)]) => Value::Double(-n),
        ("==", [a, b]) => Value::Bool(a.same(b)),
        ("!=", [a, b]) => Value::Bool(!a.same(b)),
        ("<" | "<=" | ">" | ">=", [a, b]) => match a.order(b) {
            Some(order) => Value::Bool(match name {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                _ => order.is_ge(),
            }),
            None => return none(name, all),
        },
        ("in", [a, b]) => match (b, b.elements(), b.members()) {
            (Value::Object(map, _), ..) => Value::Bool(a.as_text().is_some_and(|key| map.contains_key(key))),
            (_, Some(list), _) => Value::Bool(list.iter().any(|v| v.same(a))),
            (_, None, Some(members)) => Value::Bool(members.iter().any(|(key, _)| key.same(a))),
            _ => return none(name, all),
        },
        ("+" | "-" | "*" | "/" | "%", [a, b]) => return arithmetic(name, a, b),
        ("size", [one]) => match one.len() {
            Some(len) => int(len),
            None => return none(name, all),
        },
        ("matches", [Value::Text(text), Value::Text(regex)]) => Value::Bool(compiled(regex)?.is_match(text)),
        ("type", [one]) => Value::Type(one.type_name()),
        ("dyn", [one]) => one.clone(),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes" | "duration" | "timestamp", [one]) => return converted(name, one),
        ("getHours" | "getMinutes" | "getSeconds" | "getMilliseconds", [Value::Duration(nanos)]) => Value::Int(match name {
            "getHours" => nanos / 3_600_000_000_000,
            "getMinutes" => nanos / 60_000_000_000,
            "getSeconds" => nanos / 1_000_000_000,
            _ => nanos / 1_000_000 % 1000,
        }),
        (part, [Value::Time(at)]) => return part_of_time(part, *at, "UTC"),
        (part, [Value::Time(at), Value::Text(zone)]) => return part_of_time(part, *at, zone),
        ("strings.quote", [Value::Text(text)]) => Value::text(format!("{text:?}")),
        ("lists.range", [Value::Int(n)]) if (0..=MAX_RANGE).contains(n) => Value::List((0..*n).map(Value::Int).collect()),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => match (a.elements(), b.elements()) {
            (Some(a), Some(b)) => {
                let has = |all: &[Value<'v>], one: &Value<'v>| all.iter().any(|v| v.same(one));
                Value::Bool(match name {
                    "sets.contains" => b.iter().all(|v| has(&a, v)),
                    "sets.equivalent" => b.iter().all(|v| has(&a, v)) && a.iter().all(|v| has(&b, v)),
                    _ => b.iter().any(|v| has(&a, v)),
                })
            }
            _ => return none(name, all),
        },
        ("math.greatest" | "math.least", [one]) if one.elements().is_some() => return extreme(name, &one.elements().unwrap_or_default()),
        ("math.greatest" | "math.least", [_, ..]) => return extreme(name, all),
        ("math.abs", [Value::Int(n)]) => Value::Int(n.checked_abs().ok_or_else(overflow)?),
        ("math.sign", [Value::Int(n)]) => Value::Int(n.signum()),
        ("math.abs" | "math.sign", [Value::Uint(n)]) => Value::Uint(if name == "math.abs" { *n } else { (*n).min(1) }),
        ("math.abs", [Value::Double(n)]) => Value::Double(n.abs()),
        ("math.sign", [Value::Double(n)]) => Value::Double(if *n == 0.0 { 0.0 } else { n.signum() }),
        ("math.ceil", [Value::Double(n)]) => Value::Double(n.ceil()),
        ("math.floor", [Value::Double(n)]) => Value::Double(n.floor()),
        ("math.round", [Value::Double(n)]) => Value::Double(n.round()),
        ("math.trunc", [Value::Double(n)]) => Value::Double(n.trunc()),
        ("math.isNaN", [Value::Double(n)]) => Value::Bool(n.is_nan()),
        ("optional.none", []) => Value::Optional(None),
        ("optional.of", [one]) => Value::Optional(Some(Rc::new(one.clone()))),
        ("optional.ofNonZeroValue", [one]) => Value::Optional((!is_zero(one)).then(|| Rc::new(one.clone()))),
        ("hasValue", [Value::Optional(inner)]) => Value::Bool(inner.is_some()),
        ("value", [Value::Optional(inner)]) => match inner {
            Some(value) => (**value).clone(),
            None => return failed("optional.none() dereference"),
        },
        ("optional.unwrap" | "unwrapOpt", [list]) if list.elements().is_some() => {
            let present = list.elements().unwrap_or_default().into_iter().filter_map(|v| match v {
                Value::Optional(inner) => inner.map(|v| (*v).clone()),
                other => Some(other),
            });
            Value::List(present.collect())
        }
        ("base64.encode", [Value::Bytes(bytes)]) => Value::text(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes)),
        ("base64.decode", [Value::Text(text)]) => match base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text.as_bytes())
        {
            Ok(bytes) => Value::Bytes(bytes.into()),
            Err(_) => return failed("base64.decode: not base64"),
        },
        _ => return none(name, all),
    })
}

fn overflow() -> EvalError {
    EvalError::Failed("integer overflow".into())
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Duration(0) => true,
        Value::Double(n) => *n == 0.0,
        other => other.len() == Some(0),
    }
}

fn extreme<'v>(name: &str, list: &[Value<'v>]) -> Answer<'v> {
    let wanted = if name.ends_with("greatest") || name == "max" { Ordering::Greater } else { Ordering::Less };
    let mut best: Option<&Value<'v>> = None;
    for value in list {
        match best.map(|b| value.order(b)) {
            Some(None) => return none(name, list),
            Some(Some(order)) if order != wanted => {}
            _ => best = Some(value),
        }
    }
    best.cloned().map_or_else(|| failed(format!("{name} of an empty list")), Ok)
}

fn arithmetic<'v>(sign: &str, a: &Value<'v>, b: &Value<'v>) -> Answer<'v> {
    let zero = || EvalError::Failed("division by zero".into());
    let nanos = |d: i64| SignedDuration::from_nanos(d);
    Ok(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Value::Int(match sign {
            "+" => a.checked_add(*b).ok_or_else(overflow)?,
            "-" => a.checked_sub(*b).ok_or_else(overflow)?,
            "*" => a.checked_mul(*b).ok_or_else(overflow)?,
            _ if *b == 0 => return Err(zero()),
            "/" => a.checked_div(*b).ok_or_else(overflow)?,
            _ => a.checked_rem(*b).ok_or_else(overflow)?,
        }),
        (Value::Uint(a), Value::Uint(b)) => Value::Uint(match sign {
            "+" => a.checked_add(*b).ok_or_else(overflow)?,
            "-" => a.checked_sub(*b).ok_or_else(overflow)?,
            "*" => a.checked_mul(*b).ok_or_else(overflow)?,
            _ if *b == 0 => return Err(zero()),
            "/" => a / b,
            _ => a % b,
        }),
        (Value::Double(a), Value::Double(b)) => Value::Double(match sign {
            "+" => a + b,
            "-" => a - b,
            "*" => a * b,
            "/" => a / b,
            _ => return failed("no such overload: double % double"),
        }),
        (Value::Text(a), Value::Text(b)) if sign == "+" => Value::text(format!("{a}{b}")),
        (Value::Bytes(a), Value::Bytes(b)) if sign == "+" => Value::Bytes([&a[..], &b[..]].concat().into()),
        (Value::Time(at), Value::Duration(d)) if sign == "+" => Value::Time(at.checked_add(nanos(*d)).map_err(|_| overflow())?),
        (Value::Duration(d), Value::Time(at)) if sign == "+" => Value::Time(at.checked_add(nanos(*d)).map_err(|_| overflow())?),
        (Value::Time(at), Value::Duration(d)) if sign == "-" => Value::Time(at.checked_sub(nanos(*d)).map_err(|_| overflow())?),
        (Value::Time(a), Value::Time(b)) if sign == "-" => {
            Value::Duration(i64::try_from(a.duration_since(*b).as_nanos()).map_err(|_| overflow())?)
        }
        (Value::Duration(a), Value::Duration(b)) if sign == "+" => Value::Duration(a.checked_add(*b).ok_or_else(overflow)?),
        (Value::Duration(a), Value::Duration(b)) if sign == "-" => Value::Duration(a.checked_sub(*b).ok_or_else(overflow)?),
        _ => match (a.elements(), b.elements(), sign) {
            (Some(mut list), Some(more), "+") => {
                list.extend(more);
                Value::List(list.into())
            }
            _ => return none(sign, &[a.clone(), b.clone()]),
        },
    })
}

/// Patterns that a thread keeps: rules are asked of many values one after the other.
const KEPT_PATTERNS: usize = 16;

thread_local! {
    static PATTERNS: RefCell<VecDeque<(Box<str>, regex::Regex)>> = const { RefCell::new(VecDeque::new()) };
}

fn compiled(text: &str) -> Result<regex::Regex, EvalError> {
    PATTERNS.with_borrow_mut(|kept| {
        if let Some((_, found)) = kept.iter().find(|(known, _)| **known == *text) {
            return Ok(found.clone());
        }
        let made = pattern(text).map_err(|error| EvalError::Failed(format!("the pattern cannot be read: {error}")))?;
        kept.truncate(KEPT_PATTERNS - 1);
        kept.push_front((text.into(), made.clone()));
        Ok(made)
    })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "ranges are checked, and CEL's numbers are what they are"
)]
fn converted<'v>(name: &str, value: &Value<'v>) -> Answer<'v> {
    let range = || EvalError::Failed(format!("{name}: the value is out of range"));
    let unread = || EvalError::Failed(format!("{name}: the text cannot be read"));
    Ok(match (name, value) {
        ("bool", Value::Bool(_)) | ("int", Value::Int(_)) | ("uint", Value::Uint(_)) | ("double", Value::Double(_)) => value.clone(),
        ("string", Value::Text(_)) | ("bytes", Value::Bytes(_)) | ("duration", Value::Duration(_)) | ("timestamp", Value::Time(_)) => {
            value.clone()
        }
        ("bool", Value::Text(text)) => match &**text {
            "true" | "True" | "TRUE" | "t" | "1" => Value::Bool(true),
            "false" | "False" | "FALSE" | "f" | "0" => Value::Bool(false),
            _ => return Err(unread()),
        },
        ("int", Value::Uint(n)) => Value::Int(i64::try_from(*n).map_err(|_| range())?),
        ("int", Value::Double(n)) if n.is_finite() && n.abs() < 9.2e18 => Value::Int(*n as i64),
        ("int", Value::Text(text)) => Value::Int(text.parse().map_err(|_| unread())?),
        ("int", Value::Duration(nanos)) => Value::Int(*nanos),
        ("int", Value::Time(at)) => Value::Int(at.as_second()),
        ("uint", Value::Int(n)) => Value::Uint(u64::try_from(*n).map_err(|_| range())?),
        ("uint", Value::Double(n)) if (0.0..1.8e19).contains(n) => Value::Uint(*n as u64),
        ("uint", Value::Text(text)) => Value::Uint(text.parse().map_err(|_| unread())?),
        ("double", Value::Int(n)) => Value::Double(*n as f64),
        ("double", Value::Uint(n)) => Value::Double(*n as f64),
        ("double", Value::Text(text)) => Value::Double(text.parse().map_err(|_| unread())?),
        ("string", Value::Bool(b)) => Value::text(b.to_string()),
        ("string", Value::Int(n)) => Value::text(n.to_string()),
        ("string", Value::Uint(n)) => Value::text(n.to_string()),
        ("string", Value::Double(n)) => Value::text(n.to_string()),
        ("string", Value::Bytes(bytes)) => Value::text(String::from_utf8(bytes.to_vec()).map_err(|_| unread())?),
        ("string", Value::Time(at)) => Value::text(at.to_string()),
        ("string", Value::Duration(nanos)) => Value::text(format_duration(*nanos)),
        ("string", Value::Ip(ip)) => Value::text(ip.to_string()),
        ("string", Value::Cidr(ip, bits)) => Value::text(format!("{ip}/{bits}")),
        ("bytes", Value::Text(text)) => Value::Bytes(text.as_bytes().into()),
        ("duration", Value::Text(text)) => Value::Duration(parse_duration(text).ok_or_else(unread)?),
        ("timestamp", Value::Text(text)) => Value::Time(text.parse().map_err(|_| unread())?),
        ("timestamp", Value::Int(n)) => Value::Time(Timestamp::from_second(*n).map_err(|_| range())?),
        _ => return none(name, std::slice::from_ref(value)),
    })
}

fn part_of_time(part: &str, at: Timestamp, zone: &str) -> Answer<'static> {
    let zone = match zone {
        "" | "UTC" => TimeZone::UTC,
        name => TimeZone::get(name)
            .or_else(|_| jiff::tz::Offset::from_hours(name.parse().unwrap_or_default()).map(TimeZone::fixed))
            .map_err(|_| EvalError::Failed(format!("unknown time zone {name:?}")))?,
    };
    let local = at.to_zoned(zone);
    Ok(Value::Int(match part {
        "getFullYear" => i64::from(local.year()),
        "getMonth" => i64::from(local.month()) - 1,
        "getDayOfYear" => i64::from(local.day_of_year()) - 1,
        "getDayOfMonth" => i64::from(local.day()) - 1,
        "getDate" => i64::from(local.day()),
        "getDayOfWeek" => i64::from(local.weekday().to_sunday_zero_offset()),
        "getHours" => i64::from(local.hour()),
        "getMinutes" => i64::from(local.minute()),
        "getSeconds" => i64::from(local.second()),
        "getMilliseconds" => i64::from(local.millisecond()),
        _ => return failed(format!("no such overload: {part}(google.protobuf.Timestamp)")),
    }))
}

/// Longest list of numbers that an expression may make.
const MAX_RANGE: i64 = 10_000;
/// Longest text that an expression may make, in characters.
const MAX_TEXT: usize = 1 << 20;
/// Parts that a text may be taken into: more would cost more than one expression may.
const MAX_PARTS: usize = 1_000_000;

fn of_text<'v>(name: &str, text: &str, args: &[Value<'v>]) -> Option<Answer<'v>> {
    let chars = || text.chars().collect::<Vec<char>>();
    let at = |n: i64| usize::try_from(n).map_err(|_| EvalError::Failed(format!("index out of range: {n}")));
    let cut = |from: i64, to: i64| -> Answer<'v> {
        let (from, to, all) = (at(from)?, at(to)?, chars());
        all.get(from..to)
            .map_or_else(|| failed(format!("index out of range: {from}, {to}")), |part| Ok(Value::text(part.iter().collect::<String>())))
    };
    let find = |part: &str, from: usize, last: bool| -> Value<'v> {
        let (all, part): (Vec<char>, Vec<char>) = (chars(), part.chars().collect());
        let is = |i: &usize| all.get(*i..*i + part.len()) == Some(&part[..]);
        let found = if last { (0..=from.min(all.len())).rev().find(is) } else { (from..=all.len()).find(is) };
        found.map_or(Value::Int(-1), int)
    };
    Some(Ok(match (name, args) {
        ("contains", [Value::Text(part)]) => Value::Bool(text.contains(&**part)),
        ("startsWith", [Value::Text(part)]) => Value::Bool(text.starts_with(&**part)),
        ("endsWith", [Value::Text(part)]) => Value::Bool(text.ends_with(&**part)),
        ("charAt", [Value::Int(n)]) => match usize::try_from(*n).ok().filter(|n| *n <= text.chars().count()) {
            Some(n) => Value::text(text.chars().nth(n).map(String::from).unwrap_or_default()),
            None => return Some(failed(format!("index out of range: {n}"))),
        },
        ("indexOf", [Value::Text(part)]) => find(part, 0, false),
        ("lastIndexOf", [Value::Text(part)]) => find(part, usize::MAX, true),
        ("indexOf" | "lastIndexOf", [Value::Text(part), Value::Int(from)]) => match at(*from) {
            Ok(from) => find(part, from, name == "lastIndexOf"),
            Err(error) => return Some(Err(error)),
        },
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("trim", []) => Value::text(text.trim()),
        ("reverse", []) => Value::text(text.chars().rev().collect::<String>()),
        ("replace", [Value::Text(from), Value::Text(to)])
            if to.len().saturating_mul(text.len()) <= MAX_TEXT || !to.is_empty() && to.len() <= from.len() =>
        {
            Value::text(text.replace(&**from, to))
        }
        ("replace", [Value::Text(from), Value::Text(to), Value::Int(n)]) if to.len().saturating_mul(text.len()) <= MAX_TEXT => {
            Value::text(usize::try_from(*n).map_or_else(|_| text.replace(&**from, to), |n| text.replacen(&**from, to, n)))
        }
        ("split", [Value::Text(by), ..]) if text.matches(&**by).take(MAX_PARTS + 1).count() > MAX_PARTS => {
            return Some(failed(format!("split: more than {MAX_PARTS} parts")));
        }
        ("split", [Value::Text(by)]) => Value::List(parts(text, by).into_iter().map(Value::text).collect()),
        ("split", [Value::Text(by), Value::Int(n)]) => Value::List(match usize::try_from(*n) {
            Ok(0) => Vec::new().into(),
            Ok(n) if !by.is_empty() => text.splitn(n, &**by).map(Value::text).collect(),
            _ => parts(text, by).into_iter().map(Value::text).collect(),
        }),
        ("substring", [Value::Int(from)]) => return Some(cut(*from, i64::try_from(text.chars().count()).unwrap_or(i64::MAX))),
        ("substring", [Value::Int(from), Value::Int(to)]) => return Some(cut(*from, *to)),
        ("find", [Value::Text(regex)]) => match compiled(regex) {
            Ok(regex) => Value::text(regex.find(text).map_or("", |m| m.as_str())),
            Err(error) => return Some(Err(error)),
        },
        ("findAll", [Value::Text(regex), rest @ ..]) => {
            let limit = match rest {
                [Value::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            match compiled(regex) {
                Ok(regex) => Value::List(regex.find_iter(text).take(limit.min(MAX_PARTS)).map(|m| Value::text(m.as_str())).collect()),
                Err(error) => return Some(Err(error)),
            }
        }
        ("format", [list]) => return Some(formatted(text, &list.elements()?)),
        _ => return None,
    }))
}

fn parts<'t>(text: &'t str, by: &str) -> Vec<Cow<'t, str>> {
    if by.is_empty() { text.chars().map(|c| Cow::Owned(c.to_string())).collect() } else { text.split(by).map(Cow::Borrowed).collect() }
}

/// `%s`, `%d`, `%f`, `%e`, `%b`, `%x`, `%X`, `%o`, `%%`.
fn formatted<'v>(pattern: &str, args: &[Value<'v>]) -> Answer<'v> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        let mut verb = chars.next();
        if verb == Some('.') {
            let mut digits = String::new();
            verb = chars.next();
            while let Some(digit) = verb.filter(char::is_ascii_digit) {
                digits.push(digit);
                verb = chars.next();
            }
            precision = digits.parse::<usize>().ok().filter(|p| *p < 100);
        }
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let Some(value) = args.next() else { return failed("format: too few arguments") };
        if out.len() + 2 * value.as_text().map_or(0, str::len) > MAX_TEXT {
            return failed("format: the text is too long");
        }
        match (verb, value) {
            (Some('s'), value) if show(value, &mut out) => {}
            (Some('s'), _) => return failed("format: the text is too long"),
            (Some('d'), Value::Int(n)) => out.push_str(&n.to_string()),
            (Some('d'), Value::Uint(n)) => out.push_str(&n.to_string()),
            (Some('f'), Value::Double(n)) => out.push_str(&format!("{n:.*}", precision.unwrap_or(6))),
            (Some('e'), Value::Double(n)) => out.push_str(&format!("{n:.*e}", precision.unwrap_or(6))),
            (Some('b'), Value::Int(n)) => out.push_str(&format!("{n:b}")),
            (Some('b'), Value::Bool(b)) => out.push_str(if *b { "1" } else { "0" }),
            (Some('o'), Value::Int(n)) => out.push_str(&format!("{n:o}")),
            (Some('x'), Value::Int(n)) => out.push_str(&format!("{n:x}")),
            (Some('X'), Value::Int(n)) => out.push_str(&format!("{n:X}")),
            (Some('x'), Value::Text(text)) => out.extend(text.bytes().map(|b| format!("{b:02x}"))),
            (verb, value) => return failed(format!("format: no {verb:?} of {}", value.type_name())),
        }
    }
    Ok(Value::text(out))
}

/// A value as `%s` shows it; false when it makes the text too long.
fn show(value: &Value<'_>, out: &mut String) -> bool {
    if let Some(list) = value.elements() {
        out.push('[');
        for (i, value) in list.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { ", " });
            if !show(value, out) {
                return false;
            }
        }
        out.push(']');
    } else if let Some(mut members) = value.members() {
        members.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or(Ordering::Equal));
        out.push('{');
        for (i, (key, value)) in members.iter().enumerate() {
            out.push_str(if i == 0 { "" } else { ", " });
            if !(show(key, out) && {
                out.push_str(": ");
                show(value, out)
            }) {
                return false;
            }
        }
        out.push('}');
    } else {
        match value {
            Value::Null => out.push_str("null"),
            Value::Type(name) => out.push_str(name),
            other => match converted("string", other) {
                Ok(text) => out.push_str(text.as_text().unwrap_or_default()),
                Err(_) => out.push_str(other.type_name()),
            },
        }
    }
    out.len() <= MAX_TEXT
}

fn of_list<'v>(name: &str, list: &[Value<'v>], args: &[Value<'v>]) -> Option<Answer<'v>> {
    let sorted = |pair: &[Value<'v>]| pair[0].order(&pair[1]).is_some_and(Ordering::is_le);
    Some(Ok(match (name, args) {
        ("join", [] | [Value::Text(_)]) => {
            let by = args.first().and_then(Value::as_text).unwrap_or_default();
            let texts: Option<Vec<&str>> = list.iter().map(Value::as_text).collect();
            let texts = texts?;
            if texts.iter().map(|text| text.len() + by.len()).sum::<usize>() > MAX_TEXT {
                return Some(failed("join: the text is too long"));
            }
            Value::text(texts.join(by))
        }
        ("isSorted", []) => Value::Bool(list.windows(2).all(sorted)),
        ("sum", []) if list.iter().any(|v| matches!(v, Value::Text(_) | Value::Bytes(_) | Value::Array(..) | Value::List(_))) => {
            return Some(none("sum", list.get(..1).unwrap_or_default()));
        }
        ("sum", []) => {
            let mut total = list.first().cloned().unwrap_or(Value::Int(0));
            for value in list.iter().skip(1) {
                total = match arithmetic("+", &total, value) {
                    Ok(total) => total,
                    Err(error) => return Some(Err(error)),
                };
            }
            total
        }
        ("min" | "max", []) => return Some(extreme(if name == "max" { "max" } else { "min" }, list)),
        ("indexOf", [one]) => list.iter().position(|v| v.same(one)).map_or(Value::Int(-1), int),
        ("lastIndexOf", [one]) => list.iter().rposition(|v| v.same(one)).map_or(Value::Int(-1), int),
        ("reverse", []) => Value::List(list.iter().rev().cloned().collect()),
        ("distinct", []) => {
            let mut out: Vec<Value<'v>> = Vec::new();
            list.iter().for_each(|v| {
                if !out.iter().any(|o| o.same(v)) {
                    out.push(v.clone())
                }
            });
            Value::List(out.into())
        }
        ("sort", []) => {
            let mut out = list.to_vec();
            out.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
            Value::List(out.into())
        }
        ("flatten", [] | [Value::Int(_)]) => {
            let depth = if let Some(Value::Int(n)) = args.first() { *n } else { 1 };
            Value::List(flattened(list, depth).into())
        }
        ("slice", [Value::Int(from), Value::Int(to)]) => match (usize::try_from(*from), usize::try_from(*to)) {
            (Ok(from), Ok(to)) if from <= to && to <= list.len() => Value::List(list[from..to].into()),
            _ => return Some(failed("slice: index out of range")),
        },
        ("first", []) => Value::Optional(list.first().cloned().map(Rc::new)),
        ("last", []) => Value::Optional(list.last().cloned().map(Rc::new)),
        _ => return None,
    }))
}

fn flattened<'v>(list: &[Value<'v>], depth: i64) -> Vec<Value<'v>> {
    let deeper = |value: &Value<'v>| match value.elements() {
        Some(inner) if depth > 0 => flattened(&inner, depth - 1),
        _ => vec![value.clone()],
    };
    list.iter().flat_map(deeper).collect()
}
