//! The value rules of `openAPIV3Schema`, made ready for use. What a schema says of structure is in [`crate::schema::Schema`].

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::rules::Rule;

/// A compiled pattern may take so much memory; upstream's engine has a bound of the same kind.
const MAX_PATTERN_BYTES: usize = 1 << 20;

/// What a value may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Anything.
    #[default]
    Any,
    /// `boolean`
    Boolean,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `string`
    String,
    /// `array`
    Array,
    /// `object`
    Object,
    /// `x-kubernetes-int-or-string`
    IntOrString,
}

/// How the members of a list are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Unique {
    /// They need not be.
    #[default]
    No,
    /// By their value.
    Members,
    /// By these keys.
    Keys(Box<[Box<str>]>),
}

/// The rules for one value.
#[derive(Debug, Default)]
pub struct Checks {
    /// Its type.
    pub kind: Kind,
    /// `null` will do.
    pub nullable: bool,
    /// Name of a format; unknown ones mean nothing.
    pub format: Box<str>,
    /// Least number, and whether it is too little itself.
    pub minimum: Option<(f64, bool)>,
    /// Greatest number, and whether it is too much itself.
    pub maximum: Option<(f64, bool)>,
    /// The number is a multiple of this.
    pub multiple_of: Option<f64>,
    /// Characters.
    pub length: (Option<u64>, Option<u64>),
    /// Elements.
    pub items_count: (Option<u64>, Option<u64>),
    /// Members.
    pub properties_count: (Option<u64>, Option<u64>),
    /// The text matches this somewhere.
    pub pattern: Option<Regex>,
    /// One of these; empty: any.
    pub enumeration: Box<[Value]>,
    /// Members that must be there.
    pub required: Box<[Box<str>]>,
    /// By name, sorted.
    pub properties: Box<[(Box<str>, Checks)]>,
    /// Of the elements of a list.
    pub items: Option<Box<Checks>>,
    /// Of the values of a map.
    pub additional: Option<Box<Checks>>,
    /// All of them hold.
    pub all_of: Box<[Checks]>,
    /// One at least holds.
    pub any_of: Box<[Checks]>,
    /// Exactly one holds.
    pub one_of: Box<[Checks]>,
    /// This does not hold.
    pub not: Option<Box<Checks>>,
    /// Of a list.
    pub unique: Unique,
    /// A whole object in itself.
    pub embedded: bool,
    /// Replaced as a whole: its parts have no past.
    pub atomic: bool,
    /// It has a default, so nobody need give it.
    pub defaulted: bool,
    /// Members that the schema does not know stay.
    pub preserves: bool,
    /// `x-kubernetes-validations`
    pub rules: Box<[Rule]>,
    /// There are rules here or below.
    pub has_rules: bool,
}

impl Checks {
    /// Reads the rules of a schema. A pattern that cannot be read is none: the definition was refused for it.
    pub fn read(source: &Value) -> Self {
        let number = |name: &str| source[name].as_f64();
        let count = |name: &str| source[name].as_u64();
        let flag = |name: &str| source[name] == true;
        let list = |name: &str| source[name].as_array().map(Vec::as_slice).unwrap_or_default();
        let inner = |name: &str| -> Box<[Self]> { list(name).iter().map(Self::read).collect() };
        let single = |name: &str| source.get(name).filter(|s| s.is_object()).map(|s| Box::new(Self::read(s)));
        let mut properties: Vec<(Box<str>, Self)> =
            source["properties"].as_object().into_iter().flatten().map(|(name, s)| (name.as_str().into(), Self::read(s))).collect();
        properties.sort_by(|a, b| a.0.cmp(&b.0));
        let mut out = Self {
            kind: kind(source),
            nullable: flag("nullable"),
            format: source["format"].as_str().unwrap_or_default().into(),
            minimum: number("minimum").map(|n| (n, flag("exclusiveMinimum"))),
            maximum: number("maximum").map(|n| (n, flag("exclusiveMaximum"))),
            multiple_of: number("multipleOf"),
            length: (count("minLength"), count("maxLength")),
            items_count: (count("minItems"), count("maxItems")),
            properties_count: (count("minProperties"), count("maxProperties")),
            pattern: source["pattern"].as_str().filter(|p| !p.is_empty()).and_then(|p| pattern(p).ok()),
            enumeration: list("enum").into(),
            required: list("required").iter().filter_map(Value::as_str).map(Into::into).collect(),
            properties: properties.into(),
            items: single("items"),
            additional: single("additionalProperties"),
            all_of: inner("allOf"),
            any_of: inner("anyOf"),
            one_of: inner("oneOf"),
            not: single("not"),
            unique: match source["x-kubernetes-list-type"].as_str() {
                Some("set") => Unique::Members,
                Some("map") => Unique::Keys(list("x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).map(Into::into).collect()),
                _ => Unique::No,
            },
            embedded: flag("x-kubernetes-embedded-resource"),
            atomic: source["x-kubernetes-map-type"] == "atomic",
            defaulted: source.get("default").is_some_and(|default| !default.is_null()),
            preserves: flag("x-kubernetes-preserve-unknown-fields"),
            ..Self::default()
        };
        out.rules = list("x-kubernetes-validations").iter().map(|rule| Rule::read(rule, &out)).collect();
        out.has_rules = !out.rules.is_empty() || out.children().any(|child| child.has_rules);
        out
    }

    /// The rules for a member of an object.
    pub fn property(&self, name: &str) -> Option<&Self> {
        let at = self.properties.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    fn children(&self) -> impl Iterator<Item = &Self> {
        let named = self.properties.iter().map(|(_, child)| child);
        named.chain(self.items.as_deref()).chain(self.additional.as_deref())
    }
}

fn kind(source: &Value) -> Kind {
    if source["x-kubernetes-int-or-string"] == true {
        return Kind::IntOrString;
    }
    match source["type"].as_str().unwrap_or_default() {
        "boolean" => Kind::Boolean,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "string" => Kind::String,
        "array" => Kind::Array,
        "object" => Kind::Object,
        _ => Kind::Any,
    }
}

/// A pattern as Go reads it: its classes are of ASCII.
pub fn pattern(text: &str) -> Result<Regex, regex::Error> {
    let mut out = String::with_capacity(text.len() + 16);
    let mut escaped = false;
    for c in text.chars() {
        match (escaped, c) {
            (true, 'd') => out.push_str("[0-9]"),
            (true, 'D') => out.push_str("[^0-9]"),
            (true, 'w') => out.push_str("[0-9A-Za-z_]"),
            (true, 'W') => out.push_str("[^0-9A-Za-z_]"),
            (true, 's') => out.push_str("[\\t\\n\\f\\r ]"),
            (true, 'S') => out.push_str("[^\\t\\n\\f\\r ]"),
            (true, c) => out.extend(['\\', c]),
            (false, '\\') => {}
            (false, c) => out.push(c),
        }
        escaped = !escaped && c == '\\';
    }
    if escaped {
        out.push('\\');
    }
    RegexBuilder::new(&out).size_limit(MAX_PATTERN_BYTES).build()
}

/// Formats of texts, without the dashes that they may be written with.
const FORMATS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether a format means something for values of a type.
pub fn knows_format(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => FORMATS.contains(&&*format.replace('-', "")),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a text has the format. Formats that are not known are always had.
pub fn has_format(format: &str, text: &str) -> bool {
    let shape = |pattern: &str| Regex::new(pattern).is_ok_and(|p| p.is_match(text));
    match format {
        "date-time" | "datetime" => {
            text.parse::<jiff::Timestamp>().is_ok() && text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't'))
        }
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => {
            crate::structural::parse_duration(text).is_some()
                || shape(r"^\s*[0-9]+(\.[0-9]+)?\s*(ns|us|µs|ms|s|m|h|d|w|hours?|days?|weeks?|minutes?|seconds?)?\s*$")
        }
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "cidr" => text.split_once('/').is_some_and(|(ip, bits)| {
            let most = ip.parse::<std::net::IpAddr>().map(|ip| if ip.is_ipv4() { 32 } else { 128 });
            most.is_ok_and(|most| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
        }),
        "mac" => shape(r"^([0-9A-Fa-f]{2}[:-]){5}([0-9A-Fa-f]{2})$"),
        "uuid" => shape(r"(?i)^[0-9A-F]{8}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{4}-?[0-9A-F]{12}$"),
        "uuid3" => shape(r"(?i)^[0-9A-F]{8}-?[0-9A-F]{4}-?3[0-9A-F]{3}-?[0-9A-F]{4}-?[0-9A-F]{12}$"),
        "uuid4" => shape(r"(?i)^[0-9A-F]{8}-?[0-9A-F]{4}-?4[0-9A-F]{3}-?[89AB][0-9A-F]{3}-?[0-9A-F]{12}$"),
        "uuid5" => shape(r"(?i)^[0-9A-F]{8}-?[0-9A-F]{4}-?5[0-9A-F]{3}-?[89AB][0-9A-F]{3}-?[0-9A-F]{12}$"),
        "bsonobjectid" => shape(r"^[0-9A-Fa-f]{24}$"),
        "ssn" => shape(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"),
        "hexcolor" => shape(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "byte" => text.len().is_multiple_of(4) && shape(r"^[A-Za-z0-9+/]*={0,2}$"),
        "hostname" => {
            text.len() <= 255
                && shape(r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?)*\.?$")
        }
        "email" => shape(r"^[^\s@<>]+@[^\s@<>]+$"),
        "uri" => shape(r"^([A-Za-z][A-Za-z0-9+.-]*:|/)[^\s]*$"),
        "k8s-short-name" => crate::names::dns_label(text).is_ok(),
        "k8s-long-name" => crate::names::dns_subdomain(text).is_ok(),
        _ => true,
    }
}

/// Whether two values are the same; numbers by what they are worth.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => same_members(x, y),
        _ => a == b,
    }
}

fn same_members(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
}
