//! `x-kubernetes-validations`: a rule in CEL, what it is asked of, and what is said when it is broken.

use serde_json::Value;

use super::checks::Checks;
use crate::cel::{self, EvalError, Program, Type};

/// What one rule may cost. Upstream's bound of a call.
const RULE_BUDGET: u64 = 1_000_000;
/// What all rules of one object may cost together. Upstream's bound.
const OBJECT_BUDGET: u64 = 10_000_000;
/// Longest message that an expression may make, in bytes. Upstream's bound.
const MAX_MESSAGE_BYTES: usize = 5 << 10;

/// Reasons that a rule may give.
pub const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What is left to spend on one object.
#[derive(Debug)]
pub struct Budget(u64);

impl Default for Budget {
    fn default() -> Self {
        Self(OBJECT_BUDGET)
    }
}

/// What a rule says of a value.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, or has nothing to say.
    Holds,
    /// It is not kept.
    Broken {
        /// For people.
        message: String,
    },
    /// The budget of the object is spent.
    Spent,
}

/// A rule, read once.
#[derive(Debug)]
pub struct Rule {
    program: Result<Program, cel::CompileError>,
    message_program: Option<Result<Program, cel::CompileError>>,
    source: Box<str>,
    message: Box<str>,
    /// What the cause says.
    pub reason: &'static str,
    /// Names of the field below the value at which the cause is told.
    pub field_path: Box<[String]>,
    /// It looks at what the value was before.
    pub compares: bool,
    optional_old: bool,
}

impl Rule {
    /// Reads a rule for values with these checks. One that cannot be read is never kept, and says why.
    pub fn read(source: &Value, checks: &Checks) -> Self {
        let text = |name: &str| source[name].as_str().unwrap_or_default().trim();
        let optional_old = source["optionalOldSelf"] == true;
        // Which object is the root is not known here: all have metadata.
        let found = Type::of(checks, true).unwrap_or(Type::Dyn);
        let old = if optional_old { Type::Optional(std::rc::Rc::new(found.clone())) } else { found.clone() };
        let variables = [("self", found), ("oldSelf", old)];
        let program = Program::exact(text("rule"), &variables, &[Type::BOOL]);
        let message_program =
            Some(text("messageExpression")).filter(|m| !m.is_empty()).map(|m| Program::exact(m, &variables, &[Type::STRING]));
        let compares = program.as_ref().is_ok_and(|p| p.mentions("oldSelf"));
        let reason = REASONS.iter().find(|r| **r == text("reason")).copied().unwrap_or("FieldValueInvalid");
        Self {
            program,
            message_program,
            source: text("rule").into(),
            message: text("message").into(),
            reason,
            field_path: super::paths::names(text("fieldPath")).unwrap_or_default().into(),
            compares,
            optional_old,
        }
    }

    /// Why the rule cannot be read.
    pub fn error(&self) -> Option<String> {
        self.program.as_ref().err().map(ToString::to_string)
    }

    /// Why the expression of its message cannot be read.
    pub fn message_error(&self) -> Option<String> {
        self.message_program.as_ref()?.as_ref().err().map(ToString::to_string)
    }

    /// What the rule and the expression of its message cost at most for one value.
    pub fn most_cost(&self, checks: &Checks) -> (u64, u64) {
        let message = self.message_program.as_ref().and_then(|program| program.as_ref().ok());
        (self.program.as_ref().map_or(0, |p| p.most_cost(checks)), message.map_or(0, |p| p.most_cost(checks)))
    }

    /// Asks the rule of a value and what it was before.
    pub fn ask(&self, checks: &Checks, new: &Value, old: Option<&Value>, budget: &mut Budget) -> Verdict {
        if self.compares && old.is_none() && !self.optional_old {
            return Verdict::Holds;
        }
        let program = match &self.program {
            Ok(program) => program,
            Err(error) => return Verdict::Broken { message: format!("the rule cannot be read: {error}") },
        };
        let mut variables = vec![("self", cel::Value::of(new, Some(checks)))];
        let before = old.map(|old| cel::Value::of(old, Some(checks)));
        match (self.optional_old, before) {
            (true, before) => variables.push(("oldSelf", cel::Value::Optional(before.map(std::rc::Rc::new)))),
            (false, Some(before)) => variables.push(("oldSelf", before)),
            (false, None) => {}
        }
        let mut ask = |program: &Program| -> Result<Option<String>, EvalError> {
            let allowed = RULE_BUDGET.min(budget.0);
            let mut left = allowed;
            let answer = program
                .ask(&variables, &mut left)
                .map(|v| if v.is_true() { None } else { Some(v.as_text().unwrap_or_default().to_owned()) });
            budget.0 -= allowed - left;
            answer
        };
        match ask(program) {
            Ok(None) => Verdict::Holds,
            Ok(Some(_)) => {
                let made = self.message_program.as_ref().and_then(|p| p.as_ref().ok()).and_then(|p| ask(p).ok().flatten());
                let made = made.filter(|m| !m.trim().is_empty() && m.len() <= MAX_MESSAGE_BYTES && !m.contains('\n'));
                let own = Some(&*self.message).filter(|m| !m.is_empty()).map(str::to_owned);
                Verdict::Broken { message: made.or(own).unwrap_or_else(|| format!("failed rule: {}", self.source)) }
            }
            Err(EvalError::Spent) => Verdict::Spent,
            Err(error) => Verdict::Broken { message: format!("rule: {}: {error}", self.source) },
        }
    }
}
