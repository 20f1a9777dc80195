//! The doors: each makes a case from its dice, sends it in, and asks what must hold of what comes out.

use std::sync::Arc;

use coracle_api::{
    apply::{self, Act, ApplyError, Managers, Reach, Versions},
    catalogue::{Resource, builtin},
    cel::{self, Program, Type},
    custom::{self, checks::Checks},
    decode, defaulting, openapi, patch, protobuf,
    quantity::Quantity,
    schema::Schema,
    selector::{FieldSelector, LabelSelector},
    structural, table, validation,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{dice::Dice, expressions, mutate, sample};

/// A door.
type Door = fn(&mut Dice);

/// Cases of a door in a plain `cargo test`.
const FEW: u64 = 60;
/// The same of those behind which most rules lie.
const MANY: u64 = 600;

/// By their names, with the number of their cases in a plain `cargo test`: a few seconds in all.
pub const DOORS: [(&str, Door, u64); 11] = [
    ("json", json_body, FEW),
    ("yaml", yaml_body, FEW),
    ("protobuf", protobuf_body, FEW),
    ("write", write, MANY),
    ("patch", patches, MANY),
    ("apply", applies, FEW),
    ("selector", selectors, FEW),
    ("amount", amounts, FEW),
    ("cel", cel_rules, FEW),
    ("definition", definitions, FEW),
    ("cel-of-kinds", policies, FEW),
];

/// Levels that a value has.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

fn json_body(dice: &mut Dice) {
    let mut object = sample::object(sample::resource(dice), dice);
    mutate::tree(&mut object, dice);
    let mut body = object.to_string().into_bytes();
    mutate::bytes(&mut body, dice);
    let Ok(read) = decode::json(&body) else { return };
    let again = read.value.to_string();
    assert_eq!(decode::json(again.as_bytes()).map(|d| d.value).ok().as_ref(), Some(&read.value), "what was written is read again");
    assert!(depth(&read.value) <= decode::MAX_DEPTH);
}

fn yaml_body(dice: &mut Dice) {
    let mut object = sample::object(sample::resource(dice), dice);
    mutate::tree(&mut object, dice);
    let mut body = String::new();
    if dice.one_in(3) {
        body = object.to_string()
    } else {
        block(&object, 0, &mut body, dice)
    }
    let mut body = body.into_bytes();
    mutate::bytes(&mut body, dice);
    let Ok(read) = decode::yaml(&body) else { return };
    let text = read.value.to_string();
    // What aliases make is bounded by the number of values; each is at most a text that stands in the body.
    let again = decode::json(text.as_bytes()).map(|d| d.value);
    assert!(again.is_err() || again.ok().as_ref() == Some(&read.value), "what YAML says can be said in JSON");
    assert!(depth(&read.value) <= 2 * decode::MAX_DEPTH);
}

/// YAML in blocks, now and then with an anchor or an alias.
fn block(value: &Value, indent: usize, out: &mut String, dice: &mut Dice) {
    let anchor = match dice.roll(30) {
        0 => "&a ",
        1 => {
            out.push_str(" *a\n");
            return;
        }
        _ => "",
    };
    let pad = "  ".repeat(indent.min(40));
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push_str(&format!(" {anchor}\n"));
            for (name, value) in map {
                out.push_str(&format!("{pad}{}:", Value::from(name.as_str())));
                block(value, indent + 1, out, dice);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            out.push_str(&format!(" {anchor}\n"));
            for value in list {
                out.push_str(&format!("{pad}-"));
                block(value, indent + 1, out, dice);
            }
        }
        Value::String(text) if dice.one_in(3) && !text.is_empty() => out.push_str(&format!(" {anchor}{text}\n")),
        other => out.push_str(&format!(" {anchor}{other}\n")),
    }
}

fn protobuf_body(dice: &mut Dice) {
    let resource = sample::resource(dice);
    let mut object = sample::object(resource, dice);
    mutate::tree(&mut object, dice);
    if structural::prune(&resource.schema, &mut object).is_err() {
        return;
    }
    let mut body = protobuf::encode(&resource.schema, &object);
    mutate::bytes(&mut body, dice);
    let _ = protobuf::kind(&body);
    let Ok(mut read) = protobuf::decode(&resource.schema, &body) else { return };
    if structural::prune(&resource.schema, &mut read).is_err() {
        return;
    }
    let written = protobuf::encode(&resource.schema, &read);
    let mut again = protobuf::decode(&resource.schema, &written).expect("what was written can be read");
    structural::prune(&resource.schema, &mut again).expect("what was canonical is");
    assert_eq!(again, read, "what was written is read again");
}

/// A canonical object of a kind, as it is stored.
fn stored(resource: &Resource, bent: bool, dice: &mut Dice) -> Option<Value> {
    let mut object = sample::object(resource, dice);
    if bent {
        mutate::tree(&mut object, dice);
    }
    structural::prune(&resource.schema, &mut object).ok()?;
    object.is_object().then_some(())?;
    defaulting::apply(resource, &mut object);
    Some(object)
}

fn write(dice: &mut Dice) {
    let resource = sample::resource(dice);
    let (Some(old), Some(new)) = (stored(resource, false, dice), stored(resource, true, dice)) else { return };
    let mut again = new.clone();
    structural::prune(&resource.schema, &mut again).expect("what was canonical is");
    let _ = validation::create(resource, &new);
    let _ = validation::warnings::create(resource, &new);
    for subresource in resource.subresources.iter().map(|s| s.name.as_str()).chain([""]) {
        let _ = validation::update(resource, &new, &old, subresource);
        let _ = validation::warnings::update(resource, &new, &old, subresource);
    }
    let _ = table::row(resource, &new, Timestamp::UNIX_EPOCH);
}

fn patches(dice: &mut Dice) {
    let resource = sample::resource(dice);
    let Some(object) = stored(resource, true, dice) else { return };
    let size = object.to_string().len();
    let mut patch = sample::object(resource, dice);
    mutate::tree(&mut patch, dice);
    if dice.one_in(3)
        && let Some(map) = patch.as_object_mut()
    {
        let directive = *dice.pick(&["$patch", "$retainKeys", "$setElementOrder/spec", "$deleteFromPrimitiveList/metadata"]);
        let value = if dice.one_in(2) { json!(*dice.pick(&["replace", "delete", "merge", "x"])) } else { sample::anything(dice) };
        map.insert(directive.into(), value);
    }
    for way in [
        |object: &mut Value, patch: &Value, _: &Schema| patch::merge(object, patch),
        |object: &mut Value, patch: &Value, schema: &Schema| patch::strategic(schema, object, patch),
    ] {
        let mut out = object.clone();
        let done = way(&mut out, &patch, &resource.schema);
        assert!(done.is_err() || out.to_string().len() <= 2 * (size + patch.to_string().len()) + 64, "no more than both");
    }
    let operations = mutate::operations(&object, dice);
    let mut out = object.clone();
    if patch::json(&mut out, &operations).is_ok() {
        assert!(depth(&out) <= 3 * decode::MAX_DEPTH, "no deeper than a body may be, and what it is put below");
        assert!(out.to_string().len() <= 2 * decode::MAX_BODY_BYTES + size);
    }
}

struct One<'a>(&'a Resource);

impl Versions for One<'_> {
    fn schema(&self, api_version: &str) -> Option<Arc<Schema>> {
        (api_version == self.0.api_version()).then(|| Arc::clone(&self.0.schema))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        (from == to).then(|| object.clone())
    }
}

fn applies(dice: &mut Dice) {
    let resource = sample::resource(dice);
    let version = resource.api_version();
    let mut managers = Managers::default();
    let mut live = structural::zero(&resource.schema);
    for turn in 0..4 {
        let mut config = sample::object(resource, dice);
        if dice.one_in(2) {
            mutate::tree(&mut config, dice);
        }
        let manager = *dice.pick(&["a", "b", "kubectl"]);
        let act = Act { manager, api_version: &version, subresource: "", now: "2026-01-01T00:00:00Z", reach: &Reach::Whole };
        if turn % 2 == 1 {
            if structural::prune(&resource.schema, &mut config).is_ok() {
                managers = apply::track(&resource.schema, &live, &config, managers, &act, &One(resource));
                live = config;
            }
            continue;
        }
        match apply::apply(&resource.schema, &live, &config, managers.clone(), &act, dice.one_in(2), &One(resource)) {
            Ok(applied) => {
                let mut object = applied.object;
                if structural::prune(&resource.schema, &mut object).is_ok() {
                    (live, managers) = (object, applied.managers);
                }
            }
            Err(error @ (ApplyError::Config(_) | ApplyError::Conflicts(_))) => assert!(!error.to_string().is_empty()),
        }
    }
    let written = managers.write();
    let read = Managers::read(&written).expect("what was written can be read");
    assert_eq!(read.write(), written, "what was written is read again");
    // And what a client makes of it.
    let mut bent = written;
    mutate::tree(&mut bent, dice);
    let _ = Managers::read(&bent).map(Managers::write);
}

fn selectors(dice: &mut Dice) {
    let term = |dice: &mut Dice| {
        let (a, b) = (*dice.pick(&["a", "x.y/z", "metadata.name", "é", ""]), *dice.pick(&["b", "", "1", "\\,", "\\="]));
        match dice.roll(9) {
            0 => format!("{a}={b}"),
            1 => format!("{a}!={b}"),
            2 => format!("{a} in ({b},c)"),
            3 => format!("{a} notin ({})", "b,".repeat(dice.up_to(2_000))),
            4 => format!("!{a}"),
            5 => format!("{a}>{b}"),
            6 => format!("{a}<99999999999999999999"),
            7 => a.to_owned(),
            _ => format!("{a}=={b}"),
        }
    };
    let terms: Vec<String> = (0..dice.up_to(20)).map(|_| term(dice)).collect();
    let mut body = terms.join(",").into_bytes();
    if dice.one_in(2) {
        mutate::bytes(&mut body, dice);
    }
    let text = String::from_utf8_lossy(&body);
    if let Ok(labels) = LabelSelector::parse(&text) {
        assert_eq!(LabelSelector::parse(&labels.to_string()).as_ref(), Ok(&labels), "it prints as it reads");
        let _ = labels.matches_value(&json!({"a": "b", "x.y/z": "1"}));
    }
    if let Ok(fields) = FieldSelector::parse(&text) {
        assert_eq!(FieldSelector::parse(&fields.to_string()).as_ref(), Ok(&fields), "it prints as it reads");
        let _ = fields.matches(|_| Some("b"));
    }
    let mut object = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]});
    mutate::tree(&mut object, dice);
    let _ = LabelSelector::from_value(&object);
}

fn amounts(dice: &mut Dice) {
    let signs = [
        "1",
        "0",
        ".",
        "-",
        "+",
        "e",
        "E",
        "Ki",
        "Mi",
        "Ei",
        "n",
        "u",
        "m",
        "k",
        "999999999999",
        "h",
        "m",
        "s",
        "ms",
        "µs",
        "ns",
        " ",
        "é",
    ];
    let text: String = (0..1 + dice.up_to(12)).map(|_| *dice.pick(&signs)).collect();
    if let Ok(amount) = text.parse::<Quantity>() {
        let spelt = amount.to_string();
        let again: Quantity = spelt.parse().unwrap_or_else(|e| panic!("{text} is {spelt}: {e}"));
        assert_eq!(again.to_string(), spelt, "{text} has one spelling");
        assert!(spelt.len() < 60, "{text} is {spelt}");
        let _ = (amount.units(), amount.millis(), amount.plus(again), amount.minus(again), amount.signum());
    }
    let duration = Schema::of(coracle_api::schema::Type::Duration);
    let mut value = Value::from(text.as_str());
    if structural::prune(&duration, &mut value).is_ok() {
        let spelt = value.clone();
        structural::prune(&duration, &mut value).unwrap_or_else(|e| panic!("{text} is {spelt}: {e}"));
        assert_eq!(value, spelt, "{text} has one spelling");
    }
}

fn cel_rules(dice: &mut Dice) {
    let checks = Checks::read(&expressions::schema());
    let own = Type::of(&checks, true).unwrap_or(Type::Dyn);
    let source = expressions::expression(dice);
    let Ok(program) = Program::compile(&source, &[("self", own.clone()), ("oldSelf", own)], &[Type::Dyn]) else { return };
    let _ = program.most_cost(&checks);
    let (new, old) = (expressions::subject(dice), expressions::subject(dice));
    let mut budget = cel::scope::CALL_LIMIT;
    let names = [("self", cel::Value::of(&new, Some(&checks))), ("oldSelf", cel::Value::of(&old, Some(&checks)))];
    if let Ok(value) = program.ask(&names, &mut budget) {
        let _ = value.to_json();
    }
}

fn policies(dice: &mut Dice) {
    let resource = sample::resource(dice);
    let own = Type::of_schema(&resource.schema);
    let mut fields = Vec::new();
    for property in resource.schema.properties().iter().take(40) {
        fields.push(format!("object.{}", property.name));
        fields.extend(property.schema().properties().iter().take(40).map(|inner| format!("object.{}.{}", property.name, inner.name)));
    }
    let source = expressions::expression(dice)
        .replace("oldSelf", "oldObject")
        .replace("self.l", dice.pick(&fields).as_str())
        .replace("self.m", dice.pick(&fields).as_str())
        .replace("self", "object");
    let Ok(program) = Program::compile(&source, &[("object", own.clone()), ("oldObject", own)], &[Type::Dyn]) else { return };
    let Some(object) = stored(resource, true, dice) else { return };
    let mut budget = cel::scope::CALL_LIMIT;
    let _ = program.ask(&[("object", cel::Value::of(&object, None)), ("oldObject", cel::Value::Null)], &mut budget);
}

/// A JSON schema that is nearly one of a definition.
fn json_schema(depth: usize, dice: &mut Dice) -> Value {
    let mut out = json!({"type": *dice.pick(&["object", "object", "object", "array", "string", "integer", "number", "boolean", "x"])});
    let inner = |dice: &mut Dice| if depth == 0 { json!({"type": "string"}) } else { json_schema(depth - 1, dice) };
    for _ in 0..dice.up_to(5) {
        let (name, value) = match dice.roll(22) {
            0..=3 => ("properties", json!({"a": inner(dice), "b": inner(dice), "metadata": inner(dice)})),
            4 => ("additionalProperties", inner(dice)),
            5 | 6 => ("items", inner(dice)),
            7 => ("required", json!(["a", "b"])),
            8 => ("pattern", json!(*dice.pick(&["^a+$", "(a{0,1000}){0,1000}", "[", "(?=x)", "\\p{L}*", "é"]))),
            9 => ("enum", json!([sample::anything(dice), sample::anything(dice)])),
            10 => ("default", sample::anything(dice)),
            11 => ("x-kubernetes-preserve-unknown-fields", true.into()),
            12 => ("x-kubernetes-int-or-string", true.into()),
            13 => ("x-kubernetes-embedded-resource", true.into()),
            14 => ("x-kubernetes-list-type", json!(*dice.pick(&["set", "map", "atomic", "x"]))),
            15 => ("x-kubernetes-list-map-keys", json!(["a"])),
            16 => ("nullable", true.into()),
            17 => ("format", json!(*dice.pick(&["date-time", "byte", "int32", "uuid", "duration", "x"]))),
            18 => (*dice.pick(&["minimum", "maxLength", "minItems", "maxProperties", "multipleOf"]), sample::number(dice)),
            19 => (*dice.pick(&["allOf", "anyOf", "oneOf"]), json!([inner(dice), inner(dice)])),
            20 => ("not", inner(dice)),
            _ => {
                let rule = expressions::expression(dice).replace("self.l", "self.a").replace("self.m", "self.b");
                ("x-kubernetes-validations", json!([{"rule": rule, "messageExpression": "string(self)"}]))
            }
        };
        out[name] = value;
    }
    out
}

fn definitions(dice: &mut Dice) {
    let kind = builtin().resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").expect("a kind");
    let mut root = json_schema(5, dice);
    root["type"] = "object".into();
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let mut definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.a.io"},
        "spec": {"group": "a.io", "scope": "Namespaced", "names": names, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": root}, "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".a"}},
            "selectableFields": [{"jsonPath": ".a.b"}], "additionalPrinterColumns": [{"name": "a", "type": "string", "jsonPath": ".a['b'][?(@.x)]"}]}]}});
    if dice.one_in(3) {
        mutate::tree(&mut definition, dice);
    }
    if structural::prune(&kind.schema, &mut definition).is_err() {
        return;
    }
    defaulting::apply(kind, &mut definition);
    let refused = !validation::create(kind, &definition).is_empty();
    let _ = validation::update(kind, &definition, &definition, "");
    if refused && !dice.one_in(8) {
        return;
    }
    // Also what was refused must not fell a server that finds it in its store.
    definition["status"] = json!({"conditions": [{"type": "Established", "status": "True"}], "acceptedNames": definition["spec"]["names"]});
    let (served, hidden) = custom::resources(&definition);
    for resource in served.iter().chain(&hidden) {
        let mut object = of_schema(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], 6, dice);
        mutate::tree(&mut object, dice);
        let mut new = object.clone();
        if !new.is_object() || structural::prune(&resource.schema, &mut new).is_err() {
            continue;
        }
        defaulting::apply(resource, &mut new);
        let _ = validation::create(resource, &new);
        let _ = validation::update(resource, &new, &object, "");
        let _ = table::row(resource, &new, Timestamp::UNIX_EPOCH);
        custom::settle(resource, &mut new);
    }
    if dice.one_in(20) {
        let catalogue = custom::catalogue(&served, &hidden, 1);
        let _ = openapi::v3(&catalogue, "a.io", "v1");
    }
}

/// A value that a JSON schema has, or nearly.
fn of_schema(schema: &Value, depth: usize, dice: &mut Dice) -> Value {
    let any = |dice: &mut Dice| sample::anything(dice);
    if depth == 0 || dice.one_in(20) {
        return any(dice);
    }
    match schema["type"].as_str().unwrap_or_default() {
        "object" => {
            let named = schema["properties"].as_object().into_iter().flatten();
            let mut out: serde_json::Map<_, _> = named.map(|(name, inner)| (name.clone(), of_schema(inner, depth - 1, dice))).collect();
            if schema["additionalProperties"].is_object() {
                out.insert("more".into(), of_schema(&schema["additionalProperties"], depth - 1, dice));
            }
            out.into()
        }
        "array" => (0..dice.roll(4)).map(|_| of_schema(&schema["items"], depth - 1, dice)).collect(),
        "integer" | "number" => sample::number(dice),
        "boolean" => Value::Bool(dice.one_in(2)),
        "string" => sample::text(dice),
        _ => any(dice),
    }
}
