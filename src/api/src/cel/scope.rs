//! What expressions of one policy are asked of: its values, its variables (each made when somebody first looks at it), and what is left to spend.

use std::cell::{Cell, RefCell};

use super::{EvalError, Program, Value, eval};

/// What one expression may cost. Upstream's bound.
pub const CALL_LIMIT: u64 = 1_000_000;
/// What all expressions of one policy and binding may cost together. Upstream's bound.
pub const POLICY_BUDGET: u64 = 10_000_000;
/// What all match conditions of one policy or webhook may cost together. Upstream's bound.
pub const CONDITIONS_BUDGET: u64 = 2_500_000;

/// Why an expression says nothing of these values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It went wrong.
    #[error("expression '{source_text}' resulted in error: {why}")]
    Failed {
        /// The expression.
        source_text: Box<str>,
        /// What went wrong.
        why: String,
    },
    /// Nothing is left to spend, for this and for what would come after it.
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    Exhausted,
}

type Answer<'v> = Result<Value<'v>, EvalError>;

/// The values that expressions are asked of.
#[derive(Debug)]
pub struct Scope<'v> {
    names: Vec<(&'v str, Value<'v>)>,
    variables: &'v [Variable],
    made: RefCell<Vec<Option<Answer<'v>>>>,
    budget: Cell<u64>,
}

/// A variable of a policy.
#[derive(Debug)]
pub struct Variable {
    /// How expressions call it.
    pub name: Box<str>,
    /// What it is; the text says why it cannot be read.
    pub program: Result<Program, String>,
}

impl<'v> Scope<'v> {
    /// Of these values, with this much to spend.
    pub fn new(names: Vec<(&'v str, Value<'v>)>, variables: &'v [Variable], budget: u64) -> Self {
        Self { names, variables, made: RefCell::new(vec![None; variables.len()]), budget: Cell::new(budget) }
    }

    /// What is left to spend.
    pub fn left(&self) -> u64 {
        self.budget.get()
    }

    /// What an expression says; `source` is its text, for errors.
    pub fn ask(&self, program: &'v Program, source: &str) -> Result<Value<'v>, AskError> {
        self.run(program).map_err(|error| match error {
            EvalError::Spent if self.budget.get() == 0 => AskError::Exhausted,
            error => AskError::Failed { source_text: source.into(), why: error.to_string() },
        })
    }

    fn run(&self, program: &'v Program) -> Answer<'v> {
        let allowed = CALL_LIMIT.min(self.budget.get());
        let mut left = allowed;
        let out = eval::run(&program.expr, &self.names, Some(self), &mut left);
        // What its variables have cost was taken meanwhile.
        match self.budget.get().checked_sub(allowed - left) {
            Some(rest) => {
                // Who has less than a call may cost, and it is not enough, has nothing left to speak of.
                let exhausted = allowed < CALL_LIMIT && matches!(out, Err(EvalError::Spent));
                self.budget.set(if exhausted { 0 } else { rest });
                out
            }
            None => {
                self.budget.set(0);
                Err(EvalError::Spent)
            }
        }
    }
}

impl<'v> eval::Fields<'v> for Scope<'v> {
    fn get(&self, name: &str) -> Option<Answer<'v>> {
        let at = self.variables.iter().rposition(|variable| *variable.name == *name)?;
        if let Some(known) = &self.made.borrow()[at] {
            return Some(known.clone());
        }
        // Two may have one name: then what speaks of the other speaks of itself.
        self.made.borrow_mut()[at] = Some(Err(EvalError::Failed(format!("variable {name:?} refers to itself"))));
        let out = match &self.variables[at].program {
            Ok(program) => self.run(program),
            Err(why) => Err(EvalError::Failed(format!("composited variable {name:?} fails to compile: {why}"))),
        };
        self.made.borrow_mut()[at] = Some(out.clone());
        Some(out)
    }
}
