//! The tree of an expression; macros are kinds of nodes.

/// A part of an expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Name(String),
    /// `of.field`, `of.?field`
    Select {
        of: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(of.field)`
    Has {
        of: Box<Expr>,
        field: String,
    },
    /// `of[at]`, `of[?at]`
    Index {
        of: Box<Expr>,
        at: Box<Expr>,
        optional: bool,
    },
    /// Members with `?` are left out when they have no value.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    /// `Object.spec{field: value}`
    Make {
        name: String,
        fields: Vec<(bool, String, Expr)>,
    },
    /// `name(args)`, `target.name(args)`; operators are calls of their own sign.
    Call {
        target: Option<Box<Expr>>,
        name: String,
        args: Vec<Expr>,
    },
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    If(Box<Expr>, Box<Expr>, Box<Expr>),
    /// `range.all(x, body)` and its kind; with two variables the first is the index or key.
    Each {
        kind: Each,
        range: Box<Expr>,
        vars: Vec<String>,
        filter: Option<Box<Expr>>,
        body: Box<Expr>,
    },
    /// `cel.bind(name, value, body)`
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
    /// `of.sortBy(x, key)`
    SortBy {
        of: Box<Expr>,
        var: String,
        key: Box<Expr>,
    },
    /// `of.optMap(x, body)`, `of.optFlatMap(x, body)`
    OptMap {
        of: Box<Expr>,
        var: String,
        body: Box<Expr>,
        flat: bool,
    },
}

/// What is made of the members of a list or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformMap,
    TransformMapEntry,
}

impl Expr {
    /// Whether a name occurs.
    pub(super) fn mentions(&self, name: &str) -> bool {
        let any = |list: &[Self]| list.iter().any(|e| e.mentions(name));
        match self {
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Uint(_) | Self::Double(_) | Self::Text(_) | Self::Bytes(_) => false,
            Self::Name(own) => own == name,
            Self::Select { of, .. } | Self::Has { of, .. } => of.mentions(name),
            Self::Index { of, at, .. } => of.mentions(name) || at.mentions(name),
            Self::List(items) => items.iter().any(|(_, e)| e.mentions(name)),
            Self::Map(items) => items.iter().any(|(_, k, v)| k.mentions(name) || v.mentions(name)),
            Self::Make { fields, .. } => fields.iter().any(|(_, _, v)| v.mentions(name)),
            Self::Call { target, args, .. } => target.as_ref().is_some_and(|t| t.mentions(name)) || any(args),
            Self::And(a, b) | Self::Or(a, b) => a.mentions(name) || b.mentions(name),
            Self::If(a, b, c) => a.mentions(name) || b.mentions(name) || c.mentions(name),
            Self::Each { range, filter, body, .. } => {
                range.mentions(name) || body.mentions(name) || filter.as_ref().is_some_and(|f| f.mentions(name))
            }
            Self::Bind { value, body, .. } => value.mentions(name) || body.mentions(name),
            Self::SortBy { of, key, .. } => of.mentions(name) || key.mentions(name),
            Self::OptMap { of, body, .. } => of.mentions(name) || body.mentions(name),
        }
    }
}
