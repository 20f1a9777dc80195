//! What calls cost: about what they read and make, in upstream's units.

use super::Value;

/// An answer of the authorizer. Upstream's figure: two of them go into one expression, a third does not.
const AUTHORIZATION: u64 = 350_000;
/// Making a list, besides its members.
pub(super) const LIST: u64 = 10;
/// Making a map, besides its members.
pub(super) const MAP: u64 = 30;
/// Making an object, besides its fields.
pub(super) const OBJECT: u64 = 40;
/// Length of the pattern behind a named format, about.
const FORMAT_PATTERN: u64 = 60;

/// Text is read ten characters at a time.
pub(super) fn traversal(size: u64) -> u64 {
    size.div_ceil(10)
}

/// A pattern is about four characters to an expression, each of which may look at all of the text.
pub(super) fn matching(text: u64, pattern: u64) -> u64 {
    traversal(text.saturating_add(1)).saturating_mul(pattern.div_ceil(4))
}

/// Making a pattern, by about how many states it has: counted repetitions are written out.
pub(super) fn compiling(pattern: &str) -> u64 {
    const STATES_OF_A_UNIT: u64 = 100;
    const MOST_TIMES: u64 = 1000;
    let mut states = pattern.len() as u64;
    for repeated in pattern.split('{').skip(1) {
        let counts = repeated.split('}').next().unwrap_or_default().split(',');
        let most = counts.filter_map(|n| n.parse::<u64>().ok()).max().unwrap_or(1);
        states = states.saturating_mul(most.clamp(1, MOST_TIMES));
    }
    states / STATES_OF_A_UNIT
}

/// How many values there are in these, counting no further than `most`: an expression can put one value into another very often.
fn weight(values: &[Value<'_>], most: u64) -> u64 {
    fn add(value: &Value<'_>, count: &mut u64, most: u64) {
        if *count >= most {
            return;
        }
        *count += 1;
        match value {
            Value::List(list) => list.iter().for_each(|v| add(v, count, most)),
            Value::Map(pairs) => pairs.iter().for_each(|(_, v)| add(v, count, most)),
            Value::Made(_, fields) => fields.iter().for_each(|(_, v)| add(v, count, most)),
            Value::Optional(Some(inner)) => add(inner, count, most),
            Value::Array(list, _) => list.iter().for_each(|v| add_json(v, count, most)),
            Value::Object(map, _) => map.values().for_each(|v| add_json(v, count, most)),
            Value::Text(text) => *count += text.len() as u64 / TEXT_OF_A_VALUE,
            _ => {}
        }
    }
    fn add_json(value: &serde_json::Value, count: &mut u64, most: u64) {
        if *count >= most {
            return;
        }
        *count += 1;
        match value {
            serde_json::Value::Array(list) => list.iter().for_each(|v| add_json(v, count, most)),
            serde_json::Value::Object(map) => map.values().for_each(|v| add_json(v, count, most)),
            serde_json::Value::String(text) => *count += text.len() as u64 / TEXT_OF_A_VALUE,
            _ => {}
        }
    }
    let mut count = 0;
    values.iter().for_each(|value| add(value, &mut count, most));
    count
}

fn size(value: Option<&Value<'_>>) -> u64 {
    value.and_then(Value::len).unwrap_or(1) as u64
}

/// Bytes of text that are compared in the time that it takes to compare two values.
const TEXT_OF_A_VALUE: u64 = 256;
/// Bytes of text that are read for one unit where upstream takes none: little enough to be no matter for names, and an end to loops over large texts.
const TEXT_OF_A_UNIT: u64 = 2_000;

/// Bytes that calls read whatever they are.
pub(super) fn reading(values: &[Value<'_>]) -> u64 {
    values.iter().map(|value| if let Value::Text(text) = value { text.len() as u64 / TEXT_OF_A_UNIT } else { 0 }).sum()
}

/// Of a call, before it is made, when so much is left; the receiver is the first argument.
pub(super) fn of_call(name: &str, args: &[Value<'_>], left: u64) -> u64 {
    let own = of_size(name, args);
    // What looks into its arguments, however deep, pays by what is in there.
    let deep = match name {
        "==" | "!=" | "in" | "indexOf" | "lastIndexOf" | "distinct" | "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            traversal(weight(args, left.saturating_add(1).saturating_mul(10)))
        }
        "flatten" => weight(args, left.saturating_add(1)),
        _ => 0,
    };
    own.max(deep).saturating_add(reading(args))
}

fn of_size(name: &str, args: &[Value<'_>]) -> u64 {
    let (first, second) = (size(args.first()), size(args.get(1)));
    let lists = !matches!(args.first(), Some(Value::Text(_) | Value::Bytes(_)));
    match name {
        "check" => AUTHORIZATION,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "distinct" | "sort" | "reverse" | "flatten" | "slice"
            if !matches!(args.first(), Some(Value::Text(_))) =>
        {
            let list = args.first().and_then(Value::elements).unwrap_or_default();
            let texts: u64 = list.iter().map(|v| traversal(size(Some(v)))).sum();
            // Each is compared with all that came before.
            if matches!(name, "distinct" | "sort") { texts.saturating_mul(1 + first) } else { texts }
        }
        "replace" | "split" | "ip.isCanonical" | "format" => traversal(2 * first),
        "matches" | "find" | "findAll" => matching(first, second),
        "contains" => traversal(first).saturating_mul(traversal(second)),
        "startsWith" | "endsWith" => traversal(second),
        "validate" => matching(second, FORMAT_PATTERN),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => first.saturating_mul(second).max(1),
        "in" => second.max(1),
        "==" | "!=" | "<" | "<=" | ">" | ">=" => traversal(first.min(second)).max(1),
        // Lists are copied.
        "+" if lists => first + second,
        "+" => traversal(first + second).max(1),
        "join" => args.first().and_then(Value::elements).unwrap_or_default().iter().map(|v| traversal(2 * size(Some(v)))).sum(),
        "lists.range" => match args.first() {
            Some(Value::Int(n)) => u64::try_from(*n).unwrap_or(0) + LIST,
            _ => LIST,
        },
        "size" | "type" | "dyn" => 1,
        _ => traversal(first).max(1),
    }
}
