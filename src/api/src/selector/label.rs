//! Label selectors: the text of `?labelSelector=` and the `matchLabels`/`matchExpressions` of objects.

use std::{collections::BTreeMap, fmt};

use serde_json::Value;

use crate::names;

/// More requirements than this are refused: each is checked against every object of a list.
const MAX_REQUIREMENTS: usize = 1000;

/// All requirements must hold; none means everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// In the order they were written.
    pub requirements: Vec<Requirement>,
}

/// What one label must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What its value must be.
    pub operator: Operator,
}

/// What a label's value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Present, with one of these.
    In(Vec<String>),
    /// Absent, or with none of these.
    NotIn(Vec<String>),
    /// Present.
    Exists,
    /// Absent.
    DoesNotExist,
    /// Present, a number above this.
    GreaterThan(i64),
    /// Present, a number below this.
    LessThan(i64),
}

/// Why a text or an object is no label selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to parse requirement: {0}")]
pub struct LabelSelectorError(pub String);

impl LabelSelector {
    /// One label with one value.
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { requirements: vec![Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }] }
    }

    /// Reads `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1,j<2`.
    pub fn parse(text: &str) -> Result<Self, LabelSelectorError> {
        let mut parser = Parser { rest: text };
        let mut requirements = Vec::new();
        parser.skip_space();
        while !parser.rest.is_empty() {
            let requirement = parser.requirement()?;
            requirement.check()?;
            requirements.push(requirement);
            if requirements.len() > MAX_REQUIREMENTS {
                return Err(LabelSelectorError(format!("more than {MAX_REQUIREMENTS} requirements")));
            }
            parser.skip_space();
            if parser.rest.is_empty() {
                break;
            }
            if !parser.take(",") {
                return Err(LabelSelectorError(format!("found '{}', expected: ',' or 'end of string'", parser.rest)));
            }
            parser.skip_space();
            if parser.rest.is_empty() {
                return Err(LabelSelectorError("found '', expected: identifier after ','".into()));
            }
        }
        Ok(Self { requirements })
    }

    /// Reads a `LabelSelector` object; an empty one means everything (a missing one, nothing: the caller's case).
    pub fn from_value(value: &Value) -> Result<Self, LabelSelectorError> {
        let mut requirements = Vec::new();
        for (key, want) in value["matchLabels"].as_object().into_iter().flatten() {
            let want = want.as_str().ok_or_else(|| LabelSelectorError(format!("matchLabels[{key}] is not a string")))?;
            requirements.push(Requirement { key: key.clone(), operator: Operator::In(vec![want.to_owned()]) });
        }
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            requirements.push(from_expression(expression)?);
        }
        requirements.iter().try_for_each(Requirement::check)?;
        Ok(Self { requirements })
    }

    /// Whether nothing is excluded.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object with these labels is meant.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| r.matches(get(&r.key)))
    }

    /// As [`Self::matches`], for labels in a map.
    pub fn matches_map(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    /// As [`Self::matches`], for the `metadata.labels` of an object.
    pub fn matches_value(&self, labels: &Value) -> bool {
        self.matches(|key| labels.get(key).and_then(Value::as_str))
    }
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        match &self.operator {
            Operator::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Operator::NotIn(set) => value.is_none_or(|v| set.iter().all(|s| s != v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => value.and_then(number).is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => value.and_then(number).is_some_and(|n| n < *bound),
        }
    }

    fn check(&self) -> Result<(), LabelSelectorError> {
        names::qualified(&self.key).map_err(|e| LabelSelectorError(format!("key {:?}: {e}", self.key)))?;
        if let Operator::In(values) | Operator::NotIn(values) = &self.operator {
            for value in values {
                names::label_value(value).map_err(|e| LabelSelectorError(format!("values[{value:?}] of key {:?}: {e}", self.key)))?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0])?,
                Operator::In(values) => write!(f, "{key} in ({})", values.join(","))?,
                Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0])?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(","))?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan(bound) => write!(f, "{key}>{bound}")?,
                Operator::LessThan(bound) => write!(f, "{key}<{bound}")?,
            }
        }
        Ok(())
    }
}

fn from_expression(expression: &Value) -> Result<Requirement, LabelSelectorError> {
    let key = expression["key"].as_str().unwrap_or_default().to_owned();
    let values: Vec<String> = expression["values"].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let operator = match (expression["operator"].as_str().unwrap_or_default(), values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("In" | "NotIn", true) => {
            return Err(LabelSelectorError(format!("for 'in', 'notin' operators, values set can't be empty (key {key:?})")));
        }
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        ("Exists" | "DoesNotExist", false) => {
            return Err(LabelSelectorError(format!("values set must be empty for exists and does not exist (key {key:?})")));
        }
        (other, _) => return Err(LabelSelectorError(format!("{other:?} is not a valid label selector operator"))),
    };
    Ok(Requirement { key, operator })
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find([' ', '\t', '\n', '\r', '=', '!', ',', '(', ')', '<', '>']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn requirement(&mut self) -> Result<Requirement, LabelSelectorError> {
        let absent = self.take("!");
        let key = self.word().to_owned();
        if key.is_empty() {
            return Err(LabelSelectorError(format!("found '{}', expected: !, identifier, or 'end of string'", self.rest)));
        }
        self.skip_space();
        if absent {
            return Ok(Requirement { key, operator: Operator::DoesNotExist });
        }
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return Ok(Requirement { key, operator: Operator::Exists });
        }
        let operator = if self.take("==") || self.take("=") {
            Operator::In(vec![self.word().to_owned()])
        } else if self.take("!=") {
            Operator::NotIn(vec![self.word().to_owned()])
        } else if self.take(">") {
            Operator::GreaterThan(self.number()?)
        } else if self.take("<") {
            Operator::LessThan(self.number()?)
        } else {
            match self.word() {
                "in" => Operator::In(self.set()?),
                "notin" => Operator::NotIn(self.set()?),
                found => return Err(LabelSelectorError(format!("found '{found}', expected: in, notin, =, ==, !=, gt, lt"))),
            }
        };
        Ok(Requirement { key, operator })
    }

    fn number(&mut self) -> Result<i64, LabelSelectorError> {
        let word = self.word();
        word.parse().map_err(|_| LabelSelectorError(format!("for 'Gt', 'Lt' operators, the value must be an integer, not {word:?}")))
    }

    fn set(&mut self) -> Result<Vec<String>, LabelSelectorError> {
        self.skip_space();
        if !self.take("(") {
            return Err(LabelSelectorError(format!("found '{}', expected: '('", self.rest)));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_owned());
            self.skip_space();
            if self.take(")") {
                return Ok(values);
            }
            if !self.take(",") {
                return Err(LabelSelectorError(format!("found '{}', expected: ',' or ')'", self.rest)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(selector: &str, yes: &[Value], no: &[Value]) {
        let parsed = LabelSelector::parse(selector).unwrap_or_else(|e| panic!("{selector}: {e}"));
        yes.iter().for_each(|labels| assert!(parsed.matches_value(labels), "{selector} means {labels}"));
        no.iter().for_each(|labels| assert!(!parsed.matches_value(labels), "{selector} does not mean {labels}"));
        assert_eq!(LabelSelector::parse(&parsed.to_string()), Ok(parsed), "{selector} prints as it reads");
    }

    #[test]
    fn text_means_objects() {
        let (a, b, none) = (json!({"x": "a"}), json!({"x": "b", "n": "5"}), json!({}));
        check("", &[a.clone(), none.clone()], &[]);
        check("x=a", std::slice::from_ref(&a), &[b.clone(), none.clone()]);
        check("x == a", std::slice::from_ref(&a), &[b.clone(), none.clone()]);
        check("x!=a", &[b.clone(), none.clone()], std::slice::from_ref(&a));
        check("x in (a, b)", &[a.clone(), b.clone()], std::slice::from_ref(&none));
        check("x notin (a)", &[b.clone(), none.clone()], std::slice::from_ref(&a));
        check("x", &[a.clone(), b.clone()], std::slice::from_ref(&none));
        check("!x", std::slice::from_ref(&none), &[a.clone(), b.clone()]);
        check("n>4,n<6", std::slice::from_ref(&b), std::slice::from_ref(&a));
        check("x=,y in ()", &[json!({"x": "", "y": ""})], &[a]);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x=a,", ",", "x y", "x in a", "x in (a", "=a", "!", "x>a", "x=a b", "-x=a", "x=-a", "a/b/c=d"] {
            assert!(LabelSelector::parse(text).is_err(), "{text:?}");
        }
        for value in [
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            json!({"matchLabels": {"a": 1}}),
        ] {
            assert!(LabelSelector::from_value(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn objects_say_the_same_as_text() {
        let value = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d", "e"]}]});
        assert_eq!(LabelSelector::from_value(&value), LabelSelector::parse("a=b,c notin (d,e)"));
    }
}
