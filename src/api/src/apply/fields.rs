//! Sets of fields: a tree of path elements, each of which may itself be a member.

use std::cmp::Ordering;

use super::element::{Element, Path};

/// Paths to fields. A path may be a member without what is below it, and the other way round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// In the order of their elements, each once, none without content.
    nodes: Vec<Node>,
}

/// An element with what the set holds at and below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub element: Element,
    /// The path that ends here is a member.
    pub member: bool,
    pub below: FieldSet,
}

impl Node {
    fn kept(self) -> Option<Self> {
        (self.member || !self.below.is_empty()).then_some(self)
    }
}

/// What two sets hold of one element.
enum Pair<'a> {
    Left(&'a Node),
    Right(&'a Node),
    Both(&'a Node, &'a Node),
}

impl FieldSet {
    /// Of nodes in any order; elements must differ.
    pub(super) fn of(mut nodes: Vec<Node>) -> Self {
        nodes.retain(|node| node.member || !node.below.is_empty());
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|b, a| {
                let twice = a.element == b.element;
                if twice {
                    a.member |= b.member;
                    a.below = a.below.union(&b.below);
                }
                twice
            });
        }
        Self { nodes }
    }

    /// Of paths.
    pub fn of_paths<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut out = Self::default();
        for path in paths {
            out.insert(&path.0);
        }
        out
    }

    /// Adds a node behind all others, which must come before it in order.
    pub(super) fn push(&mut self, node: Node) {
        debug_assert!(self.nodes.last().is_none_or(|last| last.element < node.element), "{:?}", node.element);
        self.nodes.push(node);
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether it has no member.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Adds a path; what lies on its way does not become a member.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.nodes.binary_search_by(|node| node.element.cmp(first)) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, Node { element: first.clone(), member: false, below: Self::default() });
                at
            }
        };
        let node = &mut self.nodes[at];
        if rest.is_empty() { node.member = true } else { node.below.insert(rest) }
    }

    pub(super) fn node(&self, element: &Element) -> Option<&Node> {
        self.nodes.binary_search_by(|node| node.element.cmp(element)).ok().map(|at| &self.nodes[at])
    }

    /// The same for a member by its name, without making an element of it.
    pub(super) fn named(&self, name: &str) -> Option<&Node> {
        let by = |node: &Node| match node.element.name() {
            Some(other) => other.cmp(name),
            None => Ordering::Greater, // elements of lists come behind all names
        };
        self.nodes.binary_search_by(by).ok().map(|at| &self.nodes[at])
    }

    /// Whether this path is a member.
    pub fn contains(&self, path: &[Element]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.node(first).is_some_and(|node| if rest.is_empty() { node.member } else { node.below.contains(rest) })
    }

    /// Members of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |pair| match pair {
            Pair::Left(node) | Pair::Right(node) => Some(node.clone()),
            Pair::Both(a, b) => Some(Node { element: a.element.clone(), member: a.member || b.member, below: a.below.union(&b.below) }),
        })
    }

    /// Members of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |pair| match pair {
            Pair::Left(_) | Pair::Right(_) => None,
            Pair::Both(a, b) => {
                Node { element: a.element.clone(), member: a.member && b.member, below: a.below.intersection(&b.below) }.kept()
            }
        })
    }

    /// Members of this one that are none of the other; what is below a member of the other stays.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |pair| match pair {
            Pair::Left(node) => Some(node.clone()),
            Pair::Right(_) => None,
            Pair::Both(a, b) => {
                Node { element: a.element.clone(), member: a.member && !b.member, below: a.below.difference(&b.below) }.kept()
            }
        })
    }

    /// Members of this one that are neither members of the other nor below one.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        self.zip(other, |pair| match pair {
            Pair::Left(node) => Some(node.clone()),
            Pair::Right(_) => None,
            Pair::Both(_, b) if b.member => None,
            Pair::Both(a, b) => Node { element: a.element.clone(), member: a.member, below: a.below.without(&b.below) }.kept(),
        })
    }

    /// Whether they share a member.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut a, mut b) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            match left.element.cmp(&right.element) {
                Ordering::Less => drop(a.next()),
                Ordering::Greater => drop(b.next()),
                Ordering::Equal => {
                    if (left.member && right.member) || left.below.meets(&right.below) {
                        return true;
                    }
                    a.next();
                    b.next();
                }
            }
        }
        false
    }

    /// All members; each path before those below it.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        self.walk(&mut Vec::new(), &mut out);
        out
    }

    fn walk(&self, prefix: &mut Vec<Element>, out: &mut Vec<Path>) {
        for node in &self.nodes {
            prefix.push(node.element.clone());
            if node.member {
                out.push(Path(prefix.clone()));
            }
            node.below.walk(prefix, out);
            prefix.pop();
        }
    }

    fn zip(&self, other: &Self, mut join: impl FnMut(Pair<'_>) -> Option<Node>) -> Self {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let (mut a, mut b) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (Some(left), Some(right)) => left.element.cmp(&right.element),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Self { nodes },
            };
            let pair = match order {
                Ordering::Less => a.next().map(Pair::Left),
                Ordering::Greater => b.next().map(Pair::Right),
                Ordering::Equal => a.next().zip(b.next()).map(|(left, right)| Pair::Both(left, right)),
            };
            nodes.extend(pair.and_then(&mut join));
        }
    }
}
