//! One step of a path to a field, in the text that `fieldsV1` writes it.

use std::fmt;

use serde_json::{Map, Value};

use super::managers::ManagedFieldsError;

/// One step: `f:name` a member, `k:{"name":"web"}` an element of a keyed list, `v:"x"` a member of a set, `i:0` an index. The JSON behind
/// `k:` and `v:` is always in one spelling, so that equal elements are equal texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element(Box<str>);

impl Element {
    /// The member of this name.
    pub fn field(name: &str) -> Self {
        let mut text = String::with_capacity(name.len() + 2);
        text.push_str("f:");
        text.push_str(name);
        Self(text.into())
    }

    /// The element with these keys.
    pub fn key(keys: Map<String, Value>) -> Self {
        Self(format!("k:{}", Value::Object(keys)).into())
    }

    /// The member of a set.
    pub fn value(value: &Value) -> Self {
        Self(format!("v:{value}").into())
    }

    /// Of `fieldsV1`.
    pub fn parse(text: &str) -> Result<Self, ManagedFieldsError> {
        let wrong = || ManagedFieldsError::Element { text: text.chars().take(MAX_SHOWN_CHARS).collect() };
        let Some((kind, rest)) = text.split_once(':') else { return Err(wrong()) };
        match kind {
            "f" => Ok(Self(text.into())),
            "k" => match serde_json::from_str(rest) {
                Ok(Value::Object(keys)) => Ok(Self::key(keys)),
                _ => Err(wrong()),
            },
            "v" => serde_json::from_str(rest).map(|value: Value| Self::value(&value)).map_err(|_| wrong()),
            "i" if rest.parse::<i64>().is_ok() => Ok(Self(text.into())),
            _ => Err(wrong()),
        }
    }

    /// The text of `fieldsV1`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of a member; `None` for elements of lists.
    pub fn name(&self) -> Option<&str> {
        self.0.strip_prefix("f:")
    }

    /// Whether it names an element of a keyed list.
    pub(super) fn is_key(&self) -> bool {
        self.0.starts_with("k:")
    }
}

/// Characters of a malformed element that an error shows.
const MAX_SHOWN_CHARS: usize = 60;

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, rest) = self.0.split_at(2);
        match kind {
            "f:" => write!(f, ".{rest}"),
            "v:" => write!(f, "[={rest}]"),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            _ => write!(f, "[{rest}]"),
        }
    }
}

/// From the object to a field; shown as `.spec.containers[name="web"].image`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Element>);

impl Path {
    /// Through members of these names.
    pub fn of_names(names: &[&str]) -> Self {
        Self(names.iter().map(|name| Element::field(name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn elements_have_one_spelling() {
        let key = Element::parse(r#"k:{"protocol":"TCP", "port":80}"#).unwrap();
        assert_eq!(key.as_str(), r#"k:{"port":80,"protocol":"TCP"}"#);
        assert_eq!(key, Element::key(json!({"port": 80, "protocol": "TCP"}).as_object().unwrap().clone()));
        for wrong in ["", "f", "x:y", "k:[]", "k:{", "v:", "i:x", ":"] {
            assert!(Element::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn paths_read_as_clients_expect() {
        let path = Path(vec![
            Element::field("spec"),
            Element::field("ports"),
            Element::parse(r#"k:{"port":80,"protocol":"TCP"}"#).unwrap(),
            Element::parse(r#"v:"x""#).unwrap(),
            Element::parse("i:3").unwrap(),
        ]);
        assert_eq!(path.to_string(), r#".spec.ports[port=80,protocol="TCP"][="x"][3]"#);
    }
}
