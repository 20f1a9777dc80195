//! Types, as far as they can be known before there is a value.

use std::fmt;
use std::rc::Rc;

use crate::custom::checks::{Checks, Kind};

/// What is known of a value.
#[derive(Clone, Debug)]
pub enum Type<'c> {
    /// Nothing.
    Dyn,
    /// `null`
    Null,
    /// A type by its name: `bool`, `int`, `string`, `net.IP`, ...
    Plain(&'static str),
    /// A list of these.
    List(Rc<Type<'c>>),
    /// A map with such values.
    Map(Rc<Type<'c>>),
    /// An object with the fields of a schema.
    Object(&'c Checks, bool),
    /// Perhaps one of these.
    Optional(Rc<Type<'c>>),
}

impl<'c> Type<'c> {
    /// Of what a schema describes; `None` for what it says nothing of, which expressions cannot reach.
    pub fn of(checks: &'c Checks, root: bool) -> Option<Self> {
        Some(match checks.kind {
            Kind::Any => return None,
            Kind::Boolean => Self::Plain("bool"),
            Kind::Integer => Self::Plain("int"),
            Kind::Number => Self::Plain("double"),
            Kind::IntOrString => Self::Dyn,
            Kind::String => Self::Plain(match &*checks.format {
                "date" | "date-time" => "google.protobuf.Timestamp",
                "duration" => "google.protobuf.Duration",
                "byte" => "bytes",
                _ => "string",
            }),
            Kind::Array => Self::List(Rc::new(checks.items.as_deref().and_then(|i| Self::of(i, false)).unwrap_or(Self::Dyn))),
            Kind::Object => match &checks.additional {
                Some(values) => Self::Map(Rc::new(Self::of(values, false).unwrap_or(Self::Dyn))),
                None => Self::Object(checks, root || checks.embedded),
            },
        })
    }

    /// The type of a field; `None` when there is none.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Dyn => Some(Self::Dyn),
            Self::Map(values) => Some((**values).clone()),
            Self::Optional(inner) => inner.field(name),
            Self::Object(checks, whole) => {
                let known = checks.property(name).or_else(|| checks.property(&super::value::unescape(name)?));
                match name {
                    "apiVersion" | "kind" if *whole => Some(Self::Plain("string")),
                    "metadata" if *whole => Some(Self::Dyn),
                    _ => Self::of(known?, false),
                }
            }
            _ => None,
        }
    }

    /// Its name in the table of functions.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Dyn | Self::Null => "dyn",
            Self::Plain(name) => name,
            Self::List(_) => "list",
            Self::Map(_) | Self::Object(..) => "map",
            Self::Optional(_) => "optional_type",
        }
    }
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::List(of) => write!(f, "list({of})"),
            Self::Object(..) => f.write_str("object"),
            Self::Optional(of) => write!(f, "optional({of})"),
            other => f.write_str(other.word()),
        }
    }
}
