//! Where the members of a JSON object lie in its protobuf message: inlined messages are flat in JSON and nested here.

use crate::schema::Property;

/// Members of one message in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Number and what it holds.
    pub(crate) slots: Vec<(u32, Slot)>,
}

/// What a number holds.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// The member at this index of the schema's properties.
    Member(usize),
    /// Members that are flat in JSON.
    Inlined(Layout),
}

impl Layout {
    /// The layout of an object with these properties.
    pub(crate) fn of(properties: &[Property]) -> Self {
        let mut layout = Self::default();
        for (index, property) in properties.iter().enumerate().filter(|(_, p)| p.number != 0) {
            let mut at = &mut layout;
            for number in &property.through {
                at = at.inlined(*number);
            }
            at.slots.push((property.number, Slot::Member(index)));
        }
        layout.sort();
        layout
    }

    fn inlined(&mut self, number: u32) -> &mut Self {
        let known = self.slots.iter().position(|(n, slot)| *n == number && matches!(slot, Slot::Inlined(_)));
        let index = known.unwrap_or_else(|| {
            self.slots.push((number, Slot::Inlined(Self::default())));
            self.slots.len() - 1
        });
        match &mut self.slots[index].1 {
            Slot::Inlined(layout) => layout,
            Slot::Member(_) => unreachable!("the position was taken or made as an inlined message"),
        }
    }

    fn sort(&mut self) {
        self.slots.sort_by_key(|(number, _)| *number);
        for (_, slot) in &mut self.slots {
            if let Slot::Inlined(layout) = slot {
                layout.sort();
            }
        }
    }

    /// What a number holds.
    pub(crate) fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.binary_search_by_key(&number, |(n, _)| *n).ok().map(|i| &self.slots[i].1)
    }
}
