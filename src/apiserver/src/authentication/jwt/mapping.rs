//! What is made of a token's claims: rules that must hold, and the user that comes of it. Claims by name, or expressions in CEL.

use std::{collections::BTreeMap, sync::OnceLock};

use coracle_api::{
    cel::{self, Program, Type},
    custom::checks::Checks,
    names,
};
use serde_json::{Map, Value, json};

use crate::{
    authentication::configuration::{Claim, JwtAuthenticator, PrefixedClaim},
    request::User,
};

/// What evaluating one expression may cost; the claims of a token are small, and expressions over them cheap. Upstream's limit of one CRD rule.
const BUDGET: u64 = 10_000_000;
/// Domains of extra keys that are Kubernetes' own.
const OWN_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];

/// Why a token's claims make no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// A claim is not there.
    #[error("the claim {0:?} is missing")]
    Missing(String),
    /// A claim is of another type.
    #[error("the claim {0:?} is not {1}")]
    Kind(String, &'static str),
    /// A mail address that nobody has verified.
    #[error("email not verified")]
    EmailNotVerified,
    /// An expression failed.
    #[error("the expression of {0} failed: {1}")]
    Expression(&'static str, String),
    /// An expression gave something else.
    #[error("the expression of {0} must give {1}")]
    Result(&'static str, &'static str),
    /// Nobody.
    #[error("the expression of username gave no name")]
    Nameless,
    /// A required claim has another value.
    #[error("the required claim {0:?} has another value")]
    Required(String),
    /// A rule does not hold.
    #[error("validation expression '{expression}' failed: {message}")]
    Rule {
        /// The rule.
        expression: String,
        /// What its author says of it.
        message: String,
    },
}

/// Rules and mappings of one issuer, compiled.
#[derive(Debug)]
pub struct Mapping {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Program)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

/// Where a value comes from.
#[derive(Debug)]
enum Source {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Program),
}

#[derive(Debug)]
struct Rule {
    expression: String,
    message: String,
    program: Program,
}

/// Compiles what an issuer's tokens are read by; what is wrong is added to `wrong`, each with its field.
pub fn compile(of: &JwtAuthenticator, at: &str, wrong: &mut Vec<String>) -> Mapping {
    let mappings = &of.claim_mappings;
    let at_mappings = format!("{at}.claimMappings");
    let claim_rules = claim_rules(of, at, wrong);
    let username = prefixed(&mappings.username, &format!("{at_mappings}.username"), true, wrong);
    let groups = prefixed(&mappings.groups, &format!("{at_mappings}.groups"), false, wrong);
    let uid = plain(&mappings.uid, &format!("{at_mappings}.uid"), wrong);
    let extra = extra(of, &at_mappings, wrong);
    if reads(&mappings.username.expression, "email") {
        let rules = of.claim_validation_rules.iter().map(|rule| &rule.expression);
        let extras = mappings.extra.iter().map(|extra| &extra.value_expression);
        if !rules.chain(extras).chain([&mappings.username.expression]).any(|source| reads(source, "email_verified")) {
            wrong.push(format!(
                "{at_mappings}.username.expression: Invalid value: {:?}: claims.email_verified must be used in \
                 claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression \
                 when claims.email is used in claimMappings.username.expression",
                mappings.username.expression
            ));
        }
    }
    let user_rules = user_rules(of, at, wrong);
    let required = of.claim_validation_rules.iter().filter(|rule| !rule.claim.is_empty());
    let required = required.map(|rule| (rule.claim.clone(), rule.required_value.clone())).collect();
    Mapping { username, groups, uid, extra, required, claim_rules, user_rules }
}

fn claims_program(source: &str, at: &str, results: &[Type<'_>], wrong: &mut Vec<String>) -> Option<Program> {
    let claims = Type::map(Type::Dyn);
    program(source, at, ("claims", claims), results, wrong)
}

fn program(source: &str, at: &str, variable: (&str, Type<'_>), results: &[Type<'_>], wrong: &mut Vec<String>) -> Option<Program> {
    // What a rule says must be known to be a boolean; of other values it is seen when they are there.
    let compiled = match results {
        [Type::Plain("bool")] => Program::exact(source, &[variable], results),
        _ => Program::compile(source, &[variable], results),
    };
    match compiled {
        Ok(program) => Some(program),
        Err(error) => {
            wrong.push(format!("{at}: Invalid value: {source:?}: compilation failed: {error}"));
            None
        }
    }
}

const STRING: Type<'static> = Type::Plain("string");
const BOOL: Type<'static> = Type::Plain("bool");

fn claim_rules(of: &JwtAuthenticator, at: &str, wrong: &mut Vec<String>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    let rules = &of.claim_validation_rules;
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("{at}.claimValidationRules[{index}]");
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => wrong.push(format!("{at}: Invalid value: {:?}: claim and expression can't both be set", rule.claim)),
            (true, true) => wrong.push(format!("{at}: Required value: claim or expression is required")),
            (false, true) => {
                if !rule.message.is_empty() {
                    wrong.push(format!("{at}.message: Invalid value: {:?}: may not be specified when claim is set", rule.message));
                }
                if rules[..index].iter().any(|other| other.claim == rule.claim) {
                    wrong.push(format!("{at}.claim: Duplicate value: {:?}", rule.claim));
                }
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    wrong.push(format!(
                        "{at}.requiredValue: Invalid value: {:?}: may not be specified when expression is set",
                        rule.required_value
                    ));
                }
                if out.iter().any(|other| other.expression == rule.expression) {
                    wrong.push(format!("{at}.expression: Duplicate value: {:?}", rule.expression));
                    continue;
                }
                let program = claims_program(&rule.expression, &format!("{at}.expression"), &[BOOL], wrong);
                out.extend(program.map(|program| Rule { expression: rule.expression.clone(), message: rule.message.clone(), program }));
            }
        }
    }
    out
}

fn user_rules(of: &JwtAuthenticator, at: &str, wrong: &mut Vec<String>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for (index, rule) in of.user_validation_rules.iter().enumerate() {
        let at = format!("{at}.userValidationRules[{index}].expression");
        if rule.expression.is_empty() {
            wrong.push(format!("{at}: Required value"));
            continue;
        }
        if out.iter().any(|other| other.expression == rule.expression) {
            wrong.push(format!("{at}: Duplicate value: {:?}", rule.expression));
            continue;
        }
        let user = Type::of(user_checks(), false).unwrap_or(Type::Dyn);
        let program = program(&rule.expression, &at, ("user", user), &[BOOL], wrong);
        out.extend(program.map(|program| Rule { expression: rule.expression.clone(), message: rule.message.clone(), program }));
    }
    out
}

/// UserInfo, as expressions know it.
fn user_checks() -> &'static Checks {
    static CHECKS: OnceLock<Checks> = OnceLock::new();
    CHECKS.get_or_init(|| {
        let strings = json!({"type": "array", "items": {"type": "string"}});
        Checks::read(&json!({"type": "object", "properties": {
            "username": {"type": "string"},
            "uid": {"type": "string"},
            "groups": strings,
            "extra": {"type": "object", "additionalProperties": strings},
        }}))
    })
}

fn prefixed(of: &PrefixedClaim, at: &str, needed: bool, wrong: &mut Vec<String>) -> Source {
    match (of.claim.is_empty(), of.expression.is_empty()) {
        (false, false) => wrong.push(format!("{at}: Invalid value: \"\": claim and expression can't both be set")),
        (true, true) if needed => wrong.push(format!("{at}: Required value: claim or expression is required")),
        (true, true) => {}
        (false, true) => match &of.prefix {
            Some(prefix) => return Source::Claim { name: of.claim.clone(), prefix: prefix.clone() },
            None => wrong.push(format!(
                "{at}.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing"
            )),
        },
        (true, false) => {
            if let Some(prefix) = &of.prefix {
                wrong.push(format!("{at}.prefix: Invalid value: {prefix:?}: may not be specified when expression is set"));
            }
            let strings = [STRING, Type::List(STRING.into()), Type::List(Type::Dyn.into()), Type::Null];
            let results = if needed { &strings[..1] } else { &strings[..] };
            return claims_program(&of.expression, &format!("{at}.expression"), results, wrong).map_or(Source::Nothing, Source::Expression);
        }
    }
    Source::Nothing
}

fn plain(of: &Claim, at: &str, wrong: &mut Vec<String>) -> Source {
    match (of.claim.is_empty(), of.expression.is_empty()) {
        (false, false) => wrong.push(format!("{at}: Invalid value: \"\": claim and expression can't both be set")),
        (true, true) => {}
        (false, true) => return Source::Claim { name: of.claim.clone(), prefix: String::new() },
        (true, false) => {
            return claims_program(&of.expression, &format!("{at}.expression"), &[STRING], wrong)
                .map_or(Source::Nothing, Source::Expression);
        }
    }
    Source::Nothing
}

fn extra(of: &JwtAuthenticator, at: &str, wrong: &mut Vec<String>) -> Vec<(String, Program)> {
    let mut out = Vec::new();
    let all = &of.claim_mappings.extra;
    for (index, extra) in all.iter().enumerate() {
        let at = format!("{at}.extra[{index}]");
        let key = &extra.key;
        let mut bad = |why: &str| wrong.push(format!("{at}.key: Invalid value: {key:?}: {why}"));
        match key.split_once('/') {
            Some((domain, path)) if !path.is_empty() => {
                if let Err(why) = names::dns_subdomain(domain) {
                    bad(&why);
                }
                let own = |own: &str| domain == own || domain.strip_suffix(own).is_some_and(|rest| rest.ends_with('.'));
                if OWN_DOMAINS.into_iter().any(own) {
                    bad("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
                }
            }
            _ => bad("must be a domain-prefixed path (such as \"acme.io/foo\")"),
        }
        if key.to_lowercase() != *key {
            bad("must be lowercase");
        }
        if all[..index].iter().any(|other| other.key == *key) {
            wrong.push(format!("{at}.key: Duplicate value: {key:?}"));
            continue;
        }
        if extra.value_expression.is_empty() {
            wrong.push(format!("{at}.valueExpression: Required value"));
            continue;
        }
        let results = [STRING, Type::List(STRING.into()), Type::List(Type::Dyn.into()), Type::Null];
        let program = claims_program(&extra.value_expression, &format!("{at}.valueExpression"), &results, wrong);
        out.extend(program.map(|program| (key.clone(), program)));
    }
    out
}

/// Whether an expression reads this claim by its name: `claims.email`, `claims.?email`. What stands in quotes does not count.
fn reads(source: &str, claim: &str) -> bool {
    let mut plain = String::with_capacity(source.len());
    let mut quoted: Option<char> = None;
    let mut characters = source.chars();
    while let Some(character) = characters.next() {
        match quoted {
            Some(_) if character == '\\' => drop(characters.next()),
            Some(quote) if character == quote => quoted = None,
            Some(_) => {}
            None if matches!(character, '"' | '\'') => {
                quoted = Some(character);
                plain.push('\u{0}');
            }
            None if character.is_whitespace() => {}
            None => plain.push(character),
        }
    }
    let word = |c: char| c.is_alphanumeric() || c == '_';
    ["claims.", "claims.?"].into_iter().any(|of| {
        let wanted = format!("{of}{claim}");
        plain.match_indices(&wanted).any(|(at, _)| {
            let before = plain[..at].chars().next_back().is_none_or(|c| !word(c) && c != '.');
            before && plain[at + wanted.len()..].chars().next().is_none_or(|c| !word(c))
        })
    })
}

impl Mapping {
    /// The user that the claims of a token make, without the group of everybody who is known.
    pub fn user(&self, claims: &Map<String, Value>) -> Result<User, MappingError> {
        let whole = Value::Object(claims.iter().map(|(name, value)| (name.clone(), as_cel(value))).collect());
        let name = match self.username.of(&whole, "username")? {
            Found::Nothing => return Err(MappingError::Nameless),
            Found::Claim(name, prefix) => format!("{prefix}{}", username(claims, name)?),
            Found::Value(Value::String(name)) if name.is_empty() => return Err(MappingError::Nameless),
            Found::Value(Value::String(name)) => name,
            Found::Value(_) => return Err(MappingError::Result("username", "a string")),
        };
        let groups = match self.groups.of(&whole, "groups")? {
            Found::Nothing => Vec::new(),
            Found::Claim(name, prefix) => match claims.get(name) {
                None => Vec::new(),
                Some(value) => strings(value)
                    .ok_or_else(|| MappingError::Kind(name.into(), "a string or a list of strings"))?
                    .into_iter()
                    .map(|group| format!("{prefix}{group}"))
                    .collect(),
            },
            Found::Value(value) => filled(value, "groups")?,
        };
        let uid = match self.uid.of(&whole, "uid")? {
            Found::Nothing => String::new(),
            Found::Claim(name, _) => text(claims, name)?.to_owned(),
            Found::Value(Value::String(uid)) => uid,
            Found::Value(_) => return Err(MappingError::Result("uid", "a string")),
        };
        let mut user = User { name, uid, groups, extra: credential(claims) };
        for (key, program) in &self.extra {
            let values = filled(evaluate(program, ("claims", &whole, None), "extra")?, "extra")?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        for (claim, wanted) in &self.required {
            if text(claims, claim)? != wanted {
                return Err(MappingError::Required(claim.clone()));
            }
        }
        for rule in &self.claim_rules {
            rule.check(("claims", &whole, None), "a claim validation rule")?;
        }
        if !self.user_rules.is_empty() {
            let info = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
            for rule in &self.user_rules {
                rule.check(("user", &info, Some(user_checks())), "a user validation rule")?;
            }
        }
        Ok(user)
    }
}

/// JSON numbers of tokens are doubles to expressions, whether or not they are whole.
fn as_cel(value: &Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number),
        Value::Array(list) => list.iter().map(as_cel).collect(),
        Value::Object(map) => Value::Object(map.iter().map(|(key, value)| (key.clone(), as_cel(value))).collect()),
        other => other.clone(),
    }
}

enum Found<'m> {
    Nothing,
    Claim(&'m str, &'m str),
    Value(Value),
}

impl Source {
    fn of(&self, claims: &Value, what: &'static str) -> Result<Found<'_>, MappingError> {
        Ok(match self {
            Self::Nothing => Found::Nothing,
            Self::Claim { name, prefix } => Found::Claim(name, prefix),
            Self::Expression(program) => Found::Value(evaluate(program, ("claims", claims, None), what)?),
        })
    }
}

impl Rule {
    fn check(&self, variable: (&str, &Value, Option<&Checks>), what: &'static str) -> Result<(), MappingError> {
        match evaluate(&self.program, variable, what)? {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => Err(MappingError::Rule { expression: self.expression.clone(), message: self.message.clone() }),
            _ => Err(MappingError::Result(what, "a boolean")),
        }
    }
}

/// What an expression says, as far as it is a boolean, a string or a list of strings; `null` for all else.
fn evaluate(program: &Program, (name, value, checks): (&str, &Value, Option<&Checks>), what: &'static str) -> Result<Value, MappingError> {
    let mut budget = BUDGET;
    let variables = [(name, cel::Value::of(value, checks))];
    let result = program.ask(&variables, &mut budget).map_err(|error| MappingError::Expression(what, error.to_string()))?;
    let strings = |list: &[cel::Value<'_>]| list.iter().map(|item| item.as_text().map_or(Value::Null, Value::from)).collect();
    Ok(match &result {
        cel::Value::Bool(yes) => Value::Bool(*yes),
        cel::Value::Text(text) => Value::String(text.clone().into_owned()),
        cel::Value::Array(list, _) => Value::Array(list.to_vec()),
        cel::Value::List(list) => strings(list),
        cel::Value::Null => Value::Array(Vec::new()),
        _ => Value::Null,
    })
}

/// A string or a list of them, without empty ones.
fn filled(value: Value, what: &'static str) -> Result<Vec<String>, MappingError> {
    let all = strings(&value).ok_or(MappingError::Result(what, "a string or a list of strings"))?;
    Ok(all.into_iter().filter(|text| !text.is_empty()).collect())
}

fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(list) => list.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

fn username<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<&'c str, MappingError> {
    let name = text(claims, claim)?;
    if claim == "email" {
        match claims.get("email_verified") {
            None | Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Err(MappingError::EmailNotVerified),
            Some(_) => return Err(MappingError::Kind("email_verified".into(), "a boolean")),
        }
    }
    Ok(name)
}

fn text<'c>(claims: &'c Map<String, Value>, claim: &str) -> Result<&'c str, MappingError> {
    let value = claims.get(claim).ok_or_else(|| MappingError::Missing(claim.to_owned()))?;
    value.as_str().ok_or_else(|| MappingError::Kind(claim.to_owned(), "a string"))
}

fn credential(claims: &Map<String, Value>) -> BTreeMap<String, Vec<String>> {
    match claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
        Some(id) => crate::authentication::extra("authentication.kubernetes.io/credential-id", format!("JTI={id}")),
        None => BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests;
