//! Whether an expression makes sense of its variables: names, fields, functions and the types that go into them.

use std::rc::Rc;

use super::{
    ast::{Each, Expr},
    functions, signatures,
    types::{DURATION, TIME, Type},
};
use crate::custom::checks::pattern;
use crate::structural::parse_duration;

type Found<'c> = Result<Type<'c>, String>;

/// The type of an expression.
pub(super) fn of<'c>(expr: &Expr, variables: &[(&str, Type<'c>)], makes: bool) -> Found<'c> {
    let names = variables.iter().map(|(name, found)| ((*name).to_owned(), found.clone())).collect();
    Scope { names, makes }.find(expr)
}

/// Whether a value of one type may be one of the other.
pub(super) fn fits(found: &Type<'_>, wanted: &Type<'_>) -> bool {
    match (found, wanted) {
        (Type::Map(..) | Type::Object(..), Type::Map(..) | Type::Object(..)) => true,
        _ => found.join(wanted).is_some(),
    }
}

struct Scope<'c> {
    names: Vec<(String, Type<'c>)>,
    /// Objects may be made by name.
    makes: bool,
}

fn mismatch(what: &str, found: &[&Type<'_>]) -> String {
    let words: Vec<String> = found.iter().map(ToString::to_string).collect();
    format!("found no matching overload for '{what}' applied to '({})'", words.join(", "))
}

fn bool_of(what: &str, found: &Type<'_>) -> Result<(), String> {
    if found.join(&Type::BOOL).is_some() { Ok(()) } else { Err(mismatch(what, &[found])) }
}

/// What all members of a literal are.
fn joined<'c>(types: impl IntoIterator<Item = Type<'c>>) -> Found<'c> {
    types
        .into_iter()
        .try_fold(Type::Free, |before, found| before.join(&found).ok_or_else(|| format!("expected type '{before}' but found '{found}'")))
}

/// What stays of a member that is left out when it has no value.
fn inner_of<'c>(found: Type<'c>, optional: bool) -> Found<'c> {
    match (found, optional) {
        (Type::Optional(inner), true) => Ok((*inner).clone()),
        (found, true) if !found.is_open() => Err(format!("expected type 'optional_type' but found '{found}'")),
        (found, _) => Ok(found),
    }
}

impl<'c> Scope<'c> {
    fn find(&mut self, expr: &Expr) -> Found<'c> {
        Ok(match expr {
            Expr::Null => Type::Null,
            Expr::Bool(_) => Type::BOOL,
            Expr::Int(_) => Type::INT,
            Expr::Uint(_) => Type::Plain("uint"),
            Expr::Double(_) => Type::Plain("double"),
            Expr::Text(_) => Type::STRING,
            Expr::Bytes(_) => Type::Plain("bytes"),
            Expr::Name(name) => match self.names.iter().rev().find(|(n, _)| n == name) {
                Some((_, found)) => found.clone(),
                None if functions::type_of_name(name).is_some() => Type::Plain("type"),
                None => return Err(format!("undeclared reference to '{name}'")),
            },
            Expr::Select { of, field, optional } => {
                let of = self.find(of)?;
                let found = of.field(field).ok_or_else(|| format!("undefined field '{field}'"))?;
                if *optional || matches!(of, Type::Optional(_)) { optional_of(found) } else { found }
            }
            Expr::Has { of, field } => {
                self.find(of)?.field(field).ok_or_else(|| format!("undefined field '{field}'"))?;
                Type::BOOL
            }
            Expr::Index { of, at, optional } => {
                let (of, at) = (self.find(of)?, self.find(at)?);
                let (inner, within) = match &of {
                    Type::Optional(inner) => ((**inner).clone(), true),
                    other => (other.clone(), false),
                };
                let found = match &inner {
                    Type::List(items) if at.join(&Type::INT).is_some() => (**items).clone(),
                    Type::Map(keys, values) if at.join(keys).is_some() => (**values).clone(),
                    Type::Dyn | Type::Free => Type::Dyn,
                    _ => return Err(mismatch("_[_]", &[&of, &at])),
                };
                if *optional || within { optional_of(found) } else { found }
            }
            Expr::List(items) => {
                let found = items.iter().map(|(optional, item)| inner_of(self.find(item)?, *optional));
                Type::list(joined(found.collect::<Result<Vec<_>, _>>()?)?)
            }
            Expr::Map(items) => {
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                for (optional, key, value) in items {
                    keys.push(self.find(key)?);
                    values.push(inner_of(self.find(value)?, *optional)?);
                }
                Type::Map(Rc::new(joined(keys)?), Rc::new(joined(values)?))
            }
            Expr::Make { name, fields } => self.make(name, fields)?,
            Expr::And(a, b) | Expr::Or(a, b) => {
                let sign = if matches!(expr, Expr::And(..)) { "_&&_" } else { "_||_" };
                for side in [a, b] {
                    bool_of(sign, &self.find(side)?)?;
                }
                Type::BOOL
            }
            Expr::If(condition, yes, no) => {
                bool_of("_?_:_", &self.find(condition)?)?;
                let (yes, no) = (self.find(yes)?, self.find(no)?);
                yes.join(&no).ok_or_else(|| mismatch("_?_:_", &[&Type::BOOL, &yes, &no]))?
            }
            Expr::Each { kind, range, vars, filter, body } => self.each(*kind, range, vars, filter.as_deref(), body)?,
            Expr::Bind { name, value, body } => {
                let value = self.find(value)?;
                self.within(vec![(name.clone(), value)], body)?
            }
            Expr::SortBy { of, var, key } => {
                let list = self.find(of)?;
                let item = match &list {
                    Type::List(items) => (**items).clone(),
                    Type::Dyn | Type::Free => Type::Dyn,
                    other => return Err(mismatch("sortBy", &[other])),
                };
                self.within(vec![(var.clone(), item)], key)?;
                list
            }
            Expr::OptMap { of, var, body, flat } => {
                let inner = match self.find(of)? {
                    Type::Optional(inner) => (*inner).clone(),
                    Type::Dyn | Type::Free => Type::Dyn,
                    other => return Err(mismatch("optMap", &[&other])),
                };
                let out = self.within(vec![(var.clone(), inner)], body)?;
                if *flat { out } else { Type::Optional(Rc::new(out)) }
            }
            Expr::Call { target, name, args } => {
                if let Some(Expr::Name(space)) = target.as_deref()
                    && functions::is_namespace(space)
                    && !self.names.iter().any(|(n, _)| n == space)
                {
                    let args = self.all(args)?;
                    return called(&format!("{space}.{name}"), None, &args);
                }
                literals(name, args)?;
                let target = target.as_deref().map(|t| self.find(t)).transpose()?;
                let args = self.all(args)?;
                called(name, target.as_ref(), &args)?
            }
        })
    }

    /// `Object{...}` and `Object.spec{...}` take any field, `JSONPatch{...}` its own.
    fn make(&mut self, name: &str, fields: &[(bool, String, Expr)]) -> Found<'c> {
        let is_object = name == "Object" || name.starts_with("Object.");
        if !self.makes || !(is_object || name == "JSONPatch") {
            return Err(format!("undeclared reference to '{name}'"));
        }
        for (optional, field, value) in fields {
            let found = inner_of(self.find(value)?, *optional)?;
            match field.as_str() {
                _ if is_object => {}
                "op" | "path" | "from" if found.join(&Type::STRING).is_some() => {}
                "op" | "path" | "from" => {
                    return Err(format!("expected type of field '{field}' is 'string' but provided type is '{found}'"));
                }
                "value" => {}
                _ => return Err(format!("undefined field '{field}'")),
            }
        }
        Ok(Type::Made(name.into()))
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
            Type::List(items) => (Type::INT, (**items).clone()),
            Type::Map(keys, values) => ((**keys).clone(), (**values).clone()),
            Type::Dyn | Type::Free => (Type::Dyn, Type::Dyn),
            other => {
                return Err(format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"));
            }
        };
        let of_map = matches!(range, Type::Map(..));
        let names: Vec<(String, Type<'c>)> = match vars {
            [one] => vec![(one.clone(), if of_map { key.clone() } else { value })],
            [first, second, ..] => vec![(first.clone(), key.clone()), (second.clone(), value)],
            [] => Vec::new(),
        };
        if let Some(filter) = filter {
            bool_of("filter", &self.within(names.clone(), filter)?)?;
        }
        let kept = names.first().map_or(Type::Dyn, |(_, found)| found.clone());
        let out = self.within(names, body)?;
        Ok(match kind {
            Each::Map => Type::list(out),
            Each::TransformMap => Type::Map(Rc::new(key), Rc::new(out)),
            Each::TransformMapEntry if out.is_open() => Type::Map(Rc::new(Type::Dyn), Rc::new(Type::Dyn)),
            Each::TransformMapEntry if matches!(out, Type::Map(..)) => out,
            Each::TransformMapEntry => return Err(mismatch("transformMapEntry", &[&out])),
            Each::All | Each::Exists | Each::ExistsOne | Each::Filter => {
                bool_of("a predicate", &out)?;
                if kind == Each::Filter { Type::list(kept) } else { Type::BOOL }
            }
        })
    }
}

/// Text that is written down and can never be read is refused before anybody tries.
fn literals(name: &str, args: &[Expr]) -> Result<(), String> {
    let Some(Expr::Text(text)) = args.last() else { return Ok(()) };
    match name {
        "matches" | "find" | "findAll" => pattern(text).map(drop).map_err(|error| format!("invalid matches argument: {error}")),
        "duration" if parse_duration(text).is_none() => Err(format!("invalid duration argument {text:?}")),
        "timestamp" if text.parse::<jiff::Timestamp>().is_err() => Err(format!("invalid timestamp argument {text:?}")),
        _ => Ok(()),
    }
}

fn optional_of(found: Type<'_>) -> Type<'_> {
    match found {
        Type::Optional(_) => found,
        other => Type::Optional(Rc::new(other)),
    }
}

fn called<'c>(name: &str, target: Option<&Type<'c>>, args: &[Type<'c>]) -> Found<'c> {
    let none = || {
        let plain: Vec<&Type<'_>> = args.iter().collect();
        Err(match (target, args.len()) {
            (Some(target), _) => mismatch(name, &plain).replacen("'(", &format!("'{target}.("), 1),
            (None, _) if name == "in" => mismatch("@in", &plain),
            (None, 2) if is_sign(name) => mismatch(&format!("_{name}_"), &plain),
            (None, 1) if is_sign(name) => mismatch(&format!("{name}_"), &plain),
            (None, _) => mismatch(name, &plain),
        })
    };
    if target.is_none()
        && let Some(found) = operator(name, args)
    {
        return found.map_or_else(none, Ok);
    }
    match signatures::call(name, target, args) {
        Ok(found) => Ok(found),
        Err(true) => none(),
        Err(false) => Err(format!("undeclared reference to '{name}'")),
    }
}

fn is_sign(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_punctuation() && b != b'_')
}

/// The type of an operator's result; `Some(None)` when it does not take these.
fn operator<'c>(sign: &str, args: &[Type<'c>]) -> Option<Option<Type<'c>>> {
    let numeric = |w: &str| matches!(w, "int" | "uint" | "double");
    let out = match (sign, args) {
        ("!", [a]) => a.join(&Type::BOOL).map(|_| Type::BOOL),
        ("-", [a]) => (matches!(a.word(), "int" | "double") || a.is_open()).then(|| a.clone()),
        ("==" | "!=", [a, b]) => a.join(b).map(|_| Type::BOOL),
        ("<" | "<=" | ">" | ">=", [a, b]) => match (a.word(), b.word()) {
            ("dyn", _) | (_, "dyn") => Some(Type::BOOL),
            (x, y) if numeric(x) && numeric(y) => Some(Type::BOOL),
            (x, y) => (x == y && matches!(x, "bool" | "string" | "bytes" | TIME | DURATION)).then_some(Type::BOOL),
        },
        ("in", [a, b]) => match b {
            Type::List(items) => a.join(items).map(|_| Type::BOOL),
            Type::Map(keys, _) => a.join(keys).map(|_| Type::BOOL),
            Type::Dyn | Type::Free => Some(Type::BOOL),
            _ => None,
        },
        ("+" | "-" | "*" | "/" | "%", [a, b]) => match (a.word(), b.word(), sign) {
            ("dyn", TIME | DURATION | "dyn", _) | (TIME | DURATION, "dyn", _) => Some(Type::Dyn),
            ("dyn", ..) => Some(b.clone()),
            (_, "dyn", _) => Some(a.clone()),
            ("string", "string", "+") | ("bytes", "bytes", "+") => Some(a.clone()),
            ("list", "list", "+") => a.join(b),
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
