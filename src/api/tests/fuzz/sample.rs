//! Objects of every kind, made from its schema.

use coracle_api::{
    catalogue::{Resource, builtin},
    schema::{Schema, Type},
};
use serde_json::{Map, Value, json};

use crate::dice::Dice;

/// Texts that mean something somewhere, or nearly so.
pub const TEXTS: [&str; 48] = [
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
    "\u{0}",
    "\u{feff}x",
    "10.0.0.1",
    "010.1.1.1",
    "fd00::1",
    "::ffff:1.2.3.4",
    "10.0.0.0/8",
    "1.2.3.4/99",
    "::/0",
    "None",
    "Always",
    "Never",
    "TCP",
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
    "1e400",
    "1E-9999999",
    "9223372036854775807Ei",
    "0.0000000000000000000000001n",
    "0,2-4",
    "*/5 * * * *",
    "@every 1h",
    "1h1m1.000000000001s",
    "99999999999h",
    "2024-01-02T03:04:05Z",
    "0000-00-00T00:00:00Z",
    "9999-12-31T23:59:59.999999999+23:59",
    "self.x == 1",
];
const NUMBERS: [i64; 12] = [0, 1, -1, 2, 80, 65_535, 65_536, 2_147_483_647, -2_147_483_648, 1 << 53, i64::MAX, i64::MIN];

pub fn text(dice: &mut Dice) -> Value {
    (*dice.pick(&TEXTS)).into()
}

pub fn number(dice: &mut Dice) -> Value {
    match dice.roll(8) {
        0 => json!(1e308),
        1 => json!(u64::MAX),
        2 => json!(-0.0),
        _ => (*dice.pick(&NUMBERS)).into(),
    }
}

/// Any small value.
pub fn anything(dice: &mut Dice) -> Value {
    match dice.roll(7) {
        0 => Value::Null,
        1 => number(dice),
        2 => Value::Bool(dice.one_in(2)),
        3 => Value::Array(vec![text(dice)]),
        4 => json!({}),
        5 => json!({ *dice.pick(&TEXTS): number(dice) }),
        _ => text(dice),
    }
}

/// A value for a schema; now and then one of another type.
pub fn value(schema: &Schema, depth: usize, dice: &mut Dice) -> Value {
    if dice.one_in(80) {
        return anything(dice);
    }
    match schema.kind {
        Type::Object if depth > 0 => {
            let share = 1 + dice.roll(4);
            let chosen: Vec<_> = schema.properties().iter().filter(|_| dice.one_in(share)).collect();
            chosen.into_iter().map(|p| (p.name.to_string(), value(p.schema(), depth - 1, dice))).collect::<Map<_, _>>().into()
        }
        Type::Map if depth > 0 => {
            let Some(items) = schema.items() else { return json!({}) };
            (0..dice.roll(3)).map(|_| ((*dice.pick(&TEXTS)).to_owned(), value(items, depth - 1, dice))).collect::<Map<_, _>>().into()
        }
        Type::List if depth > 0 => {
            let Some(items) = schema.items() else { return json!([]) };
            (0..dice.roll(4)).map(|_| value(items, depth - 1, dice)).collect()
        }
        Type::Boolean => Value::Bool(dice.one_in(2)),
        Type::Int32 | Type::Int64 | Type::Number => number(dice),
        Type::IntOrString | Type::Quantity if dice.one_in(2) => number(dice),
        _ if !schema.enumeration.is_empty() && !dice.one_in(4) => dice.pick(&schema.enumeration).clone(),
        Type::String | Type::IntOrString | Type::Quantity => text(dice),
        Type::Time | Type::MicroTime if !dice.one_in(3) => "2024-01-02T03:04:05Z".into(),
        Type::Duration if !dice.one_in(3) => "1m".into(),
        Type::Bytes if !dice.one_in(3) => "aGk=".into(),
        _ => anything(dice),
    }
}

/// A kind.
pub fn resource(dice: &mut Dice) -> &'static Resource {
    dice.pick::<std::sync::Arc<Resource>>(builtin().resources())
}

/// An object of a kind, as a client would send it.
pub fn object(resource: &Resource, dice: &mut Dice) -> Value {
    let mut object = value(&resource.schema, 8, dice);
    if let Some(fields) = object.as_object_mut() {
        fields.insert("apiVersion".into(), resource.api_version().into());
        fields.insert("kind".into(), resource.kind.clone().into());
    }
    object
}
