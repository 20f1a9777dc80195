//! What differs between two objects, as field sets.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    Reach,
    element::Element,
    fields::{FieldSet, Node},
    shape::{self, Shape},
};
use crate::schema::Schema;

/// The differences between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    /// Only in the second one.
    pub added: FieldSet,
    /// In both, but not the same.
    pub modified: FieldSet,
    /// Only in the first one.
    pub removed: FieldSet,
}

impl Comparison {
    /// The part that a request can reach.
    pub fn within(self, reach: &Reach) -> Self {
        Self { added: reach.of(self.added), modified: reach.of(self.modified), removed: reach.of(self.removed) }
    }

    /// What the second object says anew.
    pub fn changed(&self) -> FieldSet {
        self.modified.union(&self.added)
    }

    fn push(&mut self, other: Delta, element: &Element) {
        for (set, mark) in [(&mut self.added, other.added), (&mut self.modified, other.modified), (&mut self.removed, other.removed)] {
            if mark.here || !mark.below.is_empty() {
                set.push(Node { element: element.clone(), member: mark.here, below: mark.below });
            }
        }
    }
}

/// Whether a path is in a set, and what is below it.
#[derive(Debug, Default)]
struct Mark {
    here: bool,
    below: FieldSet,
}

/// The differences of two values at one path.
#[derive(Debug, Default)]
struct Delta {
    added: Mark,
    modified: Mark,
    removed: Mark,
}

impl From<Comparison> for Delta {
    fn from(below: Comparison) -> Self {
        let mark = |below| Mark { here: false, below };
        Self { added: mark(below.added), modified: mark(below.modified), removed: mark(below.removed) }
    }
}

/// Compares two objects of one kind and version.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Comparison {
    let delta = differ(schema, Some(old), Some(new));
    Comparison { added: delta.added.below, modified: delta.modified.below, removed: delta.removed.below }
}

fn differ(schema: &Schema, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let shapes = (old.map(|value| shape::of(schema, value)), new.map(|value| shape::of(schema, value)));
    let mut delta = match shapes {
        (None, None) => return Delta::default(),
        (Some(Shape::Leaf), Some(Shape::Leaf) | None) | (None, Some(Shape::Leaf)) => return leaf(old, new),
        (Some(Shape::Members), Some(Shape::Members) | None) | (None, Some(Shape::Members)) => members(schema, old, new),
        (Some(Shape::Elements), Some(Shape::Elements) | None) | (None, Some(Shape::Elements)) => elements(schema, old, new),
        // A value of another shape takes the place of all that was there.
        (Some(_), Some(_)) => {
            let (gone, come) = (differ(schema, old, None), differ(schema, None, new));
            let modified = Mark { here: true, below: FieldSet::default() };
            return Delta { added: Mark { here: false, ..come.added }, modified, removed: Mark { here: false, ..gone.removed } };
        }
    };
    delta.added.here |= old.is_none();
    delta.removed.here |= new.is_none();
    delta
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Delta {
    let mut delta = Delta::default();
    match (old, new) {
        (None, _) => delta.added.here = true,
        (_, None) => delta.removed.here = true,
        (old, new) => delta.modified.here = old != new,
    }
    delta
}

fn members(schema: &Schema, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
    if before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty) {
        return leaf(old, new);
    }
    let mut out = Comparison::default();
    let (mut left, mut right) = (before.into_iter().flatten().peekable(), after.into_iter().flatten().peekable());
    loop {
        let name = match (left.peek(), right.peek()) {
            (Some((a, _)), Some((b, _))) => (*a).min(*b),
            (Some((name, _)), None) | (None, Some((name, _))) => *name,
            (None, None) => return out.into(),
        };
        let old = left.next_if(|(other, _)| *other == name).map(|(_, value)| value);
        let new = right.next_if(|(other, _)| *other == name).map(|(_, value)| value);
        let delta = differ(shape::member(schema, name), old, new);
        if !delta.is_empty() {
            out.push(delta, &Element::field(name));
        }
    }
}

fn elements(schema: &Schema, old: Option<&Value>, new: Option<&Value>) -> Delta {
    let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let after = new.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if before.is_empty() && after.is_empty() {
        return leaf(old, new);
    }
    if before == after {
        return Delta::default();
    }
    let (Some(before), Some(after)) = (shape::items(schema, before), shape::items(schema, after)) else { return leaf(old, new) };
    let mut all: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for (element, value) in before {
        all.entry(element).or_default().0.push(value);
    }
    for (element, value) in after {
        all.entry(element).or_default().1.push(value);
    }
    let items = shape::element(schema);
    let mut out = Comparison::default();
    for (element, (before, after)) in all {
        let delta = match (&before[..], &after[..]) {
            (old @ ([] | [_]), new @ ([] | [_])) => differ(items, old.first().copied(), new.first().copied()),
            // Elements that come twice are one to their manager.
            (old @ [_, _, ..], new @ [_, _, ..]) => {
                let modified = Mark { here: old != new, below: FieldSet::default() };
                Delta { modified, ..Delta::default() }
            }
            (_, new @ ([] | [_])) => {
                let mut delta = new.first().map(|new| differ(items, None, Some(new))).unwrap_or_default();
                delta.removed.here = true;
                delta
            }
            (old, _) => {
                let mut delta = old.first().map(|old| differ(items, Some(old), None)).unwrap_or_default();
                delta.added.here = true;
                delta
            }
        };
        out.push(delta, &element);
    }
    out.into()
}

impl Delta {
    fn is_empty(&self) -> bool {
        [&self.added, &self.modified, &self.removed].iter().all(|mark| !mark.here && mark.below.is_empty())
    }
}
