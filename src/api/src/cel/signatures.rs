//! What functions take and give, as patterns of types with variables in them.

use std::rc::Rc;
use std::sync::OnceLock;

use super::{functions, kubernetes, types::Type};

/// A type with variables.
#[derive(Debug)]
enum Pattern {
    /// Anything.
    Dyn,
    /// int, uint or double.
    Number,
    /// `A`, `B`: the same wherever it stands.
    Var(usize),
    Plain(&'static str),
    List(Box<Pattern>),
    Map(Box<Pattern>, Box<Pattern>),
    Optional(Box<Pattern>),
}

/// One form of a function.
#[derive(Debug)]
pub(super) struct Signature {
    name: &'static str,
    receiver: Option<Pattern>,
    args: Vec<Pattern>,
    result: Pattern,
}

/// What the variables of a pattern stand for.
#[derive(Default)]
struct Bound<'c>([Option<Type<'c>>; 2]);

/// All forms of all functions.
fn all() -> &'static [Signature] {
    static ALL: OnceLock<Vec<Signature>> = OnceLock::new();
    ALL.get_or_init(|| {
        [functions::SIGNATURES, kubernetes::SIGNATURES].iter().flat_map(|text| text.split(['\n', '|'])).filter_map(read).collect()
    })
}

/// `receiver name argument... -> result`; `.` stands for no receiver.
fn read(line: &'static str) -> Option<Signature> {
    let (left, result) = line.trim().split_once(" -> ")?;
    let mut words = left.split(' ');
    let receiver = words.next().filter(|word| *word != ".").map(pattern);
    Some(Signature { receiver, name: words.next()?, args: words.map(pattern).collect(), result: pattern(result) })
}

fn pattern(text: &'static str) -> Pattern {
    let inner = |of: &'static str| text.strip_prefix(of).and_then(|rest| rest.strip_prefix('(')).and_then(|rest| rest.strip_suffix(')'));
    if let Some(of) = inner("list") {
        return Pattern::List(Box::new(pattern(of)));
    }
    if let Some(of) = inner("optional") {
        return Pattern::Optional(Box::new(pattern(of)));
    }
    if let Some((keys, values)) = inner("map").and_then(|of| of.split_once(',')) {
        return Pattern::Map(Box::new(pattern(keys)), Box::new(pattern(values)));
    }
    match text {
        "A" => Pattern::Var(0),
        "B" => Pattern::Var(1),
        "dyn" => Pattern::Dyn,
        "number" => Pattern::Number,
        name => Pattern::Plain(name),
    }
}

impl Pattern {
    fn takes<'c>(&self, found: &Type<'c>, bound: &mut Bound<'c>) -> bool {
        match (self, found) {
            (Self::Dyn, _) => true,
            (Self::Var(at), found) => {
                let joined = match &bound.0[*at] {
                    Some(known) => known.join(found),
                    None => Some(found.clone()),
                };
                let fits = joined.is_some();
                bound.0[*at] = joined;
                fits
            }
            (Self::Number, found) => found.is_open() || matches!(found.word(), "int" | "uint" | "double"),
            (Self::Plain(name), found) => found.is_open() || matches!(found, Type::Plain(own) if own == name),
            (Self::List(of), Type::List(items)) => of.takes(items, bound),
            (Self::Optional(of), Type::Optional(inner)) => of.takes(inner, bound),
            (Self::Map(keys, values), Type::Map(k, v)) => keys.takes(k, bound) && values.takes(v, bound),
            (Self::List(of) | Self::Optional(of), Type::Dyn | Type::Free) => of.takes(found, bound),
            (Self::Map(keys, values), Type::Dyn | Type::Free) => keys.takes(found, bound) && values.takes(found, bound),
            _ => false,
        }
    }

    fn made<'c>(&self, bound: &Bound<'c>) -> Type<'c> {
        match self {
            Self::Dyn | Self::Number => Type::Dyn,
            Self::Var(at) => bound.0[*at].clone().unwrap_or(Type::Free),
            Self::Plain(name) => Type::Plain(name),
            Self::List(of) => Type::list(of.made(bound)),
            Self::Optional(of) => Type::Optional(Rc::new(of.made(bound))),
            Self::Map(keys, values) => Type::Map(Rc::new(keys.made(bound)), Rc::new(values.made(bound))),
        }
    }
}

/// What a call gives; `Err(true)` when there is such a function, but it does not take these.
pub(super) fn call<'c>(name: &str, target: Option<&Type<'c>>, args: &[Type<'c>]) -> Result<Type<'c>, bool> {
    let mut known = false;
    let mut out: Option<Type<'c>> = None;
    for signature in all().iter().filter(|s| s.name == name && s.receiver.is_some() == target.is_some()) {
        known = true;
        let mut bound = Bound::default();
        let fits = signature.args.len() == args.len()
            && signature.receiver.iter().zip(target).chain(signature.args.iter().zip(args)).all(|(of, found)| of.takes(found, &mut bound));
        if fits {
            let made = signature.result.made(&bound);
            // Which form it is shows when there are values: then it is what all forms have in common.
            out = Some(out.map_or_else(|| made.clone(), |before| before.join(&made).unwrap_or(Type::Dyn)));
        }
    }
    out.ok_or(known)
}
