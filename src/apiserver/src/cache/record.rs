//! Reads the few facts that selectors need off an object's bytes, without building the object.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fields::Fields;

/// What the cache knows of an object besides its bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// `metadata.uid`.
    pub uid: Box<str>,
    /// `metadata.labels`, sorted by key.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The values of the kind's selectable fields, in its order; an absent one has its default.
    pub fields: Box<[Box<str>]>,
}

impl Record {
    /// Heap bytes, about.
    pub fn size(&self) -> usize {
        self.uid.len()
            + self.labels.iter().map(|(k, v)| k.len() + v.len() + 32).sum::<usize>()
            + self.fields.iter().map(|f| f.len() + 16).sum::<usize>()
    }
}

/// Reads the record of one object.
pub fn read(json: &[u8], fields: &Fields) -> Result<Record, serde_json::Error> {
    let mut found = Found { values: vec![None; fields.tree().slots()], labels: Vec::new() };
    let mut input = serde_json::Deserializer::from_slice(json);
    Pick { node: fields.tree().root(), found: &mut found }.deserialize(&mut input)?;
    input.end()?;
    found.labels.sort_unstable();
    let uid = found.values[0].take().unwrap_or_default();
    Ok(Record { uid, labels: found.labels.into(), fields: fields.settle(found.values) })
}

/// A tree of the paths that are wanted. Slot 0 is the uid.
#[derive(Debug)]
pub struct Tree {
    root: Node,
    slots: usize,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    labels: bool,
    children: Vec<(Box<str>, Node)>,
}

impl Tree {
    /// The uid, the labels, and these dotted paths (a number is an index), the first of them in slot 1.
    pub fn new<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let mut root = Node::default();
        let mut slots = 0;
        for path in std::iter::once("metadata.uid").chain(paths) {
            root.at(path).slot = Some(slots);
            slots += 1;
        }
        root.at("metadata.labels").labels = true;
        Self { root, slots }
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn root(&self) -> &Node {
        &self.root
    }
}

impl Node {
    fn at(&mut self, path: &str) -> &mut Self {
        let mut node = self;
        for part in path.split('.') {
            let at = node.children.iter().position(|(name, _)| **name == *part).unwrap_or_else(|| {
                node.children.push((part.into(), Self::default()));
                node.children.len() - 1
            });
            node = &mut node.children[at].1;
        }
        node
    }

    fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|(n, _)| **n == *name).map(|(_, node)| node)
    }
}

struct Found {
    values: Vec<Option<Box<str>>>,
    labels: Vec<(Box<str>, Box<str>)>,
}

struct Pick<'n, 'f> {
    node: &'n Node,
    found: &'f mut Found,
}

impl<'de> DeserializeSeed<'de> for Pick<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl Pick<'_, '_> {
    fn keep(self, text: Cow<'_, str>) {
        if let Some(slot) = self.node.slot {
            self.found.values[slot] = Some(text.into());
        }
    }
}

impl<'de> Visitor<'de> for Pick<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.node.labels {
            while let Some((key, value)) = map.next_entry::<Box<str>, Option<Box<str>>>()? {
                self.found.labels.push((key, value.unwrap_or_default()));
            }
            return Ok(());
        }
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match self.node.child(&key) {
                Some(node) => map.next_value_seed(Pick { node, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0usize;
        loop {
            let more = match self.node.children.iter().find(|(name, _)| name.parse() == Ok(index)) {
                Some((_, node)) => seq.next_element_seed(Pick { node, found: self.found })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.keep(text.into());
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.keep(value.to_string().into());
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.keep(value.to_string().into());
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.keep(value.to_string().into());
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.keep(value.to_string().into());
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
