//! How bytes and trees are bent.

use serde_json::{Map, Value, json};

use crate::{
    dice::Dice,
    sample::{self, TEXTS},
};

/// Pieces that readers of text stumble over.
const PIECES: [&[u8]; 40] = [
    b"\0",
    b"\xff",
    b"\xc3\x28",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":",
    b"\"",
    b"'",
    b":",
    b": ",
    b",",
    b"- ",
    b"\n",
    b"\n  ",
    b"\t",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!binary ",
    b"!!int ",
    b"? ",
    b"|2\n",
    b">-\n",
    b"---\n",
    b"...\n",
    b"%YAML 1.1\n",
    b"# ",
    b"1e999",
    b"-0",
    b"0x",
    b"18446744073709551616",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    b"\xfa\xff\xff\xff\x0f",
];
/// Bytes that mutation lets a text grow to.
const MAX_BYTES: usize = 256 << 10;
/// What mutation lets a tree weigh, about: no body brings more than some hundred thousand values, or 3 MiB.
const MAX_WEIGHT: usize = 30_000;
/// Bytes of a text that weigh as much as a value: all of the weight in one text is a body of the largest size.
const TEXT_BYTES: usize = 100;
/// Levels that are nested into one place.
const NESTING: [usize; 4] = [3, 60, 120, 5_000];

/// Cuts, flips, doubles, swaps and fills in.
pub fn bytes(body: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..dice.up_to(6) {
        let at = dice.roll(body.len() + 1);
        let end = (at + 1 + dice.up_to(64)).min(body.len());
        match dice.roll(9) {
            0 => body.truncate(at),
            1 if at < body.len() => body[at] ^= 1 << dice.roll(8),
            2 if at < body.len() => body[at] = u8::try_from(dice.roll(256)).unwrap_or_default(),
            3 if at < end => drop(body.drain(at..end)),
            4 if at < end && body.len() < MAX_BYTES => {
                let copy = body[at..end].repeat(1 + dice.up_to(300));
                body.splice(at..at, copy);
            }
            5 if body.len() < MAX_BYTES => {
                let most = if dice.one_in(8) { 2_000 } else { 3 };
                let piece = dice.pick(&PIECES).repeat(1 + dice.up_to(most));
                body.splice(at..at, piece);
            }
            6 if at < end => {
                let to = dice.roll(body.len());
                body.swap(at, to);
            }
            _ => {
                let piece = *dice.pick(&PIECES);
                body.splice(at..at, piece.iter().copied());
            }
        }
    }
}

/// Bends a value in a few places.
pub fn tree(root: &mut Value, dice: &mut Dice) {
    for _ in 0..dice.up_to(5) {
        let mut at = &mut *root;
        while !dice.one_in(5) {
            let members = at.as_object().map_or(0, Map::len) + at.as_array().map_or(0, Vec::len);
            if members == 0 {
                break;
            }
            let n = dice.roll(members);
            at = match at {
                Value::Object(map) => map.values_mut().nth(n).expect("there are more"),
                other => &mut other[n],
            };
        }
        bend(at, dice);
        if weight(root) > MAX_WEIGHT {
            return;
        }
    }
}

/// The values in a value, and the length of its texts and names: a text of megabytes that is copied is no single value.
fn weight(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 1 + map.iter().map(|(name, value)| name.len() / TEXT_BYTES + weight(value)).sum::<usize>(),
        Value::String(text) => 1 + text.len() / TEXT_BYTES,
        _ => 1,
    }
}

fn bend(value: &mut Value, dice: &mut Dice) {
    match (dice.roll(10), &mut *value) {
        (0, _) => *value = Value::Null,
        (1, _) => *value = sample::anything(dice),
        (2, _) => *value = nested(value.take(), *dice.pick(&NESTING), dice.one_in(2)),
        (3, Value::String(text)) => {
            let count = (1 + dice.up_to(2_000)).min(1 + MAX_WEIGHT * TEXT_BYTES / text.len().max(1));
            *text = text.repeat(count);
        }
        (3 | 4, Value::Array(list)) => multiply(list, 1 + dice.up_to(400)),
        (5, Value::Array(list)) if !list.is_empty() => {
            let (from, to) = (dice.roll(list.len()), dice.roll(list.len()));
            list.swap(from, to);
        }
        (3 | 4, Value::Object(map)) => {
            let one = map.values().next().cloned().unwrap_or_default();
            let count = dice.up_to(400).min(MAX_WEIGHT / weight(&one));
            map.extend((0..count).map(|i| (format!("k{i}"), one.clone())));
        }
        (5, Value::Object(map)) => {
            let gone = map.keys().nth(dice.roll(map.len().max(1))).cloned();
            gone.and_then(|name| map.remove(&name));
        }
        (6, Value::Object(map)) => drop(map.insert((*dice.pick(&TEXTS)).to_owned(), sample::anything(dice))),
        (7, _) => *value = sample::number(dice),
        (8, _) => *value = Value::Array(vec![value.take()]),
        _ => *value = sample::text(dice),
    }
}

/// More elements; half the time each under a name of its own.
fn multiply(list: &mut Vec<Value>, count: usize) {
    let Some(one) = list.first().cloned() else { return };
    for i in 0..count.min(MAX_WEIGHT / weight(&one)) {
        let mut copy = one.clone();
        if let Some(name) = copy.get_mut("name") {
            *name = format!("n{}", i / 2).into();
        }
        list.push(copy);
    }
}

/// Deep in lists or objects. A value as deep as the deepest cannot come in by a body, but no reader may count on that.
fn nested(inner: Value, levels: usize, in_lists: bool) -> Value {
    // What is deeper than any body is only ever text: a value would not survive being dropped.
    let levels = levels.min(120);
    (0..levels)
        .fold(inner, |inner, _| if in_lists { Value::Array(vec![inner]) } else { Value::Object(Map::from_iter([("a".to_owned(), inner)])) })
}

/// A list of operations on places that are there, or nearly.
pub fn operations(object: &Value, dice: &mut Dice) -> Value {
    let mut places = vec![String::new()];
    collect(object, "", &mut places);
    (0..1 + dice.up_to(30))
        .map(|_| {
            let place = |dice: &mut Dice| {
                let mut place = dice.pick(&places).clone();
                if dice.one_in(3) {
                    let end: &&str =
                        dice.pick(&["/-", "/0", "/-1", "/x", "/99999999999999999999", "/~", "/~1", "//", "/metadata/labels/a"]);
                    place.push_str(end);
                }
                place
            };
            let op = *dice.pick(&["add", "remove", "replace", "move", "copy", "copy", "test", "explode"]);
            let (path, from) = (place(dice), place(dice));
            json!({"op": op, "path": path, "from": from, "value": sample::anything(dice)})
        })
        .collect()
}

fn collect(value: &Value, at: &str, places: &mut Vec<String>) {
    if places.len() > 300 {
        return;
    }
    let mut add = |name: &str, value: &Value| {
        let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        places.push(place.clone());
        collect(value, &place, places);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| add(name, value)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, value)| add(&i.to_string(), value)),
        _ => {}
    }
}
