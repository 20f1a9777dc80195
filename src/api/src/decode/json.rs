//! JSON to a value in one pass that also notices members that come twice.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, Decoded, Duplicate, MAX_DEPTH, MAX_OBJECTS, MAX_REPORTED_FIELDS, Path, bounded};

/// Reads JSON.
pub fn json(body: &[u8]) -> Result<Decoded, DecodeError> {
    bounded(body)?;
    let duplicates = RefCell::default();
    let too_deep = RefCell::new(false);
    let objects = Cell::new(0);
    let seed = Place { path: Path::Root, depth: 0, objects: &objects, duplicates: &duplicates, too_deep: &too_deep };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match read {
        Ok(value) => Ok(Decoded { value, duplicates: duplicates.into_inner() }),
        Err(_) if too_deep.into_inner() => Err(DecodeError::TooDeep { limit: MAX_DEPTH }),
        Err(_) if objects.get() > MAX_OBJECTS => Err(DecodeError::TooMany { limit: MAX_OBJECTS }),
        Err(error) => Err(DecodeError::Json(error.to_string())),
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: Path<'a>,
    depth: usize,
    objects: &'a Cell<usize>,
    duplicates: &'a RefCell<Vec<Duplicate>>,
    too_deep: &'a RefCell<bool>,
}

impl Place<'_> {
    fn deeper<E: Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            self.too_deep.replace(true);
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        let mut out = Vec::new();
        while let Some(value) = seq.next_element_seed(Place { path: self.path.element(out.len()), depth, ..self })? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let depth = self.deeper()?;
        self.objects.set(self.objects.get() + 1);
        if self.objects.get() > MAX_OBJECTS {
            return Err(A::Error::custom("too many objects"));
        }
        let mut out = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = self.path.member(&key);
            let value = map.next_value_seed(Place { path, depth, ..self })?;
            if out.contains_key(&key) && self.duplicates.borrow().len() < MAX_REPORTED_FIELDS {
                self.duplicates.borrow_mut().push(Duplicate::Path(path.to_string()));
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}
