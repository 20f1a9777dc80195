//! `matchConditions` of policies and webhooks: expressions that must all hold for a write to be theirs.

use std::time::Instant;

use coracle_api::cel::{
    Program,
    environment::{CONDITION, Compiler, Environment},
    scope::{CONDITIONS_BUDGET, Variable},
};
use serde_json::Value;

use super::Input;
use crate::metrics::admission::{Admission, Named};

/// Conditions, read once.
#[derive(Debug, Default)]
pub struct MatchConditions {
    list: Vec<Condition>,
}

#[derive(Debug)]
struct Condition {
    name: Box<str>,
    source: Box<str>,
    /// The text says why it cannot be read.
    program: Result<Program, String>,
}

/// What the conditions say of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// All hold.
    Holds,
    /// One does not; this is its name.
    Excluded(String),
    /// None says no, and some went wrong: failurePolicy decides. The text is for people.
    Failed(String),
}

impl MatchConditions {
    /// Reads the conditions of a webhook.
    pub fn of_webhook(conditions: &Value) -> Self {
        Self::read(conditions, &Compiler::default(), Environment { authorizer: true, ..Environment::default() })
    }

    /// Reads conditions in an environment.
    pub fn read(conditions: &Value, compiler: &Compiler<'_>, environment: Environment) -> Self {
        let read = |condition: &Value| {
            let source = condition["expression"].as_str().unwrap_or_default();
            Condition {
                name: condition["name"].as_str().unwrap_or_default().into(),
                source: source.into(),
                program: compiler.compile(source, environment, &CONDITION).map_err(|error| error.to_string()),
            }
        };
        Self { list: conditions.as_array().into_iter().flatten().map(read).collect() }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Asks all of them, and counts that. One that does not hold decides, whatever goes wrong in others.
    pub fn judge(&self, input: &Input<'_>, variables: &[Variable], metrics: &Admission, whose: Named<'_>) -> Match {
        if self.list.is_empty() {
            return Match::Holds;
        }
        let (start, mut wrong) = (Instant::now(), Vec::new());
        let verdict = self.ask(input, variables, &mut wrong);
        metrics.conditions(whose, start.elapsed(), wrong.len(), matches!(verdict, Match::Excluded(_)));
        match (verdict, wrong.len()) {
            (Match::Holds, 1) => Match::Failed(wrong.remove(0)),
            (Match::Holds, 2..) => Match::Failed(format!("[{}]", wrong.join(", "))),
            (verdict, _) => verdict,
        }
    }

    /// Holds, where nothing says no; what goes wrong is in `wrong`.
    fn ask(&self, input: &Input<'_>, variables: &[Variable], wrong: &mut Vec<String>) -> Match {
        let scope = input.scope(variables, CONDITIONS_BUDGET);
        for condition in &self.list {
            let answer = match &condition.program {
                Ok(program) => scope.ask(program, &condition.source).map_err(|error| error.to_string()),
                Err(why) => Err(format!("compilation failed: {why}")),
            };
            match answer {
                Ok(value) if value.is_true() => {}
                Ok(_) => return Match::Excluded(condition.name.to_string()),
                Err(why) => wrong.push(why),
            }
        }
        Match::Holds
    }
}
