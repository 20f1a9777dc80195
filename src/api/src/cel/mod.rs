//! The Common Expression Language as Kubernetes has it: parsed and checked once, asked often, and never for longer than a budget allows.
//!
//! Follows the language definition of cel-spec and the libraries that Kubernetes 1.36 documents. What a schema types is read as it types it.

mod ast;
mod check;
mod eval;
mod functions;
mod kubernetes;
mod lexer;
mod parser;
mod types;
mod value;

use ast::Expr;
pub use types::Type;
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
    /// Reads an expression over variables of these types.
    pub fn compile(source: &str, variables: &[(&str, Type<'_>)], results: &[Type<'_>]) -> Result<Self, CompileError> {
        if source.chars().count() > MAX_SOURCE_CHARS {
            return Err(CompileError::TooLong);
        }
        let expr = parser::parse(source)?;
        let found = check::of(&expr, variables).map_err(CompileError::Type)?;
        if !results.iter().any(|wanted| check::fits(&found, wanted)) {
            let wanted: Vec<String> = results.iter().map(ToString::to_string).collect();
            return Err(CompileError::Type(format!("must evaluate to {}, not {found}", wanted.join(" or "))));
        }
        Ok(Self { expr })
    }

    /// Whether the expression speaks of a variable.
    pub fn mentions(&self, variable: &str) -> bool {
        self.expr.mentions(variable)
    }

    /// What it says of these values; takes its cost from the budget.
    pub fn ask<'v>(&'v self, variables: &[(&'v str, Value<'v>)], budget: &mut u64) -> Result<Value<'v>, EvalError> {
        eval::run(&self.expr, variables, budget)
    }
}

#[cfg(test)]
mod tests;
