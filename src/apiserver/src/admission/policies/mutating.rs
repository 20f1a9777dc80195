//! MutatingAdmissionPolicy (KEP-3962): expressions that make apply configurations or JSON patches for the object of a write.

use std::{collections::HashSet, sync::Arc, time::Instant};

use async_trait::async_trait;
use coracle_api::{
    apply::overlay,
    catalogue::Resource,
    cel::{
        Program, Value as Cel,
        environment::{Compiler, Environment, configuration, json_patch},
        scope::{POLICY_BUDGET, Scope, Variable},
    },
    defaulting, patch,
    status::{Cause, Status},
    structural,
};
use serde_json::{Map, Value};

use super::{Binding, Book, Bound, Kind, Policy, Wrong, converted, gather, is_exempt, is_whole, namespace_of};
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

/// Under this name the plugin keeps its notes of the first round.
const NAME: &str = "MutatingAdmissionPolicy";

/// The plugin.
#[derive(Debug)]
pub struct MutatingAdmissionPolicy {
    book: Book<Mutations>,
    authorizers: Arc<Authorizers>,
}

/// What a policy does to objects.
#[derive(Debug)]
pub struct Mutations {
    list: Vec<Mutation>,
    /// Wants to see what later ones change.
    again: bool,
}

#[derive(Debug)]
struct Mutation {
    form: Form,
    source: String,
    program: Result<Program, String>,
}

/// What an expression makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Configuration,
    JsonPatch,
}

impl Kind for Mutations {
    const POLICIES: &'static str = "mutatingadmissionpolicies";
    const BINDINGS: &'static str = "mutatingadmissionpolicybindings";
    const MUTATING: bool = true;

    fn read(spec: &Value, compiler: &Compiler<'_>, environment: Environment) -> Self {
        let environment = Environment { patches: true, ..environment };
        let mutation = |value: &Value| {
            let (form, part) = match value["patchType"].as_str() {
                Some("JSONPatch") => (Form::JsonPatch, "jsonPatch"),
                _ => (Form::Configuration, "applyConfiguration"),
            };
            let source = value[part]["expression"].as_str().unwrap_or_default().trim().to_owned();
            let made = match form {
                Form::Configuration => configuration(),
                Form::JsonPatch => json_patch(),
            };
            let program = compiler.compile(&source, environment, &made).map_err(|error| format!("compilation failed: {error}"));
            Mutation { form, source, program }
        };
        Self {
            list: spec["mutations"].as_array().into_iter().flatten().map(mutation).collect(),
            again: spec["reinvocationPolicy"] == "IfNeeded",
        }
    }
}

/// Who was asked, and who is to be asked again.
#[derive(Debug, Default)]
struct Memory {
    /// Asked since the last change, and wishing to see the next one.
    asked: HashSet<String>,
    /// To be asked in the second round.
    again: HashSet<String>,
    /// The object as the last round left it.
    left: Option<Value>,
}

impl Memory {
    /// The object has changed: who was asked before has not seen it so.
    fn changed(&mut self) {
        self.again.extend(self.asked.drain());
    }
}

/// Why a policy could not do what it says.
struct Refusal {
    message: String,
    /// Empty for what is wrong with the policy rather than with the write.
    reason: &'static str,
}

#[async_trait]
impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        NAME
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, object: &mut Value) -> Result<(), Status> {
        let Some(known) = self.book.now(write.metrics).filter(|_| !is_exempt(write)) else { return Ok(()) };
        let mut memory: Memory = write.rounds.take(NAME);
        if write.rounds.is_second() && memory.left.as_ref() != Some(object) {
            memory.changed();
        }
        let mut refusals = Vec::new();
        for bound in &known.bound {
            self.consult(write, object, bound, &mut memory, &mut refusals).await?;
        }
        // Who is not there to look again needs no memory.
        let remembers = !(memory.asked.is_empty() && memory.again.is_empty());
        if remembers && !write.rounds.is_second() {
            memory.left = Some(object.clone());
            write.rounds.note(NAME, memory);
        }
        if refusals.is_empty() { Ok(()) } else { Err(refused(write, refusals)) }
    }
}

impl MutatingAdmissionPolicy {
    /// Over these objects.
    pub fn new(objects: Arc<dyn Objects>, authorizers: Arc<Authorizers>) -> Self {
        Self { book: Book::new(objects), authorizers }
    }

    /// Lets one policy change the object, by all of its bindings.
    async fn consult(
        &self,
        write: &Attributes<'_>,
        object: &mut Value,
        bound: &Bound<Mutations>,
        memory: &mut Memory,
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Status> {
        let (policy, objects, mut misfits) = (&bound.0, &*self.book.objects, Vec::new());
        let asked = gather(write, Some(object), bound, objects, &mut misfits);
        if policy.fails {
            refusals.extend(misfits.into_iter().map(|m| Refusal { message: says(policy, m.binding, &m.why), reason: "" }));
        }
        let Some(asked) = asked else { return Ok(()) };
        let namespace = namespace_of(write, objects)?;
        let old = converted(write, &asked.matched, write.old).await?;
        let request = request::of(write, &asked.matched);
        let authorizer = Asker { authorizers: &self.authorizers, user: write.user, info: write.info };
        for (binding, params) in &asked.by {
            let mut seen = converted(write, &asked.matched, Some(object)).await?.unwrap_or_else(|| object.clone());
            let input = Input {
                object: None,
                old: old.as_ref().or(write.old),
                request: &request,
                namespace: namespace.as_ref(),
                params: params.as_ref(),
                authorizer: &authorizer,
            };
            match policy.conditions.judge(&Input { object: Some(&seen), ..input }, &policy.variables, write.metrics, policy.named(write)) {
                Match::Holds => {}
                Match::Excluded(_) => continue,
                Match::Failed(why) => {
                    self.fail(policy, binding, &why, refusals);
                    continue;
                }
            }
            let key = key(policy, binding, params.as_ref());
            if write.rounds.is_second() && !memory.again.contains(&key) {
                continue;
            }
            let before = seen.clone();
            for mutation in &policy.does.list {
                let start = Instant::now();
                let applied = mutation.applied(&seen, &input, &policy.variables, write, &asked.matched);
                let fault = applied.as_ref().map_or_else(Fault::word, |_| "no_error");
                write.metrics.mutated(Check { policy: &policy.name, binding: &binding.name, fault, took: start.elapsed() });
                match applied {
                    Ok(new) => seen = new,
                    Err(Fault::Status(status)) => return Err(*status),
                    Err(Fault::Policy(_, why)) => self.fail(policy, binding, &why, refusals),
                }
            }
            if seen != before {
                memory.changed();
                write.rounds.again();
                let catalogue = write.kinds.catalogue();
                let stored = catalogue.stored(write.resource);
                let whole = is_whole(write, &asked.matched) && seen["apiVersion"] != stored.api_version();
                *object = if whole { write.kinds.convert(stored, seen).await? } else { seen };
            }
            if policy.does.again {
                memory.asked.insert(key);
            }
        }
        Ok(())
    }

    fn fail(&self, policy: &Policy<Mutations>, binding: &Binding, why: &str, refusals: &mut Vec<Refusal>) {
        if policy.fails {
            refusals.push(Refusal { message: says(policy, Some(binding), why), reason: "Invalid" });
        }
    }
}

/// What tells one invocation from the others of a write.
fn key(policy: &Policy<Mutations>, binding: &Binding, params: Option<&Value>) -> String {
    let of = |field: &str| params.and_then(|p| p["metadata"][field].as_str()).unwrap_or_default();
    format!("{}/{}/{}/{}", policy.name, binding.name, of("namespace"), of("name"))
}

fn says(policy: &Policy<Mutations>, binding: Option<&Binding>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name),
        None => format!("policy {:?} denied request: {why}", policy.name),
    }
}

/// 403 with all that was wrong; the first is the answer's message.
fn refused(write: &Attributes<'_>, refusals: Vec<Refusal>) -> Status {
    let mut status = refuse(write, "");
    let causes = refusals.iter().map(|r| Cause { reason: "", field: String::new(), message: r.message.clone() });
    status.details.get_or_insert_default().causes = causes.collect();
    if let Some(first) = refusals.into_iter().next() {
        if !first.reason.is_empty() {
            status.reason = first.reason;
        }
        status.message = first.message;
    }
    status
}

/// Why a mutation did not come about.
#[derive(Debug)]
enum Fault {
    /// failurePolicy says what that means.
    Policy(Wrong, String),
    /// The write fails, whatever the policy.
    Status(Box<Status>),
}

impl Fault {
    /// Metrics' word for it.
    fn word(&self) -> &'static str {
        match self {
            Self::Policy(wrong, _) => wrong.word(),
            Self::Status(_) => Wrong::Invalid.word(),
        }
    }
}

/// Of what an expression has made.
fn misfit(why: String) -> Fault {
    Fault::Policy(Wrong::Invalid, why)
}

impl Mutation {
    /// The object as the mutation makes it, with defaults, in its version.
    fn applied(
        &self,
        object: &Value,
        input: &Input<'_>,
        variables: &[Variable],
        write: &Attributes<'_>,
        resource: &Resource,
    ) -> Result<Value, Fault> {
        let program = self.program.as_ref().map_err(|why| Fault::Policy(Wrong::Compile, why.clone()))?;
        let part = resource.subresource(&write.info.subresource).filter(|part| part.kind != resource.kind);
        let schema = part.map_or(&resource.schema, |part| &part.schema);
        let input = Input { object: Some(object), ..*input };
        let scope: Scope<'_> = input.scope(variables, POLICY_BUDGET);
        let made = scope.ask(program, &self.source).map_err(|error| Fault::Policy(Wrong::of(&self.program, &error), error.to_string()))?;
        let mut new = match self.form {
            Form::Configuration => {
                let mut config = made_configuration(&made).map_err(misfit)?;
                for field in ["apiVersion", "kind"] {
                    config.insert(field.into(), object[field].clone());
                }
                let laid = overlay(schema, object, &Value::Object(config));
                laid.map_err(|error| misfit(format!("error applying patch: {error}")))?
            }
            Form::JsonPatch => {
                let patch = made_patch(&made).map_err(misfit)?;
                let mut new = object.clone();
                match patch::json(&mut new, &patch) {
                    Ok(()) => {}
                    // A test that fails is a condition, not a fault.
                    Err(_) if fails_a_test(object, &patch) => return Ok(object.clone()),
                    Err(error) => return Err(misfit(format!("JSON Patch: {error}"))),
                }
                let unknown = structural::prune(schema, &mut new).map_err(|error| fault(&error.to_string()))?;
                if let Some(field) = unknown.first().filter(|_| !resource.custom) {
                    return Err(fault(&format!("strict decoding error: unknown field \"{field}\"")));
                }
                new
            }
        };
        if part.is_none() {
            defaulting::apply(resource, &mut new);
        }
        Ok(new)
    }
}

fn fault(why: &str) -> Fault {
    Fault::Status(Box::new(Status::internal(format!("Internal error occurred: {why}"))))
}

/// The apply configuration that an expression made.
fn made_configuration(made: &Cel<'_>) -> Result<Map<String, Value>, String> {
    if let Some(why) = made.misplaced("Object") {
        return Err(format!("type mismatch: {why}"));
    }
    match made.to_json()? {
        Value::Object(map) => Ok(map),
        _ => Err(format!("unsupported return type from ApplyConfiguration expression: {}", made.type_name())),
    }
}

/// The JSON patch that an expression made.
fn made_patch(made: &Cel<'_>) -> Result<Value, String> {
    let operation = |made: &Cel<'_>| {
        let Some(("JSONPatch", fields)) = made.made() else {
            return Err(format!(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
                made.type_name()
            ));
        };
        let mut out = Map::new();
        for (name, value) in fields {
            if let Some((name, _)) = value.made()
                && let Some(why) = value.misplaced(name)
            {
                return Err(format!("type mismatch: {why}"));
            }
            out.insert((*name).to_owned(), value.to_json()?);
        }
        Ok(Value::Object(out))
    };
    let list = made.elements().ok_or("type mismatch: JSONPatchType.expression should evaluate to array")?;
    list.iter().map(operation).collect()
}

/// Whether it is a `test` that a patch stops at.
fn fails_a_test(object: &Value, patch: &Value) -> bool {
    let operations = patch.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut so_far = object.clone();
    for operation in operations {
        let one = Value::Array(vec![operation.clone()]);
        if patch::json(&mut so_far, &one).is_err() {
            return operation["op"] == "test";
        }
    }
    false
}
