//! What an expression says of values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::rc::Rc;

use super::{
    EvalError, Value,
    ast::{Each, Expr},
    cost, functions,
};

type Answer<'v> = Result<Value<'v>, EvalError>;

/// Runs an expression; `lazy` has what `variables` stands for.
pub(super) fn run<'v>(expr: &'v Expr, variables: &[(&'v str, Value<'v>)], lazy: Option<&dyn Fields<'v>>, budget: &mut u64) -> Answer<'v> {
    let names = variables.to_vec();
    Machine { names, lazy, budget }.eval(expr)
}

/// Fields that are made when somebody asks for them.
pub(super) trait Fields<'v> {
    /// `None` when there is no such field.
    fn get(&self, name: &str) -> Option<Answer<'v>>;
}

/// The variable with such fields.
const VARIABLES: &str = "variables";

struct Machine<'v, 'b> {
    /// The last one of a name counts.
    names: Vec<(&'v str, Value<'v>)>,
    lazy: Option<&'b dyn Fields<'v>>,
    budget: &'b mut u64,
}

pub(super) fn failed<T>(why: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Failed(why.into()))
}

fn truth(value: &Value<'_>) -> Result<bool, EvalError> {
    match value {
        Value::Bool(b) => Ok(*b),
        other => failed(format!("no such overload: {} is no bool", other.type_name())),
    }
}

impl<'v> Machine<'v, '_> {
    fn spend(&mut self, cost: u64) -> Result<(), EvalError> {
        match self.budget.checked_sub(cost) {
            Some(left) => {
                *self.budget = left;
                Ok(())
            }
            None => Err(EvalError::Spent),
        }
    }

    fn eval(&mut self, expr: &'v Expr) -> Answer<'v> {
        // What is written down costs nothing; looking at it does.
        if !matches!(expr, Expr::Null | Expr::Bool(_) | Expr::Int(_) | Expr::Uint(_) | Expr::Double(_) | Expr::Text(_) | Expr::Has { .. }) {
            self.spend(1)?;
        }
        Ok(match expr {
            Expr::Null => Value::Null,
            Expr::Bool(b) => Value::Bool(*b),
            Expr::Int(n) => Value::Int(*n),
            Expr::Uint(n) => Value::Uint(*n),
            Expr::Double(n) => Value::Double(*n),
            Expr::Text(text) => Value::Text(Cow::Borrowed(text)),
            Expr::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
            Expr::Name(name) => match self.names.iter().rev().find(|(n, _)| n == name) {
                Some((_, value)) => {
                    let value = value.clone();
                    self.spend(cost::reading(std::slice::from_ref(&value)))?;
                    value
                }
                None => match functions::type_of_name(name) {
                    Some(found) => Value::Type(found),
                    None => return failed(format!("no such attribute: {name}")),
                },
            },
            Expr::Select { of, field, optional } => {
                if let Some(lazy) = self.lazy
                    && self.is_lazy(of)
                {
                    let out = lazy.get(field).unwrap_or_else(|| failed(format!("no such key: {field}")))?;
                    return Ok(if *optional { Value::Optional(Some(Rc::new(out))) } else { out });
                }
                let of = self.eval(of)?;
                self.select(of, field, *optional)?
            }
            Expr::Has { of, field } if self.lazy.is_some() && self.is_lazy(of) => {
                Value::Bool(self.lazy.and_then(|lazy| lazy.get(field)).transpose()?.is_some())
            }
            Expr::Has { of, field } => match self.eval(of)? {
                Value::Optional(inner) => Value::Bool(inner.is_some_and(|of| of.field(field).is_some())),
                of => Value::Bool(of.field(field).is_some()),
            },
            Expr::Index { of, at, optional } => {
                let (of, at) = (self.eval(of)?, self.eval(at)?);
                if let Value::Map(pairs) = &of {
                    self.spend(pairs.len() as u64 / 10)?;
                }
                self.index(of, &at, *optional)?
            }
            Expr::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (optional, item) in items {
                    match self.eval(item)? {
                        Value::Optional(inner) if *optional => out.extend(inner.map(|v| (*v).clone())),
                        value => out.push(value),
                    }
                }
                self.spend(cost::LIST)?;
                Value::List(out.into())
            }
            Expr::Make { name, fields } => {
                self.spend(cost::OBJECT)?;
                let mut out: Vec<(&'v str, Value<'v>)> = Vec::with_capacity(fields.len());
                for (optional, field, value) in fields {
                    if out.iter().any(|(name, _)| name == field) {
                        return failed(format!("the field {field} is given twice"));
                    }
                    match self.eval(value)? {
                        Value::Optional(inner) if *optional => out.extend(inner.map(|v| (field.as_str(), (*v).clone()))),
                        value => out.push((field, value)),
                    }
                }
                Value::Made(name, out.into())
            }
            Expr::Map(items) => {
                // Each key is compared with those before it.
                self.spend(cost::MAP + (items.len() * items.len() / 1000) as u64)?;
                let mut out: Vec<(Value<'v>, Value<'v>)> = Vec::with_capacity(items.len());
                for (optional, key, value) in items {
                    let key = self.eval(key)?;
                    if out.iter().any(|(k, _)| k.same(&key)) {
                        return failed("a key of a map is there twice");
                    }
                    match self.eval(value)? {
                        Value::Optional(inner) if *optional => out.extend(inner.map(|v| (key, (*v).clone()))),
                        value => out.push((key, value)),
                    }
                }
                Value::Map(out.into())
            }
            Expr::And(a, b) => self.both(a, b, false)?,
            Expr::Or(a, b) => self.both(a, b, true)?,
            Expr::If(condition, yes, no) => {
                let holds = truth(&self.eval(condition)?)?;
                self.eval(if holds { yes } else { no })?
            }
            Expr::Each { kind, range, vars, filter, body } => {
                let range = self.eval(range)?;
                self.each(*kind, &range, vars, filter.as_deref(), body)?
            }
            Expr::Bind { name, value, body } => {
                let value = self.eval(value)?;
                self.within(&[(name, value)], body)?
            }
            Expr::SortBy { of, var, key } => {
                let of = self.eval(of)?;
                let Some(list) = of.elements() else { return failed(format!("no such overload: {}.sortBy()", of.type_name())) };
                let mut keyed = Vec::with_capacity(list.len());
                for value in list {
                    keyed.push((self.within(&[(var, value.clone())], key)?, value));
                }
                self.spend(keyed.len() as u64)?;
                keyed.sort_by(|(a, _), (b, _)| a.order(b).unwrap_or(Ordering::Equal));
                Value::List(keyed.into_iter().map(|(_, value)| value).collect())
            }
            Expr::OptMap { of, var, body, flat } => match self.eval(of)? {
                Value::Optional(None) => Value::Optional(None),
                Value::Optional(Some(inner)) => {
                    let out = self.within(&[(var, (*inner).clone())], body)?;
                    if *flat { out } else { Value::Optional(Some(Rc::new(out))) }
                }
                other => return failed(format!("no such overload: {} is no optional", other.type_name())),
            },
            Expr::Call { target, name, args } => {
                // `math.greatest(...)`: a function whose name has a dot.
                if let Some(Expr::Name(space)) = target.as_deref()
                    && functions::is_namespace(space)
                    && !self.names.iter().any(|(n, _)| n == space)
                {
                    let args = self.all(args)?;
                    return self.call(&format!("{space}.{name}"), None, args);
                }
                let target = target.as_deref().map(|t| self.eval(t)).transpose()?;
                if let (Some(Value::Optional(inner)), "or" | "orValue", [other]) = (&target, name.as_str(), args.as_slice()) {
                    return match inner {
                        Some(value) if name == "orValue" => Ok((**value).clone()),
                        Some(value) => Ok(Value::Optional(Some(value.clone()))),
                        None => self.eval(other),
                    };
                }
                let args = self.all(args)?;
                self.call(name, target, args)?
            }
        })
    }

    fn all(&mut self, args: &'v [Expr]) -> Result<Vec<Value<'v>>, EvalError> {
        args.iter().map(|arg| self.eval(arg)).collect()
    }

    fn call(&mut self, name: &str, target: Option<Value<'v>>, args: Vec<Value<'v>>) -> Answer<'v> {
        let all: Vec<Value<'v>> = target.iter().chain(&args).cloned().collect();
        self.spend(cost::of_call(name, &all, *self.budget))?;
        if let ("matches" | "find" | "findAll", [_, Value::Text(pattern), ..]) = (name, &all[..]) {
            self.spend(cost::compiling(pattern))?;
        }
        let out = functions::call(name, target.is_some(), &all)?;
        let made = out.len().unwrap_or_default() as u64;
        self.spend(if matches!(out, Value::List(_)) { made } else { made / 10 })?;
        Ok(out)
    }

    /// Whether this is the variable whose fields are made when they are asked for.
    fn is_lazy(&self, of: &Expr) -> bool {
        matches!(of, Expr::Name(name) if name == VARIABLES) && !self.names.iter().any(|(name, _)| *name == VARIABLES)
    }

    fn select(&mut self, of: Value<'v>, field: &str, optional: bool) -> Answer<'v> {
        match of {
            Value::Optional(inner) => Ok(Value::Optional(inner.and_then(|of| of.field(field)).map(Rc::new))),
            of if optional => Ok(Value::Optional(of.field(field).map(Rc::new))),
            of => match of.field(field) {
                Some(value) => Ok(value),
                None => failed(format!("no such key: {field}")),
            },
        }
    }

    fn index(&mut self, of: Value<'v>, at: &Value<'v>, optional: bool) -> Answer<'v> {
        let find = |of: &Value<'v>| -> Option<Value<'v>> {
            match at {
                Value::Text(name) if matches!(of, Value::Object(..)) => match of {
                    Value::Object(map, _) if !map.contains_key(&**name) => None,
                    _ => of.field(name),
                },
                _ => match of.members() {
                    Some(members) => members.into_iter().find(|(key, _)| key.same(at)).map(|(_, value)| value),
                    None => {
                        let index = match at {
                            Value::Int(n) => usize::try_from(*n).ok()?,
                            Value::Uint(n) => usize::try_from(*n).ok()?,
                            _ => return None,
                        };
                        match of {
                            Value::Array(list, checks) => list.get(index).map(|v| Value::of(v, checks.and_then(|c| c.items.as_deref()))),
                            Value::List(list) => list.get(index).cloned(),
                            _ => None,
                        }
                    }
                },
            }
        };
        match of {
            Value::Optional(inner) => Ok(Value::Optional(inner.and_then(|of| find(&of)).map(Rc::new))),
            of if optional => Ok(Value::Optional(find(&of).map(Rc::new))),
            of => match find(&of) {
                Some(value) => Ok(value),
                None => failed("no such key or index"),
            },
        }
    }

    /// `&&` (decided by false) and `||` (decided by true): the side that decides hides what goes wrong on the other.
    fn both(&mut self, a: &'v Expr, b: &'v Expr, decides: bool) -> Answer<'v> {
        let left = self.eval(a).and_then(|v| truth(&v));
        if matches!(left, Err(EvalError::Spent)) || left == Ok(decides) {
            return left.map(Value::Bool);
        }
        let right = self.eval(b).and_then(|v| truth(&v));
        match (left, right) {
            (_, Ok(right)) if right == decides => Ok(Value::Bool(decides)),
            (_, Err(EvalError::Spent)) => Err(EvalError::Spent),
            (Ok(_), Ok(_)) => Ok(Value::Bool(!decides)),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    fn within(&mut self, names: &[(&'v str, Value<'v>)], body: &'v Expr) -> Answer<'v> {
        let before = self.names.len();
        self.names.extend_from_slice(names);
        let out = self.eval(body);
        self.names.truncate(before);
        out
    }

    fn each(&mut self, kind: Each, range: &Value<'v>, vars: &'v [String], filter: Option<&'v Expr>, body: &'v Expr) -> Answer<'v> {
        self.spend(range.len().unwrap_or_default() as u64)?;
        let pairs: Vec<(Value<'v>, Value<'v>)> = match (range.elements(), range.members()) {
            (Some(list), _) => list.into_iter().enumerate().map(|(i, v)| (Value::Int(i64::try_from(i).unwrap_or(i64::MAX)), v)).collect(),
            (None, Some(members)) => members,
            (None, None) => return failed(format!("no such overload: {} is no list or map", range.type_name())),
        };
        let of_map = range.elements().is_none();
        let (mut count, mut made, mut kept, mut error) = (0, Vec::new(), Vec::new(), None);
        for (key, value) in pairs {
            let names: Vec<(&'v str, Value<'v>)> = match vars {
                [one] => vec![(one.as_str(), if of_map { key.clone() } else { value.clone() })],
                [first, second, ..] => vec![(first.as_str(), key.clone()), (second.as_str(), value.clone())],
                [] => Vec::new(),
            };
            if let Some(filter) = filter
                && !truth(&self.within(&names, filter)?)?
            {
                continue;
            }
            let out = self.within(&names, body);
            match kind {
                Each::Map => made.push(out?),
                Each::TransformMap => kept.push((key, out?)),
                Each::TransformMapEntry => {
                    for (key, value) in out?.members().unwrap_or_default() {
                        self.spend(kept.len() as u64 / 10)?;
                        if kept.iter().any(|(known, _): &(Value<'v>, _)| known.same(&key)) {
                            return failed("a key of a map is there twice");
                        }
                        kept.push((key, value));
                    }
                }
                Each::Filter => {
                    if truth(&out?)? {
                        made.push(names.into_iter().next().map_or(Value::Null, |(_, v)| v));
                    }
                }
                Each::ExistsOne => count += usize::from(truth(&out?)?),
                Each::All | Each::Exists => match out.and_then(|v| truth(&v)) {
                    Ok(holds) if holds == (kind == Each::Exists) => return Ok(Value::Bool(holds)),
                    Ok(_) => {}
                    Err(EvalError::Spent) => return Err(EvalError::Spent),
                    Err(other) => error = Some(other),
                },
            }
        }
        match (kind, error) {
            (_, Some(error)) => Err(error),
            (Each::All, None) => Ok(Value::Bool(true)),
            (Each::Exists, None) => Ok(Value::Bool(false)),
            (Each::ExistsOne, None) => Ok(Value::Bool(count == 1)),
            (Each::Map | Each::Filter, None) => Ok(Value::List(made.into())),
            (Each::TransformMap | Each::TransformMapEntry, None) => Ok(Value::Map(kept.into())),
        }
    }
}
