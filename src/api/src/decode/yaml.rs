//! YAML 1.1 as Kubernetes reads it: the first document, as JSON would say it.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use super::{DecodeError, Decoded, Duplicate, MAX_BODY_BYTES, MAX_DEPTH, MAX_OBJECTS, MAX_REPORTED_FIELDS, bounded};

/// Values that a document may have after its aliases are followed: a short text can otherwise stand for billions.
const MAX_NODES: usize = MAX_BODY_BYTES / 4;

/// Reads the first document of a YAML stream.
pub fn yaml(body: &[u8]) -> Result<Decoded, DecodeError> {
    bounded(body)?;
    let text = std::str::from_utf8(body).map_err(|e| DecodeError::Yaml(e.to_string()))?;
    let mut reader =
        Reader { parser: Parser::new_from_str(text), line: 1, anchors: HashMap::new(), nodes: 0, objects: 0, duplicates: Vec::new() };
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentStart(..) => {}
            Event::StreamEnd | Event::DocumentEnd => return Ok(Decoded { value: Value::Null, duplicates: Vec::new() }),
            event => {
                let value = reader.node(event, 0)?.0;
                return Ok(Decoded { value, duplicates: reader.duplicates });
            }
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// Where the last event begins, from 1.
    line: usize,
    anchors: HashMap<usize, Anchor>,
    nodes: usize,
    objects: usize,
    duplicates: Vec<Duplicate>,
}

/// What an anchor stands for, with the number of values and objects in it.
#[derive(Clone)]
struct Anchor {
    value: Value,
    nodes: usize,
    objects: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, DecodeError> {
        loop {
            match self.parser.next_event() {
                None => return Ok(Event::StreamEnd),
                Some(Err(error)) => return Err(DecodeError::Yaml(error.to_string())),
                Some(Ok((event, place))) if means_something(&event) => {
                    self.line = place.start.line();
                    return Ok(event);
                }
                Some(Ok(_)) => {}
            }
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), DecodeError> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES { Err(DecodeError::Yaml(format!("its aliases make more than {MAX_NODES} values"))) } else { Ok(()) }
    }

    fn count_objects(&mut self, objects: usize) -> Result<(), DecodeError> {
        self.objects += objects;
        if self.objects > MAX_OBJECTS { Err(DecodeError::TooMany { limit: MAX_OBJECTS }) } else { Ok(()) }
    }

    fn node(&mut self, event: Event<'a>, depth: usize) -> Result<(Value, usize), DecodeError> {
        if depth >= MAX_DEPTH && !matches!(event, Event::Scalar(..)) {
            return Err(DecodeError::TooDeep { limit: MAX_DEPTH });
        }
        self.count(1)?;
        let (start, objects_before) = (self.nodes, self.objects);
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let Some(Anchor { value, nodes, objects }) = self.anchors.get(&id).cloned() else {
                    return Err(DecodeError::Yaml("an alias names no anchor before it".into()));
                };
                self.count(nodes)?;
                self.count_objects(objects)?;
                (value, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().and_then(|t| t.core_suffix());
                (scalar(&text, style == ScalarStyle::Plain, tag), anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => {
                self.count_objects(1)?;
                (self.mapping(depth)?, anchor)
            }
            _ => return Err(DecodeError::Yaml("it ends in the middle of a value".into())),
        };
        let nodes = self.nodes - start + 1;
        if anchor != 0 {
            self.count(nodes)?;
            let objects = self.objects - objects_before;
            self.count_objects(objects)?;
            self.anchors.insert(anchor, Anchor { value: value.clone(), nodes, objects });
        }
        Ok((value, nodes))
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let mut out = Vec::new();
        loop {
            match self.next()? {
                Event::SequenceEnd => return Ok(Value::Array(out)),
                event => {
                    out.push(self.node(event, depth + 1)?.0);
                }
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let (mut out, mut merged) = (Map::new(), Vec::new());
        loop {
            let event = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let line = self.line;
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, _, _) if text == "<<");
            let key = self.node(event, depth + 1)?.0;
            let key = match key {
                Value::String(text) => text,
                Value::Null => "null".into(),
                Value::Bool(_) | Value::Number(_) => key.to_string(),
                _ => return Err(DecodeError::Yaml("a list or an object cannot be a key".into())),
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?.0;
            if is_merge {
                merged.push(value);
            } else {
                if out.contains_key(&key) && self.duplicates.len() < MAX_REPORTED_FIELDS {
                    self.duplicates.push(Duplicate::Line { line, key: key.clone() });
                }
                out.insert(key, value);
            }
        }
        for value in merged {
            let sources = if let Value::Array(list) = value { list } else { vec![value] };
            for (key, value) in sources.into_iter().filter_map(|s| if let Value::Object(map) = s { Some(map) } else { None }).flatten() {
                out.entry(key).or_insert(value);
            }
        }
        Ok(Value::Object(out))
    }
}

/// Comments and anchors' names are for people.
fn means_something(event: &Event<'_>) -> bool {
    use Event::{DocumentEnd, DocumentStart, MappingEnd, SequenceEnd, StreamEnd, StreamStart};
    event.is_node() || matches!(event, StreamStart | StreamEnd | DocumentStart(..) | DocumentEnd | SequenceEnd | MappingEnd)
}

/// What a scalar means by YAML 1.1.
fn scalar(text: &str, plain: bool, tag: Option<&str>) -> Value {
    match tag {
        Some("str" | "binary") => return text.into(),
        None if !plain => return text.into(),
        _ => {}
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "true" | "True" | "TRUE" => true.into(),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "false" | "False" | "FALSE" => false.into(),
        _ => number(text).map_or_else(|| text.into(), Value::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    let first = *text.as_bytes().first()?;
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return None;
    }
    let plain = text.replace('_', "");
    let (negative, digits) = match plain.as_bytes()[0] {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, &plain[..]),
    };
    let radix = |digits: &str, radix| {
        let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
        integer(if negative { -value } else { value })
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    for (prefix, base) in [("0x", 16), ("0b", 2), ("0o", 8)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            return if rest.starts_with(['+', '-']) { None } else { radix(rest, base) };
        }
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()) {
        // A leading zero is octal, as in file modes; with an 8 or 9 in it, it is a float.
        return radix(digits, 8).or_else(|| Number::from_f64(plain.parse().ok()?));
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let value: i128 = digits.parse().ok()?;
        return integer(if negative { -value } else { value }).or_else(|| Number::from_f64(plain.parse().ok()?));
    }
    let float = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
        && digits.bytes().any(|b| b.is_ascii_digit());
    if float { Number::from_f64(plain.parse().ok()?) } else { None }
}

fn integer(value: i128) -> Option<Number> {
    i64::try_from(value).map(Number::from).ok().or_else(|| u64::try_from(value).map(Number::from).ok())
}
