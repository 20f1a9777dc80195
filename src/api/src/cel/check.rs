//! Whether an expression makes sense of its variables: names, fields, functions and the types that go into them.

use std::rc::Rc;

use super::{
    ast::{Each, Expr},
    functions::{self, Signature},
    types::Type,
};

type Found<'c> = Result<Type<'c>, String>;

const BOOL: Type<'static> = Type::Plain("bool");
const INT: Type<'static> = Type::Plain("int");

/// The type of an expression.
pub(super) fn of<'c>(expr: &Expr, variables: &[(&str, Type<'c>)]) -> Found<'c> {
    let names = variables.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect();
    Scope { names }.find(expr)
}

/// Whether a value of one type may be one of the other.
pub(super) fn fits(found: &Type<'_>, wanted: &Type<'_>) -> bool {
    match (found, wanted) {
        (Type::Dyn, _) | (_, Type::Dyn) => true,
        (Type::Null, Type::Null | Type::Object(..) | Type::Optional(_)) | (Type::Object(..) | Type::Optional(_), Type::Null) => true,
        (Type::Plain(a), Type::Plain(b)) => a == b,
        (Type::List(a), Type::List(b)) | (Type::Map(a), Type::Map(b)) | (Type::Optional(a), Type::Optional(b)) => fits(a, b),
        (Type::Map(_) | Type::Object(..), Type::Map(_) | Type::Object(..)) => true,
        _ => false,
    }
}

struct Scope<'c> {
    names: Vec<(String, Type<'c>)>,
}

fn bool_of(what: &str, found: &Type<'_>) -> Result<(), String> {
    if fits(found, &BOOL) { Ok(()) } else { Err(format!("found no matching overload for {what:?} applied to {found}")) }
}

fn joined<'c>(types: impl IntoIterator<Item = Type<'c>>) -> Type<'c> {
    let mut types = types.into_iter();
    let Some(first) = types.next() else { return Type::Dyn };
    if types.all(|other| fits(&other, &first)) { first } else { Type::Dyn }
}

impl<'c> Scope<'c> {
    fn find(&mut self, expr: &Expr) -> Found<'c> {
        Ok(match expr {
            Expr::Null => Type::Null,
            Expr::Bool(_) => BOOL,
            Expr::Int(_) => INT,
            Expr::Uint(_) => Type::Plain("uint"),
            Expr::Double(_) => Type::Plain("double"),
            Expr::Text(_) => Type::Plain("string"),
            Expr::Bytes(_) => Type::Plain("bytes"),
            Expr::Name(name) => match self.names.iter().rev().find(|(n, _)| n == name) {
                Some((_, found)) => found.clone(),
                None if functions::type_of_name(name).is_some() => Type::Plain("type"),
                None => return Err(format!("undeclared reference to {name:?}")),
            },
            Expr::Select { of, field, optional } => {
                let of = self.find(of)?;
                let found = of.field(field).ok_or_else(|| format!("undefined field {field:?}"))?;
                if *optional || matches!(of, Type::Optional(_)) { optional_of(found) } else { found }
            }
            Expr::Has { of, field } => {
                self.find(of)?.field(field).ok_or_else(|| format!("undefined field {field:?}"))?;
                BOOL
            }
            Expr::Index { of, at, optional } => {
                let (of, at) = (self.find(of)?, self.find(at)?);
                let (inner, within) = match &of {
                    Type::Optional(inner) => ((**inner).clone(), true),
                    other => (other.clone(), false),
                };
                let found = match &inner {
                    Type::List(items) if fits(&at, &INT) || at.word() == "uint" => (**items).clone(),
                    Type::Map(values) => (**values).clone(),
                    Type::Object(..) | Type::Dyn => Type::Dyn,
                    _ => return Err(format!("found no matching overload for '_[_]' applied to ({of}, {at})")),
                };
                if *optional || within { optional_of(found) } else { found }
            }
            Expr::List(items) => {
                let mut found = Vec::new();
                for (optional, item) in items {
                    found.push(match (self.find(item)?, optional) {
                        (Type::Optional(inner), true) => (*inner).clone(),
                        (other, _) => other,
                    });
                }
                Type::List(Rc::new(joined(found)))
            }
            Expr::Map(items) => {
                let mut found = Vec::new();
                for (optional, key, value) in items {
                    self.find(key)?;
                    found.push(match (self.find(value)?, optional) {
                        (Type::Optional(inner), true) => (*inner).clone(),
                        (other, _) => other,
                    });
                }
                Type::Map(Rc::new(joined(found)))
            }
            Expr::And(a, b) | Expr::Or(a, b) => {
                let sign = if matches!(expr, Expr::And(..)) { "_&&_" } else { "_||_" };
                for side in [a, b] {
                    bool_of(sign, &self.find(side)?)?;
                }
                BOOL
            }
            Expr::If(condition, yes, no) => {
                bool_of("_?_:_", &self.find(condition)?)?;
                let (yes, no) = (self.find(yes)?, self.find(no)?);
                if !fits(&yes, &no) {
                    return Err(format!("found no matching overload for '_?_:_' applied to (bool, {yes}, {no})"));
                }
                joined([yes, no])
            }
            Expr::Each { kind, range, vars, filter, body } => self.each(*kind, range, vars, filter.as_deref(), body)?,
            Expr::Bind { name, value, body } => {
                let value = self.find(value)?;
                self.within(vec![(name.clone(), value)], body)?
            }
            Expr::OptMap { of, var, body, flat } => {
                let inner = match self.find(of)? {
                    Type::Optional(inner) => (*inner).clone(),
                    Type::Dyn => Type::Dyn,
                    other => return Err(format!("found no matching overload for 'optMap' applied to {other}")),
                };
                let out = self.within(vec![(var.clone(), inner)], body)?;
                if *flat { out } else { optional_of(out) }
            }
            Expr::Call { target, name, args } => {
                if let Some(Expr::Name(space)) = target.as_deref()
                    && functions::is_namespace(space)
                    && !self.names.iter().any(|(n, _)| n == space)
                {
                    let args = self.all(args)?;
                    return called(&format!("{space}.{name}"), None, &args);
                }
                let target = target.as_deref().map(|t| self.find(t)).transpose()?;
                let args = self.all(args)?;
                called(name, target, &args)?
            }
        })
    }

    fn all(&mut self, args: &[Expr]) -> Result<Vec<Type<'c>>, String> {
        args.iter().map(|arg| self.find(arg)).collect()
    }

    fn within(&mut self, names: Vec<(String, Type<'c>)>, body: &Expr) -> Found<'c> {
        let before = self.names.len();
        self.names.extend(names);
        let out = self.find(body);
        self.names.truncate(before);
        out
    }

    fn each(&mut self, kind: Each, range: &Expr, vars: &[String], filter: Option<&Expr>, body: &Expr) -> Found<'c> {
        let range = self.find(range)?;
        let (key, value) = match &range {
            Type::List(items) => (INT, (**items).clone()),
            Type::Map(values) => (Type::Plain("string"), (**values).clone()),
            Type::Object(..) => (Type::Plain("string"), Type::Dyn),
            Type::Dyn => (Type::Dyn, Type::Dyn),
            other => return Err(format!("expression of type {other} cannot be range of a comprehension (must be list, map, or dynamic)")),
        };
        let of_map = !matches!(range, Type::List(_) | Type::Dyn);
        let names: Vec<(String, Type<'c>)> = match vars {
            [one] => vec![(one.clone(), if of_map { key } else { value.clone() })],
            [first, second, ..] => vec![(first.clone(), key), (second.clone(), value.clone())],
            [] => Vec::new(),
        };
        if let Some(filter) = filter {
            bool_of("filter", &self.within(names.clone(), filter)?)?;
        }
        let kept = names.first().map_or(Type::Dyn, |(_, found)| found.clone());
        let out = self.within(names, body)?;
        match kind {
            Each::Map => return Ok(Type::List(Rc::new(out))),
            Each::TransformMap => return Ok(Type::Map(Rc::new(out))),
            Each::All | Each::Exists | Each::ExistsOne | Each::Filter => bool_of("a predicate", &out)?,
        }
        Ok(if kind == Each::Filter { Type::List(Rc::new(kept)) } else { BOOL })
    }
}

fn optional_of(found: Type<'_>) -> Type<'_> {
    match found {
        Type::Optional(_) => found,
        other => Type::Optional(Rc::new(other)),
    }
}

fn called<'c>(name: &str, target: Option<Type<'c>>, args: &[Type<'c>]) -> Found<'c> {
    let none = || {
        let words: Vec<String> = target.iter().chain(args).map(ToString::to_string).collect();
        Err(format!("found no matching overload for {name:?} applied to ({})", words.join(", ")))
    };
    if target.is_none()
        && let Some(found) = operator(name, args)
    {
        return found.map_or_else(none, Ok);
    }
    let mut known = false;
    for signature in functions::signatures().iter().filter(|s| s.name == name && s.receiver.is_some() == target.is_some()) {
        known = true;
        if takes(signature, target.as_ref(), args) {
            return Ok(result(signature, target.as_ref(), args));
        }
    }
    if known { none() } else { Err(format!("undeclared reference to {name:?}")) }
}

fn takes(signature: &Signature, target: Option<&Type<'_>>, args: &[Type<'_>]) -> bool {
    let one = |wanted: &str, found: &Type<'_>| {
        wanted == "dyn"
            || matches!(found, Type::Dyn)
            || found.word() == wanted
            || (wanted == "number" && ["int", "uint", "double"].contains(&found.word()))
    };
    signature.receiver.zip(target).is_none_or(|(wanted, found)| one(wanted, found))
        && signature.args.len() == args.len()
        && signature.args.iter().zip(args).all(|(wanted, found)| one(wanted, found))
}

fn result<'c>(signature: &Signature, target: Option<&Type<'c>>, args: &[Type<'c>]) -> Type<'c> {
    let of = target.or(args.first()).cloned().unwrap_or(Type::Dyn);
    let elem = match &of {
        Type::List(items) | Type::Optional(items) => (**items).clone(),
        _ => Type::Dyn,
    };
    match signature.result {
        "self" => of,
        "elem" => elem,
        "dyn" => Type::Dyn,
        "list(string)" => Type::List(Rc::new(Type::Plain("string"))),
        "list(int)" => Type::List(Rc::new(INT)),
        "list(dyn)" => Type::List(Rc::new(Type::Dyn)),
        "map(list(string))" => Type::Map(Rc::new(Type::List(Rc::new(Type::Plain("string"))))),
        "optional(elem)" => Type::Optional(Rc::new(elem)),
        "optional(self)" => optional_of(of),
        "optional(format)" => Type::Optional(Rc::new(Type::Plain("kubernetes.NamedFormat"))),
        "optional(list(string))" => Type::Optional(Rc::new(Type::List(Rc::new(Type::Plain("string"))))),
        name => Type::Plain(name),
    }
}

/// The type of an operator's result; `Some(None)` when it does not take these.
fn operator<'c>(sign: &str, args: &[Type<'c>]) -> Option<Option<Type<'c>>> {
    const TIME: &str = "google.protobuf.Timestamp";
    const DURATION: &str = "google.protobuf.Duration";
    let numeric = |w: &str| matches!(w, "int" | "uint" | "double");
    let out = match (sign, args) {
        ("!", [a]) => fits(a, &BOOL).then_some(BOOL),
        ("-", [a]) => (numeric(a.word()) || a.word() == "dyn").then(|| a.clone()),
        ("==" | "!=", [a, b]) => (fits(a, b) || (numeric(a.word()) && numeric(b.word()))).then_some(BOOL),
        ("<" | "<=" | ">" | ">=", [a, b]) => match (a.word(), b.word()) {
            ("dyn", _) | (_, "dyn") => Some(BOOL),
            (x, y) if numeric(x) && numeric(y) => Some(BOOL),
            (x, y) => (x == y && matches!(x, "bool" | "string" | "bytes" | TIME | DURATION)).then_some(BOOL),
        },
        ("in", [a, b]) => match b {
            Type::List(items) => fits(a, items).then_some(BOOL),
            Type::Map(_) | Type::Object(..) | Type::Dyn => Some(BOOL),
            _ => None,
        },
        ("+" | "-" | "*" | "/" | "%", [a, b]) => match (a.word(), b.word(), sign) {
            ("dyn", "dyn", _) => Some(Type::Dyn),
            ("dyn", ..) => Some(b.clone()),
            (_, "dyn", _) => Some(a.clone()),
            ("string", "string", "+") | ("bytes", "bytes", "+") => Some(a.clone()),
            ("list", "list", "+") => Some(joined([a.clone(), b.clone()])),
            (TIME, DURATION, "+" | "-") => Some(a.clone()),
            (DURATION, TIME, "+") => Some(b.clone()),
            (DURATION, DURATION, "+" | "-") => Some(a.clone()),
            (TIME, TIME, "-") => Some(Type::Plain(DURATION)),
            ("double", "double", "%") => None,
            (x, y, _) => (x == y && numeric(x)).then(|| a.clone()),
        },
        _ => return None,
    };
    Some(out)
}
