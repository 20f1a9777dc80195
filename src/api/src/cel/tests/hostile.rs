//! Expressions that were made to last, to lie deep or to fill the memory: found by fuzzing, kept as cases.

use serde_json::json;

use super::*;

/// Asks on a stack as small as a worker's, as there is the danger.
fn on_a_worker<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(run).expect("a thread").join().expect("no panic")
}

fn compiles(source: String) -> Result<(), CompileError> {
    on_a_worker(move || Program::compile(&source, &[("self", Type::Dyn)], &[Type::Dyn]).map(drop))
}

#[test]
fn depth_has_a_bound_however_it_is_made() {
    for source in [
        format!("1{}", " + 1".repeat(20_000)),
        format!("1{}", " * 1".repeat(20_000)),
        format!("1{}", " == 1".repeat(15_000)),
        format!("self{}", ".a".repeat(20_000)),
        format!("self{}", "[0]".repeat(20_000)),
        format!("self{}", ".size()".repeat(10_000)),
        format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{}1", "-".repeat(20_000)),
        // No part is deep, but the whole is.
        format!("{}self{}", "(".repeat(90), format!("{})", ".a".repeat(90)).repeat(90)),
    ] {
        let found = compiles(source.clone());
        assert!(matches!(&found, Err(CompileError::Syntax { why, .. }) if why.contains("deep")), "{found:?} for {:.40}", source);
    }
    for source in [format!("1{}", " + 1".repeat(100)), format!("true{}", " && true".repeat(10_000)), format!("self{}", ".a".repeat(100))] {
        assert_eq!(compiles(source), Ok(()));
    }
    let tall = format!("self == 1 || 0{} == 99", " + 1".repeat(99));
    let found = on_a_worker(move || {
        let program = Program::compile(&tall, &[("self", Type::Dyn)], &[Type::BOOL])?;
        Ok::<_, CompileError>(program.ask(&[("self", Value::Int(2))], &mut { BUDGET }).map(|value| value.is_true()))
    });
    assert_eq!(found, Ok(Ok(true)));
}

/// What an expression comes to over large values, soon.
fn soon(source: &str) -> Result<String, String> {
    let many: Vec<i64> = (0..5_000).collect();
    let names: Vec<String> = many.iter().map(|i| format!("name-{i}")).collect();
    let object = json!({"big": "ab ".repeat(1 << 20), "l": many, "set": names, "set2": names.iter().rev().collect::<Vec<_>>(),
        "m": names.iter().map(|name| (name.clone(), json!("v"))).collect::<serde_json::Map<_, _>>()});
    let strings = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
    let checks = Checks::read(
        &json!({"type": "object", "properties": {"big": {"type": "string"}, "l": {"type": "array", "items": {"type": "integer"}},
        "set": strings.clone(), "set2": strings, "m": {"type": "object", "additionalProperties": {"type": "string"}}}}),
    );
    let program =
        Program::compile(source, &[("self", Type::of(&checks, true).expect("an object"))], &[Type::Dyn]).map_err(|e| e.to_string())?;
    let mut found = Err(EvalError::Spent);
    let ask = || {
        let value = program.ask(&[("self", Value::of(&object, Some(&checks)))], &mut { scope::CALL_LIMIT });
        found = value.map(|value| format!("{value:.40?}"));
    };
    let took = crate::effort::seconds(ask);
    assert!(took < 10, "{source}: {took} s");
    found.map_err(|e| e.to_string())
}

#[test]
fn time_and_memory_are_paid_for() {
    const SPENT: &str = "the expression costs too much";
    for (source, why) in [
        ("lists.range(10000).map(i, '').join(self.big)", "too long"),
        ("'%x%x%x'.format([self.big, self.big, self.big])", "too long"),
        ("self.big.split('').size() > 0", "parts"),
        ("self.l.all(x, self.l == self.l)", SPENT),
        ("self.l.all(x, self.m == self.m)", SPENT),
        ("self.l.all(x, self.big.size() > 0)", SPENT),
        ("self.l.all(x, cel.bind(s, self.big + 'x', s != ''))", SPENT),
        ("self.l.exists(x, 'a'.matches('(a{0,50}){0,50}' + string(x)))", SPENT),
        ("self.set.transformMapEntry(i, x, {x: i}).size() > 0", SPENT),
        ("cel.bind(m, self.m.transformMap(k, v, v), m.all(k, m[k] == 'v'))", SPENT),
    ] {
        let found = soon(source);
        assert!(found.as_ref().is_err_and(|e| e.contains(why)), "{source}: {found:?}");
    }
    for source in ["self.set == self.set2", "self.m == self.m", "'a1b'.matches('^[a-z0-9]{1,63}$') && self.l.all(x, x >= 0)"] {
        assert_eq!(soon(source).as_deref(), Ok("Bool(true)"), "{source}");
    }
}
