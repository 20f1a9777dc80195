//! The Common Expression Language as Kubernetes has it: parsed and checked once, asked often, and never for longer than a budget allows.
//!
//! Follows the language definition of cel-spec and the libraries that Kubernetes 1.36 documents. What a schema types is read as it types it.

mod ast;
pub mod authorizer;
mod check;
mod cost;
pub mod environment;
pub mod estimate;
mod eval;
mod functions;
mod kubernetes;
mod lexer;
mod parser;
pub mod scope;
mod signatures;
pub mod typecheck;
mod types;
mod value;

use crate::custom::checks::Checks;
use ast::Expr;
pub use types::Type;
pub(crate) use value::RESERVED;
pub use value::Value;

/// Characters of an expression; longer ones are refused. Upstream's parser has a bound of the same size.
pub const MAX_SOURCE_CHARS: usize = 100_000;

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Longer than allowed.
    #[error("the expression is longer than {MAX_SOURCE_CHARS} characters")]
    TooLong,
    /// It cannot be read.
    #[error("syntax error at {at}: {why}")]
    Syntax {
        /// Character, from 0.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// It makes no sense of what it is asked of.
    #[error("{0}")]
    Type(String),
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// What went wrong.
    #[error("{0}")]
    Failed(String),
    /// The budget is spent.
    #[error("the expression costs too much")]
    Spent,
}

/// An expression that was parsed and checked.
#[derive(Debug)]
pub struct Program {
    expr: Expr,
}

impl Program {
    /// Reads an expression over variables of these types. What may turn out to be one of the results will do.
    pub fn compile(source: &str, variables: &[(&str, Type<'_>)], results: &[Type<'_>]) -> Result<Self, CompileError> {
        let (program, found) = Self::typed(source, variables, false)?;
        if results.iter().any(|wanted| check::fits(&found, wanted)) { Ok(program) } else { Err(unwanted(&found, results)) }
    }

    /// The same, but what it gives must be known to be one of the results, as upstream's policies and rules demand.
    pub fn exact(source: &str, variables: &[(&str, Type<'_>)], results: &[Type<'_>]) -> Result<Self, CompileError> {
        let (program, found) = Self::typed(source, variables, false)?;
        if results.iter().any(|wanted| found.is_exactly(wanted)) { Ok(program) } else { Err(unwanted(&found, results)) }
    }

    /// Reads an expression and says what it gives; `makes`: it may make objects by name.
    fn typed<'c>(source: &str, variables: &[(&str, Type<'c>)], makes: bool) -> Result<(Self, Type<'c>), CompileError> {
        if source.chars().count() > MAX_SOURCE_CHARS {
            return Err(CompileError::TooLong);
        }
        let expr = parser::parse(source)?;
        let found = check::of(&expr, variables, makes).map_err(CompileError::Type)?;
        Ok((Self { expr }, found))
    }

    /// What it costs at most for one value of `self` with these rules.
    pub fn most_cost(&self, own: &Checks) -> u64 {
        estimate::most_cost(&self.expr, own)
    }

    /// Whether the expression speaks of a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.expr.mentions(variable)
    }

    /// What it says of these values; takes its cost from the budget.
    pub fn ask<'v>(&'v self, variables: &[(&'v str, Value<'v>)], budget: &mut u64) -> Result<Value<'v>, EvalError> {
        eval::run(&self.expr, variables, None, budget)
    }
}

fn unwanted(found: &Type<'_>, results: &[Type<'_>]) -> CompileError {
    let wanted: Vec<String> = results.iter().map(ToString::to_string).collect();
    CompileError::Type(format!("must evaluate to {} but got {found}", wanted.join(" or ")))
}

#[cfg(test)]
mod tests;
