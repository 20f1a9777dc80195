//! Expressions, most of which mean something, and a value that they are asked of.

use serde_json::{Value, json};

use crate::{dice::Dice, mutate};

/// Expressions as people write them, a line each.
const CORPUS: &str = include_str!("corpus/expressions.txt");
const ATOMS: [&str; 26] = [
    "self",
    "oldSelf",
    "self.n",
    "self.s",
    "self.l",
    "self.m",
    "self.o",
    "self.set",
    "self.keyed",
    "self.big",
    "self.t",
    "1",
    "-1",
    "2u",
    "1.5",
    "9223372036854775807",
    "'a'",
    "''",
    "b'a'",
    "true",
    "null",
    "[]",
    "{}",
    "x",
    "y",
    "lists.range(100)",
];
const SIGNS: [&str; 16] = ["+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in", "?", "."];
const METHODS: [&str; 62] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "lowerAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "reverse",
    "join",
    "format",
    "find",
    "findAll",
    "isSorted",
    "sum",
    "min",
    "max",
    "distinct",
    "sort",
    "flatten",
    "slice",
    "first",
    "last",
    "hasValue",
    "value",
    "orValue",
    "or",
    "getHours",
    "getFullYear",
    "validate",
    "isLessThan",
    "compareTo",
    "add",
    "sub",
    "sign",
    "asInteger",
    "family",
    "masked",
    "prefixLength",
    "containsIP",
    "getHost",
    "getQuery",
    "major",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "transformList",
    "transformMap",
    "transformMapEntry",
    "sortBy",
    "optMap",
    "optFlatMap",
    "unwrapOpt",
    "existsOne",
    "upperAscii",
];
const FUNCTIONS: [&str; 34] = [
    "size",
    "type",
    "dyn",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "bool",
    "duration",
    "timestamp",
    "has",
    "quantity",
    "isQuantity",
    "ip",
    "isIP",
    "cidr",
    "isCIDR",
    "url",
    "isURL",
    "semver",
    "isSemver",
    "strings.quote",
    "lists.range",
    "sets.contains",
    "sets.equivalent",
    "sets.intersects",
    "math.greatest",
    "math.least",
    "math.abs",
    "optional.of",
    "optional.ofNonZeroValue",
    "base64.decode",
    "format.named",
];

/// The schema of `self`.
pub fn schema() -> Value {
    json!({"type": "object", "properties": {
        "n": {"type": "integer"}, "s": {"type": "string"}, "t": {"type": "string", "format": "date-time"},
        "l": {"type": "array", "items": {"type": "integer"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}}}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}},
        "big": {"type": "string"},
        "o": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}}}})
}

/// What is asked of; large in one place or another.
pub fn subject(dice: &mut Dice) -> Value {
    let many = if dice.one_in(4) { 3_000 } else { 3 };
    json!({"n": 3, "s": "héllo", "t": "2026-01-02T03:04:05Z", "l": (0..many).collect::<Vec<_>>(),
        "set": (0..many).map(|i| format!("s{i}")).collect::<Vec<_>>(),
        "keyed": (0..many).map(|i| json!({"k": format!("s{i}"), "v": i})).collect::<Vec<_>>(),
        "m": (0..many).map(|i| (format!("k{i}"), json!("v"))).collect::<serde_json::Map<_, _>>(),
        "big": "ab ".repeat(if dice.one_in(4) { 300_000 } else { 3 }), "o": {"x": "1Gi", "y": [{"z": [1, 2, {}]}]}})
}

/// An expression.
pub fn expression(dice: &mut Dice) -> String {
    match dice.roll(6) {
        0 => hostile(dice),
        1 => {
            let lines: Vec<&str> = CORPUS.lines().filter(|line| !line.is_empty()).collect();
            let mut body = dice.pick(&lines).as_bytes().to_vec();
            mutate::bytes(&mut body, dice);
            String::from_utf8_lossy(&body).into_owned()
        }
        _ => grown(4, dice),
    }
}

/// Grown from the grammar.
fn grown(depth: usize, dice: &mut Dice) -> String {
    if depth == 0 || dice.one_in(6) {
        return (*dice.pick(&ATOMS)).to_owned();
    }
    let mut part = || grown(depth - 1, dice);
    let (a, b, c) = (part(), part(), part());
    match dice.roll(12) {
        0 => format!("[{a}, {b}, {c}]"),
        1 => format!("{{'k': {a}, 'l': {b}}}"),
        2 => format!("{a}[{b}]"),
        3 => format!("({a} ? {b} : {c})"),
        4 => format!("cel.bind(x, {a}, {b})"),
        5 => format!("{}({a})", dice.pick(&FUNCTIONS)),
        6 => format!("{}({a}, {b})", dice.pick(&FUNCTIONS)),
        7 => format!("{a}.{}()", dice.pick(&METHODS)),
        8 => format!("{a}.{}({b})", dice.pick(&METHODS)),
        9 => format!("{a}.{}(x, {b})", dice.pick(&METHODS)),
        10 => format!("{a}.{}(x, y, {b})", dice.pick(&METHODS)),
        _ => format!("({a} {} {b})", dice.pick(&SIGNS)),
    }
}

/// What is made to last long, to lie deep or to grow.
fn hostile(dice: &mut Dice) -> String {
    let n = 1 + dice.up_to(4_000);
    let (atom, list) = (*dice.pick(&ATOMS), *dice.pick(&["self.l", "self.set", "self.keyed", "lists.range(1000)", "self.m"]));
    match dice.roll(18) {
        0 => format!("1{}", format!(" {} 1", dice.pick(&SIGNS)).repeat(n)),
        1 => format!("{}1{}", "(".repeat(n), ")".repeat(n)),
        2 => format!("self{}", ".o".repeat(n)),
        3 => format!("{}1", "-".repeat(n)),
        4 => format!("{}true", "!".repeat(n)),
        5 => format!("{}1{}", "[".repeat(n), "]".repeat(n)),
        6 => format!("{}{atom}{}", "(self.l.all(x, ".repeat(n.min(30)), "))".repeat(n.min(30))),
        7 => {
            let doubled = (1..=n.min(60)).map(|i| format!("cel.bind(v{i}, v{0} + v{0}, ", i - 1)).collect::<String>();
            format!("cel.bind(v0, self.big, {doubled}v{}{}", n.min(60), ")".repeat(n.min(60) + 1))
        }
        8 => {
            let put = (1..=n.min(60)).map(|i| format!("cel.bind(v{i}, [v{0}, v{0}, v{0}], ", i - 1)).collect::<String>();
            format!("cel.bind(v0, [1], {put}v{0} == v{0}{1}", n.min(60), ")".repeat(n.min(60) + 1))
        }
        9 => "lists.range(10000).map(i, '').join(self.big) == ''".to_owned(),
        10 => "self.s.replace('', self.big).replace('a', self.big) == ''".to_owned(),
        11 => format!("'{}'.format(lists.range(1000).map(i, self.big)) == ''", "%x".repeat(n)),
        12 => format!("{list}.all(x, self == oldSelf && self.{} == oldSelf.{0})", dice.pick(&["l", "set", "keyed", "m", "big", "o"])),
        13 => format!("{list}.all(x, self.big.matches('(a{{0,{n}}}b?){{0,{n}}}' + string(x)))"),
        14 => format!("{list}.transformMapEntry(i, x, {{i: x}}) == {list}.transformMapEntry(i, x, {{i: x}})"),
        15 => format!("cel.bind(m, {list}.transformMap(i, x, x), m.all(k, m[k] == m[k]))"),
        16 => format!("{list}.all(x, self.big.size() > 0 && self.big.split('').size() > 0)"),
        _ => format!("{list}.map(x, self.big).sum() == {list}.map(x, string(x)).distinct().sort().join(self.s)"),
    }
}
