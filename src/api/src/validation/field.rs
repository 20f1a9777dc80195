//! A field under validation: its value, where it is, and what is found wrong with it.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde_json::Value;

use crate::status::Cause;

/// Causes in one answer; upstream has no bound, but nobody reads more.
const MAX_CAUSES: usize = 1000;

/// Where a field is.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
    Key(&'a Place<'a>, &'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Member(Place::Root, name) => f.write_str(name),
            Place::Member(parent, name) => write!(f, "{parent}.{name}"),
            Place::Element(parent, index) => write!(f, "{parent}[{index}]"),
            Place::Key(parent, key) => write!(f, "{parent}[{key}]"),
        }
    }
}

/// Which of these came before: lists may be long, and each would be compared with each.
pub(super) fn doubles<'v>(list: impl IntoIterator<Item = &'v Value>) -> Vec<bool> {
    let mut seen = HashSet::new();
    list.into_iter().map(|value| !seen.insert(value.to_string())).collect()
}

/// A value at its place; `null` stands for what is absent.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    value: &'a Value,
    place: Place<'a>,
    causes: &'a RefCell<Vec<Cause>>,
}

impl<'a> Field<'a> {
    /// The object itself.
    pub(super) fn root(value: &'a Value, causes: &'a RefCell<Vec<Cause>>) -> Self {
        Self { value, place: Place::Root, causes }
    }

    /// A member of this object.
    pub(super) fn at<'b>(&'b self, name: &'b str) -> Field<'b> {
        Field { value: &self.value[name], place: Place::Member(&self.place, name), causes: self.causes }
    }

    /// This place, under a name that the value does not have: upstream's paths are not always those of the object.
    pub(super) fn called<'b>(&'b self, name: &'b str) -> Field<'b> {
        Field { value: self.value, place: Place::Member(&self.place, name), causes: self.causes }
    }

    /// Another value at this place.
    pub(super) fn holding<'b>(&'b self, value: &'b Value) -> Field<'b> {
        Field { value, place: self.place, causes: self.causes }
    }

    /// A value of this map, whose path has the key in brackets.
    pub(super) fn key<'b>(&'b self, key: &'b str) -> Field<'b> {
        Field { value: &self.value[key], place: Place::Key(&self.place, key), causes: self.causes }
    }

    /// Each element of this list.
    pub(super) fn each(&self, mut check: impl FnMut(usize, Field<'_>)) {
        for (i, value) in self.list().iter().enumerate() {
            check(i, Field { value, place: Place::Element(&self.place, i), causes: self.causes });
        }
    }

    /// Each value of this map.
    pub(super) fn each_key(&self, mut check: impl FnMut(&str, Field<'_>)) {
        for (key, value) in self.value.as_object().into_iter().flatten() {
            check(key, Field { value, place: Place::Key(&self.place, key), causes: self.causes });
        }
    }

    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    pub(super) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    pub(super) fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub(super) fn list(&self) -> &'a [Value] {
        self.value.as_array().map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn is_true(&self) -> bool {
        self.value == true
    }

    /// Given at all.
    pub(super) fn exists(&self) -> bool {
        !self.value.is_null()
    }

    /// Absent, or with nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        }
    }

    /// Causes found so far, anywhere.
    pub(super) fn found(&self) -> usize {
        self.causes.borrow().len()
    }

    fn cause(&self, reason: &'static str, message: String) {
        let mut causes = self.causes.borrow_mut();
        if causes.len() < MAX_CAUSES {
            causes.push(Cause { reason, field: self.place.to_string(), message });
        }
    }

    /// Where this is.
    pub(super) fn path(&self) -> String {
        self.place.to_string()
    }

    /// Not wrong, but worth telling whoever wrote it: see [`super::warnings`].
    pub(super) fn warn(&self, why: impl Into<String>) {
        self.cause("Warning", why.into());
    }

    fn shown(&self) -> String {
        const SHOWN: usize = 200;
        let text = match self.value {
            Value::Null => "\"\"".to_owned(),
            value => value.to_string(),
        };
        if text.len() <= SHOWN { text } else { format!("{}...", text.chars().take(SHOWN).collect::<String>()) }
    }

    pub(super) fn required(&self, why: &str) {
        self.cause("FieldValueRequired", if why.is_empty() { "Required value".into() } else { format!("Required value: {why}") });
    }

    pub(super) fn invalid(&self, why: &str) {
        self.cause("FieldValueInvalid", format!("Invalid value: {}: {why}", self.shown()));
    }

    pub(super) fn not_supported(&self, allowed: &[&str]) {
        let quoted: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        self.cause("FieldValueNotSupported", format!("Unsupported value: {}: supported values: {}", self.shown(), quoted.join(", ")));
    }

    pub(super) fn duplicate(&self) {
        self.cause("FieldValueDuplicate", format!("Duplicate value: {}", self.shown()));
    }

    pub(super) fn forbidden(&self, why: &str) {
        self.cause("FieldValueForbidden", format!("Forbidden: {why}"));
    }

    pub(super) fn not_found(&self) {
        self.cause("FieldValueNotFound", format!("Not found: {}", self.shown()));
    }

    /// Of another type, or not in the format.
    pub(super) fn type_invalid(&self, wanted: &str) {
        self.cause("FieldValueTypeInvalid", format!("Invalid value: {}: must be of type {wanted}", self.shown()));
    }

    /// With a reason of the rule's own.
    pub(super) fn because(&self, reason: &'static str, why: &str) {
        let prefix = match reason {
            "FieldValueRequired" => "Required value".to_owned(),
            "FieldValueForbidden" => "Forbidden".to_owned(),
            "FieldValueDuplicate" => format!("Duplicate value: {}", self.shown()),
            _ => format!("Invalid value: {}", self.shown()),
        };
        self.cause(reason, format!("{prefix}: {why}"));
    }

    /// At another place than this one.
    pub(super) fn elsewhere(&self, place: &str, reason: &'static str, why: &str) {
        let mut causes = self.causes.borrow_mut();
        if causes.len() < MAX_CAUSES {
            causes.push(Cause { reason, field: place.to_owned(), message: format!("Forbidden: {why}") });
        }
    }

    /// Of the whole object, at no place that upstream could name.
    pub(super) fn nowhere(&self, why: &str) {
        let mut causes = self.causes.borrow_mut();
        if causes.len() < MAX_CAUSES {
            causes.push(Cause { reason: "FieldValueInvalid", field: "<nil>".into(), message: format!("Invalid value: {why}") });
        }
    }

    /// Of the causes found so far.
    pub(super) fn reasons(&self) -> Vec<&'static str> {
        self.causes.borrow().iter().map(|cause| cause.reason).collect()
    }

    pub(super) fn too_long(&self, limit: usize) {
        self.cause("FieldValueTooLong", format!("Too long: may not be more than {limit} bytes"));
    }

    pub(super) fn too_many(&self, limit: usize) {
        self.cause("FieldValueTooMany", format!("Too many: {}: must have at most {limit} items", self.list().len()));
    }

    /// Every message of a check is a cause of its own.
    pub(super) fn all_invalid(&self, messages: impl IntoIterator<Item = String>) {
        messages.into_iter().for_each(|message| self.invalid(&message));
    }

    pub(super) fn valid_by(&self, check: impl Fn(&str) -> Result<(), String>) {
        if let Err(message) = check(self.text()) {
            self.invalid(&message);
        }
    }

    /// Must be given; whether it is.
    pub(super) fn must_exist(&self) -> bool {
        if self.is_empty() {
            self.required("");
        }
        !self.is_empty()
    }

    /// Given, and then by this rule.
    pub(super) fn must_be_valid(&self, check: impl Fn(&str) -> Result<(), String>) {
        if self.must_exist() {
            self.valid_by(check);
        }
    }

    /// By this rule if given.
    pub(super) fn may_be_valid(&self, check: impl Fn(&str) -> Result<(), String>) {
        if !self.is_empty() {
            self.valid_by(check);
        }
    }

    /// One of these, also when empty.
    pub(super) fn one_of(&self, allowed: &[&str]) {
        if !allowed.contains(&self.text()) {
            self.not_supported(allowed);
        }
    }

    /// One of these; required.
    pub(super) fn required_one_of(&self, allowed: &[&str]) {
        if self.must_exist() {
            self.one_of(allowed);
        }
    }

    /// One of these if given; the empty text is a value.
    pub(super) fn optional_one_of(&self, allowed: &[&str]) {
        if self.exists() {
            self.one_of(allowed);
        }
    }

    pub(super) fn not_negative(&self) {
        if self.number() < 0 {
            self.invalid("must be greater than or equal to 0");
        }
    }

    pub(super) fn positive(&self) {
        if self.number() <= 0 {
            self.invalid("must be greater than 0");
        }
    }

    /// Between these, if given.
    pub(super) fn within(&self, low: i64, high: i64) {
        if self.exists() && !(low..=high).contains(&self.number()) {
            self.invalid(&format!("must be between {low} and {high}, inclusive"));
        }
    }
}
