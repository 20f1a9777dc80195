//! Which Events are new, which count up, which are combined and which are spam. Pure: the note brings its time.
//!
//! The rules and figures are client-go's: the same Event counts up; more than ten messages of one kind about one object within ten
//! minutes are combined under one; an object has 25 Events of a type at once and then one in five minutes.

use std::{collections::HashMap, hash::Hash};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

/// Objects and Events that are remembered, each; what was quiet longest is forgotten.
const MEMORY_ENTRIES: usize = 1_024;
/// Different messages of one group before they are combined.
const SIMILAR_MESSAGES: usize = 10;
/// Within which the messages of a group are similar.
const SIMILAR_SECONDS: i64 = 600;
/// Events of one object and type at once.
const BURST_EVENTS: f64 = 25.0;
/// Seconds in which an object earns another Event.
const REFILL_SECONDS: f64 = 300.0;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub struct Note {
    /// The object.
    pub regarding: ObjectReference,
    /// How it is.
    pub kind: EventType,
    /// One word, CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

/// What to do about a [`Note`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Drop it.
    Spam,
    /// Create an Event.
    First {
        /// What it says.
        message: String,
    },
    /// Count up the Event that is there.
    Again {
        /// Of the Event.
        name: String,
        /// The new count.
        count: i32,
        /// What it says now.
        message: String,
        /// When it was first told.
        first: Timestamp,
    },
}

/// Who: the object. Mood: and how it is. Group: and what. Series: and in which part of it, and in which words.
type Object = (String, String, String);
type Mood = (Object, EventType);
type Group = (Object, EventType, String);
type Series = (Group, String, String);

/// What was told, bounded.
#[derive(Debug, Default)]
pub struct Correlator {
    budgets: Memory<Mood, Budget>,
    groups: Memory<Group, Messages>,
    series: Memory<Series, Told>,
}

#[derive(Debug)]
struct Budget {
    left: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Messages {
    texts: Vec<String>,
    last: Timestamp,
}

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    first: Timestamp,
}

impl Correlator {
    /// Decides, and remembers that the note was told.
    pub fn observe(&mut self, note: &Note) -> Verdict {
        if !self.afford(note) {
            return Verdict::Spam;
        }
        let (message, series) = self.combine(note);
        let told = self.series.entry(series, note.at, || Told { name: String::new(), count: 0, first: note.at });
        told.count = told.count.saturating_add(1);
        if told.name.is_empty() {
            told.first = note.at;
            return Verdict::First { message };
        }
        Verdict::Again { name: told.name.clone(), count: told.count, message, first: told.first }
    }

    /// Tells the name under which the note that was observed last was written.
    pub fn written(&mut self, note: &Note, name: String) {
        let series = self.series_of(note);
        if let Some(told) = self.series.get(&series) {
            told.name = name;
        }
    }

    fn afford(&mut self, note: &Note) -> bool {
        let budget = self.budgets.entry((object(note), note.kind), note.at, || Budget { left: BURST_EVENTS, at: note.at });
        let seconds = note.at.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.left = (budget.left + seconds / REFILL_SECONDS).min(BURST_EVENTS);
        budget.at = note.at;
        let affordable = budget.left >= 1.0;
        if affordable {
            budget.left -= 1.0;
        }
        affordable
    }

    fn combine(&mut self, note: &Note) -> (String, Series) {
        let messages = self.groups.entry(group(note), note.at, || Messages { texts: Vec::new(), last: note.at });
        if note.at.duration_since(messages.last).as_secs() > SIMILAR_SECONDS {
            messages.texts.clear();
        }
        messages.last = note.at;
        if !messages.texts.contains(&note.message) && messages.texts.len() < SIMILAR_MESSAGES {
            messages.texts.push(note.message.clone());
        }
        let series = self.series_of(note);
        if series.2.is_empty() {
            (format!("(combined from similar events): {}", note.message), series)
        } else {
            (note.message.clone(), series)
        }
    }

    /// Combined ones have no words of their own.
    fn series_of(&mut self, note: &Note) -> Series {
        let group = group(note);
        let combined = self.groups.get(&group).is_some_and(|m| m.texts.len() >= SIMILAR_MESSAGES && !m.texts.contains(&note.message));
        let part = note.regarding.field_path.clone().unwrap_or_default();
        (group, part, if combined { String::new() } else { note.message.clone() })
    }
}

fn object(note: &Note) -> Object {
    let r = &note.regarding;
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    // The uid alone would do, were it always there.
    (format!("{}/{}", text(&r.api_version), text(&r.kind)), format!("{}/{}", text(&r.namespace), text(&r.name)), text(&r.uid))
}

fn group(note: &Note) -> Group {
    (object(note), note.kind, note.reason.clone())
}

/// A map that forgets the entry that was quiet longest.
#[derive(Debug)]
struct Memory<K, V>(HashMap<K, (Timestamp, V)>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone, V> Memory<K, V> {
    fn entry(&mut self, key: K, now: Timestamp, new: impl FnOnce() -> V) -> &mut V {
        if self.0.len() >= MEMORY_ENTRIES && !self.0.contains_key(&key) {
            // A scan of a thousand entries, and only for an Event beyond them: cheaper than an order kept for all.
            if let Some(oldest) = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(k, _)| k.clone()) {
                self.0.remove(&oldest);
            }
        }
        let entry = self.0.entry(key).or_insert_with(|| (now, new()));
        entry.0 = now;
        &mut entry.1
    }

    fn get(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key).map(|(_, v)| v)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(object: &str, message: &str, second: i64) -> Note {
        Note {
            regarding: ObjectReference { name: Some(object.into()), uid: Some(object.into()), ..Default::default() },
            kind: EventType::Normal,
            reason: "Created".into(),
            message: message.into(),
            at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn the_same_event_counts_up() {
        let mut c = Correlator::default();
        let n = note("a", "m", 0);
        assert_eq!(c.observe(&n), Verdict::First { message: "m".into() });
        c.written(&n, "a.1".into());
        let again = note("a", "m", 9);
        let first = n.at;
        assert_eq!(c.observe(&again), Verdict::Again { name: "a.1".into(), count: 2, message: "m".into(), first });
    }

    #[test]
    fn the_parts_of_an_object_count_apart() {
        let mut c = Correlator::default();
        let of = |part: &str, second| {
            let mut note = note("pod", "already present", second);
            note.regarding.field_path = Some(format!("spec.containers{{{part}}}"));
            note
        };
        for part in ["a", "b"] {
            assert_eq!(c.observe(&of(part, 0)), Verdict::First { message: "already present".into() }, "{part}");
            c.written(&of(part, 0), format!("pod.{part}"));
        }
        assert!(matches!(c.observe(&of("a", 1)), Verdict::Again { count: 2, name, .. } if name == "pod.a"));
    }

    #[test]
    fn an_event_that_was_not_written_is_new_again() {
        let mut c = Correlator::default();
        c.observe(&note("a", "m", 0));
        assert_eq!(c.observe(&note("a", "m", 1)), Verdict::First { message: "m".into() });
    }

    #[test]
    fn many_messages_of_one_kind_are_combined() {
        let mut c = Correlator::default();
        for i in 0..10 {
            let n = note("a", &format!("m{i}"), i);
            assert_eq!(c.observe(&n), Verdict::First { message: format!("m{i}") });
            c.written(&n, format!("a.{i}"));
        }
        let n = note("a", "m10", 10);
        assert_eq!(c.observe(&n), Verdict::First { message: "(combined from similar events): m10".into() });
        c.written(&n, "a.c".into());
        assert!(matches!(c.observe(&note("a", "m11", 11)), Verdict::Again { count: 2, name, .. } if name == "a.c"));
        assert!(matches!(c.observe(&note("a", "m3", 12)), Verdict::Again { count: 2, name, .. } if name == "a.3"));
        assert_eq!(c.observe(&note("b", "m12", 12)), Verdict::First { message: "m12".into() });
        assert_eq!(c.observe(&note("a", "m13", 700)), Verdict::First { message: "m13".into() });
    }

    #[test]
    fn an_object_has_25_events_and_then_one_in_five_minutes() {
        let mut c = Correlator::default();
        let told = (0..40).filter(|_| c.observe(&note("a", "m", 0)) != Verdict::Spam).count();
        assert_eq!(told, 25);
        assert_ne!(c.observe(&note("b", "m", 0)), Verdict::Spam);
        assert_ne!(c.observe(&Note { kind: EventType::Warning, ..note("a", "m", 0) }), Verdict::Spam);
        assert_eq!(c.observe(&note("a", "m", 299)), Verdict::Spam);
        assert_ne!(c.observe(&note("a", "m", 301)), Verdict::Spam);
        assert_eq!(c.observe(&note("a", "m", 302)), Verdict::Spam);
    }

    #[test]
    fn memory_is_bounded() {
        let mut c = Correlator::default();
        for i in 0..3_000 {
            c.observe(&note(&i.to_string(), "m", i));
        }
        assert_eq!((c.budgets.0.len(), c.groups.0.len(), c.series.0.len()), (MEMORY_ENTRIES, MEMORY_ENTRIES, MEMORY_ENTRIES));
    }
}
