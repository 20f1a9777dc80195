//! Expressions and what they come to.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::custom::checks::Checks;

const BUDGET: u64 = 100_000;

/// What an expression says of `self`, in words.
fn ask(source: &str, schema: &Json, object: &Json) -> Result<String, String> {
    let checks = Checks::read(schema);
    let found = Type::of(&checks, true).unwrap_or(Type::Dyn);
    let program = Program::compile(source, &[("self", found)], &[Type::Dyn]).map_err(|e| e.to_string())?;
    let mut budget = BUDGET;
    let value = program.ask(&[("self", Value::of(object, Some(&checks)))], &mut budget).map_err(|e| e.to_string())?;
    Ok(format!("{value:?}"))
}

fn holds(source: &str) {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "d": {"type": "number"}, "s": {"type": "string"}, "t": {"type": "string", "format": "date-time"},
        "l": {"type": "array", "items": {"type": "integer"}}, "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "m": {"type": "object", "additionalProperties": {"type": "string"}}, "ios": {"x-kubernetes-int-or-string": true}, "a.b-c": {"type": "integer"}, "namespace": {"type": "string"},
        "o": {"type": "object", "properties": {"x": {"type": "string"}}}}});
    let object = json!({"n": 3, "d": 2, "s": "héllo", "t": "2026-01-02T03:04:05Z", "l": [3, 1, 2], "set": ["a", "b"], "m": {"k": "v", "k2": "v2"}, "ios": "50%",
        "a.b-c": 7, "namespace": "ns", "o": {}, "metadata": {"name": "me"}});
    assert_eq!(ask(source, &schema, &object).as_deref(), Ok("Bool(true)"), "{source}");
}

#[test]
fn operators_do_what_the_language_says() {
    for source in [
        "self.n == 3 && self.n != 4 || false",
        "1 + 2 * 3 == 7 && -(1) == -1 && 7 % 3 == 1 && 7 / 2 == 3",
        "self.d > self.n - 2 && 1 < 1.5 && 2u > 1u",
        "'a' + \"b\" == 'ab' && r'\\d' == '\\\\d' && b'ab' == b'\\x61b'",
        "true ? self.n == 3 : false",
        "3 in self.l && !(9 in self.l) && 'k' in self.m",
        "[1, 2] + [3] == [1, 2, 3] && {'a': 1}['a'] == 1 && self.l[0] == 3",
        "has(self.o) && !has(self.o.x) && self.metadata.name == 'me'",
        "self.a__dot__b__dash__c == 7 && self.__namespace__ == 'ns'",
        "self.set == ['b', 'a']",
        "type(1) == int && string(1) == '1' && int('4') == 4 && double(2) == 2.0",
        "self.ios == '50%' && (type(self.ios) == string ? true : self.ios > 1)",
        "0x10 == 16 && 1e3 == 1000.0 && -9223372036854775808 < 0",
        "null == null && self.m['k'] == 'v'",
        "1/0 == 1 || true",
    ] {
        holds(source);
    }
}

#[test]
fn macros_walk_over_lists_and_maps() {
    for source in [
        "self.l.all(x, x > 0) && self.l.exists(x, x == 2) && self.l.exists_one(x, x == 1)",
        "self.l.map(x, x * 2) == [6, 2, 4]",
        "self.l.filter(x, x > 1).size() == 2",
        "self.l.map(x, x > 1, x + 1) == [4, 3]",
        "self.m.all(k, self.m[k].startsWith('v'))",
        "self.l.all(i, x, i < 3 && x < 4)",
        "self.m.exists(k, v, k == 'k2' && v == 'v2')",
        "self.l.transformList(i, x, i + x) == [3, 2, 4]",
        "{'a': 1}.transformMap(k, v, v + 1) == {'a': 2}",
        "cel.bind(x, self.n + 1, x * x) == 16",
        "self.?s.orValue('none') == 'héllo' && self.o.?x.orValue('none') == 'none'",
        "!self.o.?x.hasValue() && self.?o.?x.optMap(y, y + '!').orValue('z') == 'z'",
        "optional.of(1).or(optional.of(2)).value() == 1 && [?optional.none(), 1].size() == 1",
        "self.l[?9].orValue(5) == 5 && self.m[?'k'].orValue('') == 'v'",
    ] {
        holds(source);
    }
}

#[test]
fn libraries_are_those_of_kubernetes() {
    for source in [
        "self.s.size() == 5 && size(self.l) == 3",
        "self.s.matches('^h.llo$') && self.s.contains('ll') && self.s.endsWith('o')",
        "self.s.indexOf('l') == 2 && self.s.lastIndexOf('l') == 3",
        "self.s.substring(1, 3) == 'él' && self.s.upperAscii() == 'HéLLO'",
        "'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b'",
        "' x '.trim() == 'x' && 'abc'.reverse() == 'cba' && 'aa'.replace('a', 'b', 1) == 'ba'",
        "'%s is %d and %.2f'.format([dyn('x'), 3, 1.5]) == 'x is 3 and 1.50'",
        "'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]') == ['1', '2']",
        "[1, 2, 3].isSorted() && self.l.sum() == 6 && self.l.min() == 1 && self.l.max() == 3 && self.l.indexOf(1) == 1",
        "[1, 1, 2].distinct() == [1, 2] && [[1], [2]].flatten() == [1, 2] && [3, 1].sort() == [1, 3]",
        "self.t.getFullYear() == 2026 && self.t < timestamp('2026-01-03T00:00:00Z') && self.t - duration('1h') < self.t",
        "duration('90m') == duration('1h30m') && duration('90s').getMinutes() == 1",
        "quantity('1Gi').isGreaterThan(quantity('1G')) && isQuantity('100m') && !isQuantity('x') && quantity('1k').add(1).asInteger() == 1001",
        "quantity('50m').compareTo(quantity('0.05')) == 0",
        "ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('1.2.3') && ip('127.0.0.1').isLoopback()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && !cidr('10.0.0.0/8').containsCIDR('10.0.0.0/7') && isCIDR('::/0')",
        "url('https://u@h:1/p?a=b&a=c').getHostname() == 'h' && url('https://h:1/p?a=b&a=c').getQuery()['a'] == ['b', 'c'] && !isURL('x')",
        "url('https://h:1/p').getPort() == '1' && url('/a').getEscapedPath() == '/a'",
        "semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.2', true) && !isSemver('v1.2.3') && semver('1.0.0-a').isLessThan(semver('1.0.0'))",
        "!format.dns1123Label().validate('a-b').hasValue() && format.named('dns1123Label').value().validate('A').hasValue()",
        "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 2]) && sets.equivalent([1, 2], [2, 1])",
        "math.greatest(1, 2, 3) == 3 && math.least([4, 2]) == 2 && math.abs(-1) == 1",
        "base64.encode(b'hi') == 'aGk=' && string(base64.decode('aGk=')) == 'hi'",
    ] {
        holds(source);
    }
}

#[test]
fn what_makes_no_sense_is_refused_before_it_runs() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}, "s": {"type": "string"}, "p": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    for (source, why) in [
        ("self.nope > 1", "undefined field"),
        ("other", "undeclared reference"),
        ("self.n + 'a'", "no matching overload"),
        ("self.n && true", "no matching overload"),
        ("self.s.size(1)", "no matching overload"),
        ("self.s.fly()", "undeclared reference"),
        ("self.n == 'a'", "no matching overload"),
        ("self.n.all(x, true)", "range of a comprehension"),
        ("self.p.any", "undefined field"),
        ("1 +", "syntax error"),
        ("'abc", "syntax error"),
        ("self..n", "syntax error"),
        ("[1, 2", "syntax error"),
        ("", "syntax error"),
        ("#", "syntax error"),
    ] {
        let error = ask(source, &schema, &json!({})).unwrap_err();
        assert!(error.contains(why), "{source}: {error}");
    }
}

#[test]
fn nothing_runs_for_ever_or_too_deep() {
    let schema = json!({"type": "object", "properties": {"l": {"type": "array", "items": {"type": "integer"}}}});
    let object = json!({"l": (0..200).collect::<Vec<_>>()});
    let error = ask("self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))", &schema, &object).unwrap_err();
    assert_eq!(error, EvalError::Spent.to_string());
    for deep in [
        "(".repeat(100_000),
        "-".repeat(10_000) + "1",
        "!".repeat(10_000),
        "a".to_owned() + &".a".repeat(10_000),
        "[".repeat(5_000),
        "{1:".repeat(5_000),
    ] {
        assert!(ask(&deep, &schema, &object).is_err());
    }
    let wide = vec!["true"; 2_000].join(" && ");
    assert_eq!(ask(&wide, &schema, &object).as_deref(), Ok("Bool(true)"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(source in "[a-z0-9.?:&|()\\[\\]{}'\"+*/%!<>=, \\\\-]{0,60}") {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let _ = ask(&source, &schema, &json!({"a": "x"}));
    }

    #[test]
    fn whole_numbers_are_those_of_rust(a in any::<i32>(), b in 1i32..) {
        let (a, b) = (i64::from(a), i64::from(b));
        let source = format!("({a}) + {b} == {} && ({a}) * {b} == {} && ({a}) / {b} == {} && ({a}) % {b} == {}", a + b, a * b, a / b, a % b);
        prop_assert_eq!(ask(&source, &json!({"type": "object"}), &json!({})), Ok("Bool(true)".to_owned()));
    }
}

mod hostile;
mod policies;

#[test]
fn two_variables_and_sorting() {
    for source in [
        "{'a': 1, 'b': 2}.transformMapEntry(k, v, {v: k}) == {1: 'a', 2: 'b'}",
        "{1: 'a'}.all(k, k > 0)",
        "['bb', 'a'].sortBy(x, x.size()) == ['a', 'bb']",
        "optional.unwrap([optional.of(1), optional.none()]) == [1] && [optional.of(2)].unwrapOpt() == [2]",
        "[[1, 2], [3]].flatten() == [1, 2, 3] && lists.range(3) == [0, 1, 2]",
        "string(ip('::1')) == '::1' && int(duration('1s')) == 1000000000",
        "!format.dns1123LabelPrefix().validate('a-').hasValue() && format.dns1123Label().validate('a-').hasValue()",
    ] {
        holds(source);
    }
}

#[test]
fn what_is_put_into_itself_is_weighed() {
    // Each name stands for twice what the one before it does: 2^40 values in a line of text.
    let doubled = |leaf: &str, last: &dyn Fn(&str) -> String| {
        let names: Vec<String> = (0..40).map(|i| format!("v{i}")).collect();
        let mut source = last("v39");
        for i in (1..40).rev() {
            source = format!("cel.bind({}, [{1}, {1}], {source})", names[i], names[i - 1]);
        }
        format!("cel.bind(v0, [{leaf}, {leaf}], {source})")
    };
    let schema = json!({"type": "object", "properties": {"s": {"type": "string"}}});
    let object = json!({"s": "x".repeat(1000)});
    for last in [
        "V == [V]",
        "[V].indexOf(V) == 0",
        "sets.contains([V], [V])",
        "V in [V, V]",
        "'%s'.format([V]) == ''",
        "[V].flatten(50).size() == 1",
    ] {
        let source = doubled("dyn(1)", &|name| last.replace('V', &format!("dyn({name})")));
        let error = ask(&source, &schema, &object).expect_err(last);
        assert!(error.contains("costs too much") || error.contains("too long") || error.contains("no such overload"), "{last}: {error}");
    }
}

#[test]
fn literals_that_cannot_be_read_are_refused() {
    for source in
        ["self.matches('[')", "'a'.find('(') == ''", "duration('soon') == duration('1s')", "timestamp('then') == timestamp('now')"]
    {
        assert!(ask(source, &json!({"type": "string"}), &json!("x")).is_err_and(|e| e.contains("invalid")), "{source}");
    }
}

/// Most that a rule costs for a value of a schema.
fn most(rule: &str, schema: &Json) -> u64 {
    let checks = Checks::read(schema);
    let found = Type::of(&checks, true).unwrap();
    Program::exact(rule, &[("self", found.clone()), ("oldSelf", found)], &[Type::BOOL]).unwrap().most_cost(&checks)
}

#[test]
fn costs_are_told_before_there_is_a_value() {
    let text = |length: Json| json!({"type": "string", "maxLength": length});
    let list =
        |items: Json, most: Json| json!({"type": "object", "properties": {"l": {"type": "array", "items": items, "maxItems": most}}});
    assert_eq!(most("self.l.all(x, x == 'abcde')", &list(text(json!(10)), json!(5))), 2 + 5 * (1 + 1 + 3) + 1);
    assert_eq!(
        most("self.crew <= self.max", &json!({"type": "object", "properties": {"crew": {"type": "integer"}, "max": {"type": "integer"}}})),
        4
    );
    // Two loops over a list without a bound: upstream's example of a rule that is refused.
    let unbounded = list(text(json!(null)), json!(null));
    assert!(most("self.l.all(x, self.l.all(y, x == y))", &unbounded) > 10_000_000);
    assert!(most("self.l.all(x, x.matches('a.*b'))", &list(text(json!(20)), json!(20))) < 10_000);
    assert!(most("self.l.exists(x, x == 'a')", &list(text(json!(5)), json!(10))) < 100);
}
