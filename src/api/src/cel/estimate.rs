//! What an expression may cost at most, told from the bounds that a schema sets: rules that could cost too much are refused with their definition.
//!
//! The figures are upstream's, on purpose: which rules a definition may have depends on them.

use std::rc::Rc;

use super::{
    ast::{Each, Expr},
    cost::{self, matching, traversal},
};
use crate::custom::checks::{Checks, Kind};

/// Bytes of the largest object that a request can bring. Upstream's figure.
const MAX_REQUEST_BYTES: u64 = 3 << 20;
/// Text of times and durations.
const MAX_TIME_CHARS: u64 = 32;
/// A date: `"2006-01-02"`.
const DATE_BYTES: u64 = 12;
/// Least text of a point in time.
const MIN_TIME_BYTES: u64 = 21;
/// An answer of the authorizer.
const AUTHORIZATION: u64 = 350_000;
/// Bytes of an address, as text of which ten are read for one unit.
const ADDRESS: u64 = 32;
/// Length of the pattern behind a named format.
const FORMAT_PATTERN: u64 = 128;
/// Characters that nobody bounds.
const UNKNOWN: u64 = u64::MAX;

/// What is known of a value before there is one.
#[derive(Clone, Debug, Default)]
struct Node<'c> {
    /// Most characters, elements or members; `None` when nobody knows.
    size: Option<u64>,
    /// Where the schema describes it.
    checks: Option<&'c Checks>,
    /// Of its elements or values, where an expression made them.
    items: Option<Rc<Node<'c>>>,
}

/// Most cost, and what comes of it.
type Estimate<'c> = (u64, Node<'c>);

fn scalar<'c>() -> Node<'c> {
    Node { size: Some(1), ..Node::default() }
}

fn sized<'c>(size: u64) -> Node<'c> {
    Node { size: Some(size), ..Node::default() }
}

/// Most characters, elements or members that a schema lets a value have.
fn most(checks: &Checks) -> u64 {
    let items = |of: Option<&Checks>| of.map_or(1, least);
    match checks.kind {
        Kind::Array => checks.items_count.1.unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (items(checks.items.as_deref()) + 1)),
        Kind::Object if checks.additional.is_some() => {
            checks.properties_count.1.unwrap_or_else(|| (MAX_REQUEST_BYTES - 2) / (items(checks.additional.as_deref()) + 6))
        }
        Kind::IntOrString => checks.length.1.map_or(MAX_REQUEST_BYTES - 2, |n| n.saturating_mul(4)),
        Kind::String => match (&*checks.format, checks.length.1) {
            ("duration" | "date-time", _) => MAX_TIME_CHARS,
            ("date", _) => DATE_BYTES,
            ("byte", Some(length)) => length,
            // A character may be four bytes.
            (_, Some(length)) => length.saturating_mul(4),
            (_, None) if !checks.enumeration.is_empty() => {
                checks.enumeration.iter().filter_map(|v| v.as_str()).map(|text| text.len() as u64).max().unwrap_or(0)
            }
            _ => MAX_REQUEST_BYTES - 2,
        },
        _ => 0,
    }
}

/// Fewest bytes that a value of a schema takes as JSON.
fn least(checks: &Checks) -> u64 {
    match checks.kind {
        Kind::Boolean => 4,
        Kind::String => match &*checks.format {
            "date" => DATE_BYTES,
            "date-time" => MIN_TIME_BYTES,
            _ => 2,
        },
        Kind::Object if checks.additional.is_none() => {
            let required = checks.required.iter().filter_map(|name| checks.property(name).map(|child| (name, child)));
            required.filter(|(_, child)| !child.defaulted).map(|(name, child)| name.len() as u64 + least(child) + 4).sum::<u64>() + 2
        }
        Kind::Array | Kind::Object => 2,
        Kind::Any | Kind::Integer | Kind::Number | Kind::IntOrString => 1,
    }
}

/// How often a value with this schema may stand in one object, when nothing above it says so.
pub fn occurrences(checks: &Checks) -> u64 {
    MAX_REQUEST_BYTES / (least(checks) + 1)
}

/// Most that an expression costs for one value of `self`.
pub(super) fn most_cost(expr: &Expr, own: &Checks) -> u64 {
    let node = Node { size: Some(most(own)), checks: Some(own), items: None };
    let mut estimator = Estimator { names: vec![("self", node.clone()), ("oldSelf", node)] };
    estimator.of(expr).0
}

struct Estimator<'e, 'c> {
    names: Vec<(&'e str, Node<'c>)>,
}

impl<'c> Node<'c> {
    fn of(checks: &'c Checks) -> Self {
        Self { size: Some(most(checks)), checks: Some(checks), items: None }
    }

    fn field(&self, name: &str) -> Self {
        let Some(checks) = self.checks else { return Self::default() };
        let unescaped = || super::value::unescape(name);
        let child = checks.property(name).or_else(|| checks.property(&unescaped()?)).or(checks.additional.as_deref());
        child.map_or_else(Self::default, Self::of)
    }

    fn elements(&self) -> Self {
        let inner = self.checks.and_then(|c| c.items.as_deref().or(c.additional.as_deref()));
        match (&self.items, inner) {
            (Some(items), _) => (**items).clone(),
            (None, Some(inner)) => Self::of(inner),
            (None, None) => Self::default(),
        }
    }

    fn is_map(&self) -> bool {
        self.checks.is_some_and(|checks| checks.kind == Kind::Object)
    }

    fn len(&self) -> u64 {
        self.size.unwrap_or(UNKNOWN)
    }

    fn union(self, other: Self) -> Self {
        let same = matches!((self.checks, other.checks), (Some(a), Some(b)) if std::ptr::eq(a, b));
        let size = self.size.zip(other.size).map(|(a, b)| a.max(b));
        Self { size, checks: self.checks.filter(|_| same), items: self.items.or(other.items) }
    }
}

impl<'e, 'c> Estimator<'e, 'c> {
    fn of(&mut self, expr: &'e Expr) -> Estimate<'c> {
        match expr {
            Expr::Null | Expr::Bool(_) | Expr::Int(_) | Expr::Uint(_) | Expr::Double(_) => (0, scalar()),
            Expr::Text(text) => (0, sized(text.chars().count() as u64)),
            Expr::Bytes(bytes) => (0, sized(bytes.len() as u64)),
            Expr::Name(name) => {
                let known = self.names.iter().rev().find(|(n, _)| n == name).map(|(_, node)| node.clone());
                (1, known.unwrap_or_default())
            }
            Expr::Select { of, field, .. } => {
                let (cost, node) = self.of(of);
                (cost.saturating_add(1), node.field(field))
            }
            Expr::Has { of, .. } => (self.of(of).0, scalar()),
            Expr::Index { of, at, .. } => {
                let ((cost, node), at) = (self.of(of), self.of(at).0);
                (cost.saturating_add(at).saturating_add(1), node.elements())
            }
            Expr::List(items) => {
                let mut total = cost::LIST;
                let mut inner: Option<Node<'c>> = None;
                for (_, item) in items {
                    let (cost, node) = self.of(item);
                    total = total.saturating_add(cost);
                    inner = Some(match inner {
                        Some(before) => before.union(node),
                        None => node,
                    });
                }
                (total, Node { items: inner.map(Rc::new), ..sized(items.len() as u64) })
            }
            Expr::Map(items) => {
                let cost = items.iter().fold(cost::MAP, |sum, (_, k, v)| sum.saturating_add(self.of(k).0).saturating_add(self.of(v).0));
                (cost, sized(items.len() as u64))
            }
            Expr::Make { fields, .. } => {
                (fields.iter().fold(cost::OBJECT, |sum, (_, _, v)| sum.saturating_add(self.of(v).0)), Node::default())
            }
            Expr::And(a, b) | Expr::Or(a, b) => (self.of(a).0.saturating_add(self.of(b).0), scalar()),
            Expr::If(condition, yes, no) => {
                let (condition, (a, yes), (b, no)) = (self.of(condition).0, self.of(yes), self.of(no));
                (condition.saturating_add(a.max(b)), yes.union(no))
            }
            Expr::Bind { name, value, body } => {
                let (cost, node) = self.of(value);
                let (inner, out) = self.within(&[(name, node)], body);
                (cost.saturating_add(inner).saturating_add(cost::LIST), out)
            }
            Expr::OptMap { of, var, body, .. } => {
                let (cost, node) = self.of(of);
                let (inner, out) = self.within(&[(var, node)], body);
                (cost.saturating_add(inner).saturating_add(2), out)
            }
            Expr::SortBy { of, var, key } => {
                let (cost, list) = self.of(of);
                let (inner, _) = self.within(&[(var, list.elements())], key);
                (cost.saturating_add(list.len().saturating_mul(inner.saturating_add(1))), list)
            }
            Expr::Each { kind, range, vars, filter, body } => self.each(*kind, range, vars, filter.as_deref(), body),
            Expr::Call { target, name, args } => self.call(target.as_deref(), name, args),
        }
    }

    fn within(&mut self, names: &[(&'e str, Node<'c>)], body: &'e Expr) -> Estimate<'c> {
        let before = self.names.len();
        self.names.extend_from_slice(names);
        let out = self.of(body);
        self.names.truncate(before);
        out
    }

    /// Macros cost what the loops cost that they stand for.
    fn each(&mut self, kind: Each, range: &'e Expr, vars: &'e [String], filter: Option<&'e Expr>, body: &'e Expr) -> Estimate<'c> {
        let (cost, list) = self.of(range);
        // Keys have no bound that a schema could set, and cost nothing to look at.
        let (key, value) = (sized(0), list.elements());
        let names: Vec<(&'e str, Node<'c>)> = match vars {
            [one] => vec![(one, if list.is_map() { key } else { value })],
            [first, second, ..] => vec![(first, key), (second, value)],
            [] => Vec::new(),
        };
        let (inner, made) = self.within(&names, body);
        let filtered = filter.map_or(0, |filter| self.within(&names, filter).0);
        let (start, step, end, out) = match kind {
            Each::All => (0, inner.saturating_add(3), 1, scalar()),
            Each::Exists => (0, inner.saturating_add(4), 1, scalar()),
            Each::ExistsOne => (0, inner.saturating_add(2), 2, scalar()),
            Each::Filter => {
                let kept = names.into_iter().next().map_or_else(Node::default, |(_, node)| node);
                (cost::LIST, inner.saturating_add(13), 1, Node { items: Some(Rc::new(kept)), ..sized(list.len()) })
            }
            Each::Map => (cost::LIST, inner.saturating_add(12), 1, Node { items: Some(Rc::new(made)), ..sized(list.len()) }),
            Each::TransformMap | Each::TransformMapEntry => {
                (cost::MAP, inner.saturating_add(3), 1, Node { items: Some(Rc::new(made)), ..sized(list.len()) })
            }
        };
        let loops = list.len().saturating_mul(step.saturating_add(filtered));
        (cost.saturating_add(start).saturating_add(end).saturating_add(loops), out)
    }

    fn call(&mut self, target: Option<&'e Expr>, name: &'e str, args: &'e [Expr]) -> Estimate<'c> {
        let space = match target {
            Some(Expr::Name(space)) if super::functions::is_namespace(space) && !self.names.iter().any(|(n, _)| n == space) => Some(space),
            _ => None,
        };
        let mut sum = 0u64;
        let mut nodes = Vec::new();
        for expr in target.filter(|_| space.is_none()).into_iter().chain(args) {
            let (cost, node) = self.of(expr);
            sum = sum.saturating_add(cost);
            nodes.push(node);
        }
        let full = space.map_or_else(|| name.to_owned(), |space| format!("{space}.{name}"));
        let (own, out) = called(&full, &nodes);
        (sum.saturating_add(own), out)
    }
}

/// The cost of a call besides its arguments, and what it gives; a receiver is the first argument.
fn called<'c>(name: &str, args: &[Node<'c>]) -> Estimate<'c> {
    let len = |at: usize| args.get(at).map_or(UNKNOWN, Node::len);
    let (first, second) = (len(0), len(1));
    match name {
        "check" => (AUTHORIZATION, Node::default()),
        "dyn" => (1, args.first().cloned().unwrap_or_default()),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            let list = args.first().filter(|node| node.items.is_some() || node.checks.is_some_and(|c| c.kind == Kind::Array));
            match list.map(Node::elements) {
                Some(element) => {
                    let text = element.checks.is_none_or(|c| c.kind == Kind::String);
                    let each = if text { traversal(element.len()).saturating_add(1) } else { 1 };
                    (first.saturating_mul(each), scalar())
                }
                None => (traversal(first), scalar()),
            }
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "jsonpatch.escapeKey" | "reverse" => (traversal(first), sized(first)),
        "replace" => {
            let (from, to) = (second, len(2));
            let made = if to <= from { first } else { first.saturating_add(1).saturating_mul(to).saturating_add(first) };
            (traversal(first.saturating_mul(2)), sized(made))
        }
        "split" => (traversal(first.saturating_mul(2)), Node { items: Some(Rc::new(sized(first))), ..sized(first) }),
        "join" => {
            let each = args.first().map_or(UNKNOWN, |list| list.elements().len());
            let apart = if args.len() > 1 { second.saturating_mul(first.saturating_sub(1)) } else { 0 };
            let made = first.saturating_mul(each).saturating_add(apart);
            (traversal(made), sized(made))
        }
        "find" | "findAll" | "matches" => (bounded_matching(first, second), sized(first)),
        "contains" => (traversal(first).saturating_mul(traversal(second)), scalar()),
        "startsWith" | "endsWith" => (traversal(second), scalar()),
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => (traversal(first), scalar()),
        "ip.isCanonical" => (traversal(first.saturating_mul(2)), scalar()),
        "containsIP" | "containsCIDR" => (traversal(ADDRESS).saturating_mul(2).saturating_add(traversal(second)), scalar()),
        "validate" => (bounded_matching(second, FORMAT_PATTERN), Node::default()),
        "bytes" => (traversal(first), sized(first.saturating_mul(4))),
        "string" => (traversal(first), sized(first)),
        "strings.quote" => (traversal(first), sized(first.saturating_mul(2).saturating_add(2))),
        "format" => (traversal(first), Node::default()),
        "in" => (second, scalar()),
        "+" => {
            let made = first.saturating_add(second);
            let lists = args.iter().any(|node| node.items.is_some() || node.checks.is_some_and(|c| c.kind == Kind::Array));
            let items = args.first().map(|node| Rc::new(node.elements()));
            if lists { (1, Node { items, ..sized(made) }) } else { (traversal(made).max(1), sized(made)) }
        }
        "==" | "!=" | "<" | "<=" | ">" | ">=" => (traversal(first.min(second)), scalar()),
        "sets.contains" | "sets.intersects" => (first.saturating_mul(second).saturating_add(1), scalar()),
        "sets.equivalent" => (first.saturating_mul(second).saturating_mul(2).saturating_add(1), scalar()),
        "distinct" | "sort" => (first.saturating_mul(first.max(1)), args.first().cloned().unwrap_or_default()),
        "orValue" | "or" | "value" | "optional.of" | "optional.ofNonZeroValue" => {
            (1, args.iter().cloned().reduce(Node::union).unwrap_or_default())
        }
        _ => (1, scalar()),
    }
}

fn bounded_matching(text: u64, pattern: u64) -> u64 {
    if text == UNKNOWN || pattern == UNKNOWN { UNKNOWN } else { matching(text, pattern) }
}
