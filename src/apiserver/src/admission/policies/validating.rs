//! ValidatingAdmissionPolicy (KEP-3488): expressions that a write must satisfy, else it is refused, warned of or noted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use coracle_api::{
    cel::{
        Program, Value as Cel,
        environment::{ANNOTATION, CONDITION, Compiler, Environment, MESSAGE},
        scope::{AskError, POLICY_BUDGET, Scope},
    },
    status::{Cause, Status},
};
use serde_json::{Value, json};

use super::{Binding, Book, Bound, Kind, Policy, Wrong, converted, gather, is_exempt, namespace_of};
use crate::{
    admission::{
        Attributes, Plugin, Say,
        expressions::{Asker, Input, conditions::Match, request},
        refuse,
    },
    authorization::Authorizers,
    metrics::admission::Check,
    objects::Objects,
};

/// Longest message that an expression may make, in bytes. Upstream's bound.
const MAX_MESSAGE_BYTES: usize = 5 << 10;
/// Longest value of an audit annotation, in bytes; what is longer is cut. Upstream's bound.
const MAX_ANNOTATION_BYTES: usize = 10 << 10;
/// The audit annotation of what the action Audit has found.
const FAILURE_ANNOTATION: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The plugin.
#[derive(Debug)]
pub struct ValidatingAdmissionPolicy {
    book: Book<Validations>,
    authorizers: Arc<Authorizers>,
}

/// What a policy demands.
#[derive(Debug)]
pub struct Validations {
    list: Vec<Validation>,
    annotations: Vec<Annotation>,
}

#[derive(Debug)]
struct Validation {
    source: String,
    program: Result<Program, String>,
    message: String,
    message_source: String,
    message_program: Option<Program>,
    reason: &'static str,
}

#[derive(Debug)]
struct Annotation {
    key: String,
    source: String,
    program: Result<Program, String>,
}

impl Kind for Validations {
    const POLICIES: &'static str = "validatingadmissionpolicies";
    const BINDINGS: &'static str = "validatingadmissionpolicybindings";
    const MUTATING: bool = false;

    fn read(spec: &Value, compiler: &Compiler<'_>, environment: Environment) -> Self {
        let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().trim().to_owned();
        let bare = Environment { authorizer: false, ..environment };
        let validation = |value: &Value| {
            let (source, message_source) = (text(value, "expression"), text(value, "messageExpression"));
            Validation {
                program: compiler.compile(&source, environment, &CONDITION).map_err(|error| error.to_string()),
                message_program: Some(&message_source).filter(|m| !m.is_empty()).and_then(|m| compiler.compile(m, bare, &MESSAGE).ok()),
                message: text(value, "message"),
                reason: match value["reason"].as_str() {
                    Some("Forbidden") => "Forbidden",
                    Some("RequestEntityTooLarge") => "RequestEntityTooLarge",
                    Some("Unauthorized") => "Unauthorized",
                    _ => "Invalid",
                },
                source,
                message_source,
            }
        };
        let annotation = |value: &Value| {
            let source = text(value, "valueExpression");
            let program = compiler.compile(&source, environment, &ANNOTATION).map_err(|error| error.to_string());
            Annotation { key: text(value, "key"), source, program }
        };
        let list = |name: &str| spec[name].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            list: list("validations").iter().map(validation).collect(),
            annotations: list("auditAnnotations").iter().map(annotation).collect(),
        }
    }
}

/// What is wrong with a write.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// Which of the validations it is.
    index: usize,
    reason: &'static str,
    message: String,
    fault: Fault,
}

/// What is counted of something wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fault {
    wrong: Wrong,
    /// Of the expression; none where none was asked.
    took: Duration,
}

/// What an expression says, and how long it took.
struct Answer<'v> {
    says: Result<Cel<'v>, AskError>,
    took: Duration,
}

/// What a policy says of a write with one parameter.
#[derive(Debug, Default)]
struct Verdict {
    failures: Vec<Failure>,
    /// What went wrong and does not count, as failurePolicy says.
    ignored: Vec<Fault>,
    /// Keys and values for the audit log.
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made: they refuse the write whatever the binding's actions are.
    broken: Vec<(String, Fault)>,
}

impl Policy<Validations> {
    /// Asks the policy.
    fn judge(&self, input: &Input<'_>, write: &Attributes<'_>) -> Verdict {
        match self.conditions.judge(input, &self.variables, write.metrics, self.named(write)) {
            Match::Holds => {}
            Match::Excluded(_) => return Verdict::default(),
            Match::Failed(why) => return self.failed(why, Fault { wrong: Wrong::Invalid, took: Duration::ZERO }),
        }
        let scope = input.scope(&self.variables, POLICY_BUDGET);
        let mut answers = Vec::with_capacity(self.does.list.len());
        for validation in &self.does.list {
            let answer = ask(&scope, &validation.program, &validation.source);
            if matches!(answer.says, Err(AskError::Exhausted)) {
                return self.failed(AskError::Exhausted.to_string(), Fault { wrong: Wrong::Budget, took: answer.took });
            }
            answers.push(answer);
        }
        let messages = input.scope(&self.variables, scope.left());
        let mut verdict = Verdict::default();
        for (index, (validation, Answer { says, took })) in self.does.list.iter().zip(answers).enumerate() {
            match says {
                Ok(value) if value.is_true() => {}
                Ok(_) => {
                    let message = validation.says(&messages);
                    let fault = Fault { wrong: Wrong::Invalid, took };
                    verdict.failures.push(Failure { index, reason: validation.reason, message, fault });
                }
                Err(error) => {
                    let fault = Fault { wrong: Wrong::of(&validation.program, &error), took };
                    let Verdict { failures, ignored, .. } = self.failed(error.to_string(), fault);
                    verdict.failures.extend(failures.into_iter().map(|f| Failure { index, ..f }));
                    verdict.ignored.extend(ignored);
                }
            }
        }
        self.annotate(input, &mut verdict);
        verdict
    }

    /// What failurePolicy makes of something that went wrong.
    fn failed(&self, message: String, fault: Fault) -> Verdict {
        match self.fails {
            true => Verdict { failures: vec![Failure { index: 0, reason: "Invalid", message, fault }], ..Verdict::default() },
            false => Verdict { ignored: vec![fault], ..Verdict::default() },
        }
    }

    fn annotate(&self, input: &Input<'_>, verdict: &mut Verdict) {
        if self.does.annotations.is_empty() {
            return;
        }
        let scope = input.scope(&self.variables, POLICY_BUDGET);
        for annotation in &self.does.annotations {
            let Answer { says, took } = ask(&scope, &annotation.program, &annotation.source);
            match says {
                Ok(value) => match value.as_text().map(str::trim) {
                    Some(text) if !text.is_empty() => verdict.annotations.push((annotation.key.clone(), cut(text).to_owned())),
                    _ => {}
                },
                Err(error) if self.fails => {
                    verdict.broken.push((error.to_string(), Fault { wrong: Wrong::of(&annotation.program, &error), took }));
                }
                Err(_) => {}
            }
        }
    }
}

fn ask<'v>(scope: &Scope<'v>, program: &'v Result<Program, String>, source: &str) -> Answer<'v> {
    let start = Instant::now();
    let says = match program {
        Ok(program) => scope.ask(program, source),
        Err(why) => Err(AskError::Failed { source_text: source.into(), why: format!("compilation failed: {why}") }),
    };
    Answer { says, took: start.elapsed() }
}

fn cut(text: &str) -> &str {
    let end = (0..=MAX_ANNOTATION_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

impl Validation {
    /// What is said when it does not hold: what its expression makes, else its message, else itself.
    fn says<'v>(&'v self, scope: &Scope<'v>) -> String {
        let made = self.message_program.as_ref().and_then(|program| scope.ask(program, &self.message_source).ok());
        let made = made.as_ref().and_then(Cel::as_text).map(str::trim);
        match made.filter(|m| !m.is_empty() && m.len() <= MAX_MESSAGE_BYTES && !m.contains('\n')) {
            Some(made) => made.to_owned(),
            None if !self.message.is_empty() => self.message.clone(),
            None => format!("failed expression: {}", self.source),
        }
    }
}

#[async_trait]
impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(known) = self.book.now(write.metrics).filter(|_| !is_exempt(write)) else { return Ok(()) };
        let mut refusals = Vec::new();
        for bound in &known.bound {
            self.consult(write, object, bound, &mut refusals).await?;
        }
        match refusals.into_iter().next() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }
}

impl ValidatingAdmissionPolicy {
    /// Over these objects.
    pub fn new(objects: Arc<dyn Objects>, authorizers: Arc<Authorizers>) -> Self {
        Self { book: Book::new(objects), authorizers }
    }

    /// Lets one policy have its say, by all of its bindings.
    async fn consult(
        &self,
        write: &Attributes<'_>,
        object: Option<&Value>,
        bound: &Bound<Validations>,
        refusals: &mut Vec<Status>,
    ) -> Result<(), Status> {
        let (policy, objects, mut misfits) = (&bound.0, &*self.book.objects, Vec::new());
        let asked = gather(write, object, bound, objects, &mut misfits);
        if policy.fails {
            refusals.extend(misfits.iter().map(|m| refusal(write, &policy.name, m.binding, "Invalid", &m.why)));
        }
        let Some(asked) = asked else { return Ok(()) };
        let namespace = namespace_of(write, objects)?;
        let new = converted(write, &asked.matched, object).await?;
        let old = converted(write, &asked.matched, write.old).await?;
        let request = request::of(write, &asked.matched);
        let authorizer = Asker { authorizers: &self.authorizers, user: write.user, info: write.info };
        for (binding, params) in &asked.by {
            let input = Input {
                object: new.as_ref().or(object),
                old: old.as_ref().or(write.old),
                request: &request,
                namespace: namespace.as_ref(),
                params: params.as_ref(),
                authorizer: &authorizer,
            };
            act(write, policy, binding, &policy.judge(&input, write), refusals);
        }
        Ok(())
    }
}

/// Does what a binding wants done about what is wrong.
fn act(write: &Attributes<'_>, policy: &Policy<Validations>, binding: &Binding, verdict: &Verdict, refusals: &mut Vec<Status>) {
    let actions = &binding.spec["validationActions"];
    let count = |fault: &Fault, action: &'static str| {
        let check = Check { policy: &policy.name, binding: &binding.name, fault: fault.wrong.word(), took: fault.took };
        write.metrics.validated(check, action);
    };
    verdict.ignored.iter().for_each(|fault| count(fault, "allow"));
    for failure in &verdict.failures {
        for action in actions.as_array().into_iter().flatten().filter_map(Value::as_str) {
            match action {
                "Deny" => {
                    count(&failure.fault, "deny");
                    refusals.push(refusal(write, &policy.name, Some(binding), failure.reason, &failure.message));
                }
                "Warn" => {
                    count(&failure.fault, "warn");
                    write.warnings.add(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                        policy.name, binding.name, failure.message
                    ));
                }
                "Audit" => {
                    count(&failure.fault, "audit");
                    let found = json!([{"message": failure.message, "policy": policy.name, "binding": binding.name,
                        "expressionIndex": failure.index, "validationActions": actions}]);
                    write.audit.add(FAILURE_ANNOTATION, found.to_string());
                }
                _ => {}
            }
        }
    }
    for (key, value) in &verdict.annotations {
        write.audit.add(&format!("{}/{key}", policy.name), value.as_str());
    }
    for (why, fault) in &verdict.broken {
        count(fault, "deny");
        refusals.push(refusal(write, &policy.name, Some(binding), "Invalid", why));
    }
}

/// The answer to a write that a policy does not let through.
fn refusal(write: &Attributes<'_>, policy: &str, binding: Option<&Binding>, reason: &'static str, why: &str) -> Status {
    let with = binding.map(|binding| format!(" with binding '{}'", binding.name)).unwrap_or_default();
    let message = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {why}");
    let mut status = refuse(write, &message);
    status.reason = reason;
    status.code = match reason {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    status.details.get_or_insert_default().causes = vec![Cause { reason: "", field: String::new(), message }];
    status
}
