//! Types, as far as they can be known before there is a value.

use std::fmt;
use std::rc::Rc;

use crate::custom::checks::{Checks, Kind};
use crate::schema::{self, Schema};

/// The type of `google.protobuf.Timestamp`.
pub(super) const TIME: &str = "google.protobuf.Timestamp";
/// The type of `google.protobuf.Duration`.
pub(super) const DURATION: &str = "google.protobuf.Duration";
/// Of `authorizer`.
pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
/// Of `authorizer.requestResource`.
pub(super) const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";

/// What is known of a value.
#[derive(Clone, Debug)]
pub enum Type<'c> {
    /// Nothing.
    Dyn,
    /// Nothing yet: the elements of `[]`. It becomes what it meets.
    Free,
    /// `null`
    Null,
    /// A type by its name: `bool`, `int`, `string`, `net.IP`, ...
    Plain(&'static str),
    /// A list of these.
    List(Rc<Type<'c>>),
    /// A map with such keys and values.
    Map(Rc<Type<'c>>, Rc<Type<'c>>),
    /// An object with the fields of a custom resource's schema; whether it is a whole one, with `metadata`.
    Object(&'c Checks, bool),
    /// An object with the fields of a built-in kind's schema.
    Schema(&'c Schema),
    /// Declared fields under a name.
    Record(&'static str, Rc<[(Box<str>, Type<'c>)]>),
    /// What an expression makes by name: `Object.spec`, `JSONPatch`.
    Made(Rc<str>),
    /// Perhaps one of these.
    Optional(Rc<Type<'c>>),
}

impl<'c> Type<'c> {
    /// `string`
    pub const STRING: Self = Self::Plain("string");
    /// `bool`
    pub const BOOL: Self = Self::Plain("bool");
    /// `int`
    pub const INT: Self = Self::Plain("int");

    /// A list of these.
    pub fn list(of: Self) -> Self {
        Self::List(Rc::new(of))
    }

    /// A map from text to these.
    pub fn map(values: Self) -> Self {
        Self::Map(Rc::new(Self::STRING), Rc::new(values))
    }

    /// A record with these fields.
    pub fn record<N: Into<Box<str>>>(name: &'static str, fields: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self::Record(name, fields.into_iter().map(|(name, of)| (name.into(), of)).collect())
    }

    /// Of what a schema describes; `None` for what it says nothing of, which expressions cannot reach.
    pub fn of(checks: &'c Checks, root: bool) -> Option<Self> {
        Some(match checks.kind {
            Kind::Any => return None,
            Kind::Boolean => Self::BOOL,
            Kind::Integer => Self::INT,
            Kind::Number => Self::Plain("double"),
            Kind::IntOrString => Self::Dyn,
            Kind::String => Self::Plain(match &*checks.format {
                "date" | "date-time" => TIME,
                "duration" => DURATION,
                "byte" => "bytes",
                _ => "string",
            }),
            Kind::Array => Self::list(checks.items.as_deref().and_then(|i| Self::of(i, false)).unwrap_or(Self::Dyn)),
            Kind::Object => match &checks.additional {
                Some(values) => Self::map(Self::of(values, false).unwrap_or(Self::Dyn)),
                None => Self::Object(checks, root || checks.embedded),
            },
        })
    }

    /// Of what a built-in kind's schema describes.
    pub fn of_schema(of: &'c Schema) -> Self {
        use schema::Type as Kind;
        let items = || of.items().map_or(Self::Dyn, |items| Self::of_schema(items));
        match of.kind {
            Kind::Boolean => Self::BOOL,
            Kind::Int32 | Kind::Int64 => Self::INT,
            Kind::Number => Self::Plain("double"),
            Kind::String | Kind::Quantity | Kind::Duration => Self::STRING,
            Kind::Bytes => Self::Plain("bytes"),
            Kind::Time | Kind::MicroTime => Self::Plain(TIME),
            Kind::Object => Self::Schema(of),
            Kind::Map => Self::map(items()),
            Kind::List => Self::list(items()),
            Kind::Any | Kind::IntOrString | Kind::SchemaOrList | Kind::SchemaOrBool | Kind::SchemaOrNames => Self::Dyn,
        }
    }

    /// The type of a field; `None` when there is none.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Dyn | Self::Free | Self::Made(_) => Some(Self::Dyn),
            Self::Map(_, values) => Some((**values).clone()),
            Self::Optional(inner) => inner.field(name),
            Self::Record(_, fields) => fields.iter().find(|(known, _)| **known == *name).map(|(_, of)| of.clone()),
            Self::Plain(AUTHORIZER) if name == "requestResource" => Some(Self::Plain(RESOURCE_CHECK)),
            Self::Schema(of) => {
                let known = of.field(name).or_else(|| of.field(&super::value::unescape(name)?))?;
                Some(Self::of_schema(known.schema()))
            }
            Self::Object(checks, whole) => {
                let known = checks.property(name).or_else(|| checks.property(&super::value::unescape(name)?));
                match name {
                    "apiVersion" | "kind" if *whole => Some(Self::STRING),
                    "metadata" if *whole => Some(Self::record("ObjectMeta", [("name", Self::STRING), ("generateName", Self::STRING)])),
                    _ => Self::of(known?, false),
                }
            }
            _ => None,
        }
    }

    /// What both are; `None` when no value can be both.
    pub(super) fn join(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (Self::Free, of) | (of, Self::Free) => of.clone(),
            (Self::Dyn, _) | (_, Self::Dyn) => Self::Dyn,
            (Self::Null, of) | (of, Self::Null) if of.is_nullable() => of.clone(),
            (Self::Plain(a), Self::Plain(b)) if a == b => self.clone(),
            (Self::List(a), Self::List(b)) => Self::list(a.join(b)?),
            (Self::Optional(a), Self::Optional(b)) => Self::Optional(Rc::new(a.join(b)?)),
            (Self::Map(k, a), Self::Map(l, b)) => Self::Map(Rc::new(k.join(l)?), Rc::new(a.join(b)?)),
            (Self::Object(a, _), Self::Object(b, _)) if std::ptr::eq(*a, *b) => self.clone(),
            (Self::Schema(a), Self::Schema(b)) if std::ptr::eq(*a, *b) => self.clone(),
            (Self::Record(a, _), Self::Record(b, _)) if a == b => self.clone(),
            (Self::Made(a), Self::Made(b)) if a == b => self.clone(),
            _ => return None,
        })
    }

    fn is_nullable(&self) -> bool {
        matches!(self, Self::Null | Self::Object(..) | Self::Schema(_) | Self::Record(..) | Self::Made(_) | Self::Optional(_))
            || matches!(self, Self::Plain(TIME | DURATION))
    }

    /// Whether it is this type and no less is known of it.
    pub(super) fn is_exactly(&self, wanted: &Self) -> bool {
        match (self, wanted) {
            (_, Self::Dyn) => true,
            (Self::Plain(a), Self::Plain(b)) => a == b,
            (Self::List(a), Self::List(b)) | (Self::Optional(a), Self::Optional(b)) => a.is_exactly(b),
            (Self::Map(k, a), Self::Map(l, b)) => k.is_exactly(l) && a.is_exactly(b),
            (Self::Made(a), Self::Made(b)) => a == b,
            (Self::Null, Self::Null) => true,
            _ => false,
        }
    }

    /// Its name, if it has one.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Dyn | Self::Free => "dyn",
            Self::Plain(name) => name,
            Self::Null => "null",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Object(..) | Self::Schema(_) | Self::Made(_) => "object",
            Self::Record(name, _) => name,
            Self::Optional(_) => "optional_type",
        }
    }

    /// Whether nothing is known of it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Dyn | Self::Free)
    }
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(of) => write!(f, "list({of})"),
            Self::Map(keys, values) => write!(f, "map({keys}, {values})"),
            Self::Optional(of) => write!(f, "optional_type({of})"),
            Self::Made(name) => f.write_str(name),
            other => f.write_str(other.word()),
        }
    }
}
