//! Objects of every kind that are nearly right, by the thousand: whatever is sent, the way of a write ends in an answer.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Map;

use super::*;
use crate::catalogue::builtin;
use crate::schema::{Schema, Type};
use crate::{defaulting, patch, structural, table};

/// Texts that mean something somewhere, or nearly so.
const TEXTS: [&str; 40] = [
    "",
    "a",
    "web",
    "Not Valid!",
    "-x",
    "a.b/c",
    "/",
    "..",
    "../x",
    "é✓",
    "10.0.0.1",
    "010.1.1.1",
    "fd00::1",
    "::ffff:1.2.3.4",
    "10.0.0.0/8",
    "1.2.3.4/99",
    "0.0.0.0/0",
    "::/0",
    "None",
    "Always",
    "Never",
    "TCP",
    "UDP",
    "In",
    "Exists",
    "RollingUpdate",
    "Indexed",
    "LoadBalancer",
    "50%",
    "101%",
    "-1%",
    "%",
    "1Gi",
    "-1",
    "100m",
    "9223372036854775807Ei",
    "0,2-4",
    "*/5 * * * *",
    "@every 1h",
    "2024-01-02T03:04:05Z",
];
const NUMBERS: [i64; 12] = [0, 1, -1, 2, 80, 65_535, 65_536, 2_147_483_647, -2_147_483_648, 1 << 53, i64::MAX, i64::MIN];

/// A small generator of its own: proptest gives the seed, so that a failing one is told and shrunk.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn text(&mut self) -> Value {
        TEXTS[self.roll(TEXTS.len())].into()
    }

    fn number(&mut self) -> Value {
        NUMBERS[self.roll(NUMBERS.len())].into()
    }

    fn scalar(&mut self) -> Value {
        match self.roll(6) {
            0 => Value::Null,
            1 => self.number(),
            2 => Value::Bool(self.roll(2) == 0),
            3 => Value::Array(Vec::new()),
            4 => Value::Object(Map::new()),
            _ => self.text(),
        }
    }

    /// A value for a schema; now and then one of another type.
    fn value(&mut self, schema: &Schema, depth: usize) -> Value {
        if self.roll(60) == 0 {
            return self.scalar();
        }
        match schema.kind {
            Type::Object if depth > 0 => {
                let share = 1 + self.roll(4);
                let chosen: Vec<_> = schema.properties().iter().filter(|_| self.roll(share) == 0).collect();
                chosen.into_iter().map(|p| (p.name.to_string(), self.value(p.schema(), depth - 1))).collect::<Map<_, _>>().into()
            }
            Type::Map if depth > 0 => {
                let Some(items) = schema.items() else { return Value::Object(Map::new()) };
                let keys: Vec<String> = (0..self.roll(3)).map(|_| TEXTS[self.roll(TEXTS.len())].to_owned()).collect();
                keys.into_iter().map(|key| (key, self.value(items, depth - 1))).collect::<Map<_, _>>().into()
            }
            Type::List if depth > 0 => {
                let Some(items) = schema.items() else { return Value::Array(Vec::new()) };
                (0..self.roll(4)).map(|_| self.value(items, depth - 1)).collect::<Vec<_>>().into()
            }
            Type::Boolean => Value::Bool(self.roll(2) == 0),
            Type::Int32 | Type::Int64 | Type::Number => self.number(),
            Type::IntOrString | Type::Quantity if self.roll(2) == 0 => self.number(),
            _ if !schema.enumeration.is_empty() && self.roll(4) > 0 => schema.enumeration[self.roll(schema.enumeration.len())].clone(),
            Type::String | Type::IntOrString | Type::Quantity => self.text(),
            Type::Time | Type::MicroTime => "2024-01-02T03:04:05Z".into(),
            Type::Duration => "1m".into(),
            Type::Bytes => "aGk=".into(),
            _ => self.scalar(),
        }
    }
}

fn made(resource: &Resource, dice: &mut Dice) -> Option<Value> {
    let mut object = dice.value(&resource.schema, 9);
    if !object.is_object() {
        return None;
    }
    structural::prune(&resource.schema, &mut object).ok()?;
    defaulting::apply(resource, &mut object);
    Some(object)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn nothing_that_is_sent_makes_the_server_fall(seed in 1u64.., resource in prop::sample::select(builtin().resources())) {
        let mut dice = Dice(seed);
        let Some(new) = made(&resource, &mut dice) else { return Ok(()) };
        let Some(old) = made(&resource, &mut dice) else { return Ok(()) };
        let subresources = resource.subresources.iter().map(|s| s.name.as_str()).chain([""]);
        for subresource in subresources {
            let _ = (update(&resource, &new, &old, subresource), warnings::update(&resource, &new, &old, subresource));
        }
        let _ = (create(&resource, &new), warnings::create(&resource, &new));
        let _ = table::row(&resource, &new, Timestamp::UNIX_EPOCH);
        let mut patched = old.clone();
        let _ = patch::strategic(&resource.schema, &mut patched, &new);
        let mut merged = old;
        let _ = patch::merge(&mut merged, &new);
    }
}
