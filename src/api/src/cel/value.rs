//! Values: what JSON holds, read as its schema types it, and what expressions make.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::Map;

use crate::custom::checks::{Checks, Kind, Unique};
use crate::quantity::Quantity;

/// Bytes of a value that an expression makes for an object, about: a request brings no more.
const MAX_JSON_BYTES: usize = 3 << 20;

/// A value.
#[derive(Clone, Debug)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number that is never negative.
    Uint(u64),
    /// A number.
    Double(f64),
    /// Text.
    Text(Cow<'v, str>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// A list as JSON has it; the rules are those of its elements' list.
    Array(&'v [serde_json::Value], Option<&'v Checks>),
    /// A list that an expression made.
    List(Rc<[Value<'v>]>),
    /// An object or map as JSON has it.
    Object(&'v Map<String, serde_json::Value>, Option<&'v Checks>),
    /// A map that an expression made.
    Map(Rc<[(Value<'v>, Value<'v>)]>),
    /// Nanoseconds.
    Duration(i64),
    /// A point in time.
    Time(Timestamp),
    /// A type.
    Type(&'static str),
    /// Perhaps a value.
    Optional(Option<Rc<Value<'v>>>),
    /// A quantity of Kubernetes.
    Quantity(Quantity),
    /// An IP address.
    Ip(IpAddr),
    /// A network.
    Cidr(IpAddr, u8),
    /// A URL by its parts.
    Url(Rc<super::kubernetes::Url>),
    /// A semantic version.
    Semver(Rc<super::kubernetes::Semver>),
    /// A format of names.
    Format(&'static str),
    /// An object that an expression made by name, with its fields.
    Made(&'v str, Rc<[(&'v str, Value<'v>)]>),
    /// A question to the authorizer.
    Check(Rc<super::authorizer::Check<'v>>),
    /// Its answer.
    Decision(Rc<super::authorizer::Decision>),
}

impl<'v> Value<'v> {
    /// A JSON value, as its rules type it.
    pub fn of(json: &'v serde_json::Value, checks: Option<&'v Checks>) -> Self {
        let kind = checks.map_or(Kind::Any, |c| c.kind);
        match json {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(b) => Self::Bool(*b),
            serde_json::Value::Number(n) => match (kind, n.as_i64()) {
                (Kind::Number, _) | (_, None) => {
                    let number = n.as_f64().unwrap_or_default();
                    #[expect(
                        clippy::cast_possible_truncation,
                        reason = "only where the schema says that it is a whole number, as 2.0 is one"
                    )]
                    let whole = number as i64;
                    if kind == Kind::Integer { Self::Int(whole) } else { Self::Double(number) }
                }
                (_, Some(n)) => Self::Int(n),
            },
            serde_json::Value::String(text) => {
                let format = checks.map_or("", |c| &c.format);
                let typed = match format {
                    "date-time" => text.parse().ok().map(Self::Time),
                    "date" => format!("{text}T00:00:00Z").parse().ok().map(Self::Time),
                    "duration" => crate::structural::parse_duration(text).map(Self::Duration),
                    "byte" => base64::engine::general_purpose::STANDARD.decode(text).ok().map(|b| Self::Bytes(b.into())),
                    _ => None,
                };
                typed.unwrap_or(Self::Text(Cow::Borrowed(text)))
            }
            serde_json::Value::Array(list) => Self::Array(list, checks),
            serde_json::Value::Object(map) => Self::Object(map, checks),
        }
    }

    /// A text of its own.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(Cow::Owned(text.into()))
    }

    /// Whether it is true.
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// Its text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of a list.
    pub fn elements(&self) -> Option<Vec<Self>> {
        match self {
            Self::Array(list, checks) => {
                let items = checks.and_then(|c| c.items.as_deref());
                Some(list.iter().map(|v| Self::of(v, items)).collect())
            }
            Self::List(list) => Some(list.to_vec()),
            _ => None,
        }
    }

    /// The keys and values of a map or object.
    pub(super) fn members(&self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Object(map, checks) => Some(
                map.iter().map(|(key, value)| (Self::Text(Cow::Borrowed(key)), Self::of(value, member_checks(*checks, key)))).collect(),
            ),
            Self::Map(pairs) => Some(pairs.to_vec()),
            _ => None,
        }
    }

    /// A field, by the name that expressions have for it.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(map, checks) => {
                let (key, value) = map.get_key_value(name).or_else(|| map.get_key_value(&unescape(name)?))?;
                Some(Self::of(value, member_checks(*checks, key)))
            }
            Self::Map(pairs) => pairs.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone()),
            Self::Made(_, fields) => fields.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone()),
            Self::Check(check) => check.field(name),
            _ => None,
        }
    }

    /// As JSON has it; `Err` for what JSON cannot have, or no request could bring.
    pub fn to_json(&self) -> Result<serde_json::Value, String> {
        let mut left = MAX_JSON_BYTES;
        self.json(&mut left)
    }

    fn json(&self, left: &mut usize) -> Result<serde_json::Value, String> {
        let text = |text: String| serde_json::Value::String(text);
        // One value may stand in many places: together they count as often as they stand.
        let own = match self {
            Self::Text(text) => text.len(),
            other => other.len().unwrap_or(1),
        };
        *left = left.checked_sub(own.max(1)).ok_or_else(|| format!("the value is larger than {MAX_JSON_BYTES} bytes"))?;
        Ok(match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(b) => (*b).into(),
            Self::Int(n) => (*n).into(),
            Self::Uint(n) => (*n).into(),
            #[expect(clippy::cast_possible_truncation, reason = "whole and within the range of an integer")]
            Self::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
            Self::Double(n) => {
                serde_json::Number::from_f64(*n).map_or_else(|| Err(format!("{n} is no number of JSON")), |n| Ok(n.into()))?
            }
            Self::Text(own) => text(own.to_string()),
            Self::Bytes(bytes) => text(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Self::Array(list, _) => serde_json::Value::Array(list.to_vec()),
            Self::Object(map, _) => serde_json::Value::Object((*map).clone()),
            Self::List(list) => list.iter().map(|value| value.json(left)).collect::<Result<Vec<_>, _>>()?.into(),
            Self::Map(pairs) => {
                let mut pair = |(key, value): &(Self, Self)| match key.as_text() {
                    Some(key) => Ok((key.to_owned(), value.json(left)?)),
                    None => Err(format!("a key of a map is of type {}, not string", key.type_name())),
                };
                serde_json::Value::Object(pairs.iter().map(&mut pair).collect::<Result<_, _>>()?)
            }
            Self::Made(_, fields) => {
                let mut field = |(name, value): &(&str, Self)| Ok::<_, String>(((*name).to_owned(), value.json(left)?));
                serde_json::Value::Object(fields.iter().map(&mut field).collect::<Result<_, _>>()?)
            }
            Self::Duration(nanos) => text(crate::structural::format_duration(*nanos)),
            Self::Time(at) => text(at.to_string()),
            Self::Optional(Some(inner)) => inner.json(left)?,
            other => return Err(format!("a value of type {} cannot be written as JSON", other.type_name())),
        })
    }

    /// Where an object was made under a name that is not that of its place: `Object.spec.wrong` in the field `selector` of `Object.spec`.
    pub fn misplaced(&self, place: &str) -> Option<String> {
        match self {
            Self::Made(name, _) if *name != place => {
                Some(format!("unexpected type name {name:?}, expected {place:?}, which matches field name path from root Object type"))
            }
            Self::Made(_, fields) => fields.iter().find_map(|(field, value)| value.misplaced(&format!("{place}.{field}"))),
            Self::List(list) => list.iter().find_map(|value| value.misplaced(place)),
            Self::Map(pairs) => pairs.iter().find_map(|(_, value)| value.misplaced(place)),
            _ => None,
        }
    }

    /// The name under which an expression made it, and its fields.
    pub fn made(&self) -> Option<(&'v str, &[(&'v str, Self)])> {
        match self {
            Self::Made(name, fields) => Some((name, fields)),
            _ => None,
        }
    }

    /// How many there are of it.
    pub(super) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Text(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(list, _) => list.len(),
            Self::List(list) => list.len(),
            Self::Object(map, _) => map.len(),
            Self::Map(pairs) => pairs.len(),
            _ => return None,
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Array(..) | Self::List(_) => "list",
            Self::Object(..) | Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Time(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Url(_) => "kubernetes.URL",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Made(..) => "object",
            Self::Check(check) => check.type_name(),
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// Which of two comes first; `None` when they cannot be compared.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Time(a), Self::Time(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            _ => self.real()?.partial_cmp(&other.real()?),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as CEL compares whole numbers with others")]
    fn real(&self) -> Option<f64> {
        match self {
            Self::Int(n) => Some(*n as f64),
            Self::Uint(n) => Some(*n as f64),
            Self::Double(n) => Some(*n),
            _ => None,
        }
    }

    /// Whether two are equal; those of different types are not.
    pub(super) fn same(&self, other: &Self) -> bool {
        if let (Some(a), Some(b)) = (self.elements(), other.elements()) {
            let unordered = |v: &Self| matches!(v, Self::Array(_, Some(checks)) if checks.unique != Unique::No);
            return a.len() == b.len()
                && if unordered(self) || unordered(other) {
                    // Long ones are compared by what is written: each with each would take too long.
                    let each = || a.iter().all(|x| b.iter().any(|y| x.same(y)));
                    same_members(self, other).unwrap_or_else(|| a.len() <= MAX_EACH && each())
                } else {
                    a.iter().zip(&b).all(|(x, y)| x.same(y))
                };
        }
        if let (Self::Object(a, own), Self::Object(b, others)) = (self, other) {
            let both = |key: &str, x: &'v serde_json::Value, y: &'v serde_json::Value| {
                Self::of(x, member_checks(*own, key)).same(&Self::of(y, member_checks(*others, key)))
            };
            return a.len() == b.len() && a.iter().all(|(key, x)| b.get(key).is_some_and(|y| both(key, x, y)));
        }
        if let (Some(a), Some(b)) = (self.members(), other.members()) {
            return a.len() == b.len() && a.iter().all(|(key, x)| b.iter().any(|(k, y)| k.same(key) && x.same(y)));
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Type(a), Self::Type(b)) | (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.same(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Quantity(a), Self::Quantity(b)) => a.cmp(b).is_eq(),
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, x), Self::Cidr(b, y)) => (a, x) == (b, y),
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Semver(a), Self::Semver(b)) => a == b,
            (Self::Decision(a), Self::Decision(b)) => a == b,
            (Self::Made(a, x), Self::Made(b, y)) => {
                a == b && x.len() == y.len() && x.iter().all(|(name, v)| y.iter().any(|(n, w)| n == name && v.same(w)))
            }
            _ => self.order(other).is_some_and(Ordering::is_eq),
        }
    }
}

/// Members of lists that are compared each with each.
const MAX_EACH: usize = 1000;

/// Whether two lists of JSON have the same members in any order; `None` when they may yet be equal, written in another way.
fn same_members(a: &Value<'_>, b: &Value<'_>) -> Option<bool> {
    let (Value::Array(a, _), Value::Array(b, _)) = (a, b) else { return None };
    let texts: std::collections::HashSet<String> = b.iter().map(ToString::to_string).collect();
    a.iter().all(|value| texts.contains(&value.to_string())).then_some(true)
}

fn member_checks<'v>(checks: Option<&'v Checks>, key: &str) -> Option<&'v Checks> {
    let checks = checks?;
    checks.property(key).or(checks.additional.as_deref())
}

/// The JSON name of a field that expressions must call otherwise: `__dot__`, `__dash__`, `__namespace__`.
pub(super) fn unescape(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    if let Some(word) = name.strip_prefix("__").and_then(|n| n.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return Some(word.to_owned());
    }
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("__") {
        out.push_str(before);
        let (sign, tail) = [("underscores__", "__"), ("dot__", "."), ("dash__", "-"), ("slash__", "/")]
            .iter()
            .find_map(|(word, sign)| after.strip_prefix(word).map(|tail| (*sign, tail)))?;
        out.push_str(sign);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// Words of the language that a field's name may not be.
pub(crate) const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];
