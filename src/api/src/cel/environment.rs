//! The variables that expressions of admission have, and their types: of policies, and of the match conditions of webhooks.

use super::{
    CompileError, Program, Type,
    types::{AUTHORIZER, TIME},
    unwanted,
};

/// What expressions of one policy or webhook can speak of, besides `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment {
    /// `params`
    pub params: bool,
    /// `authorizer`, `authorizer.requestResource`
    pub authorizer: bool,
    /// `Object{}`, `JSONPatch{}` can be made.
    pub patches: bool,
}

/// The types of what a policy speaks of, where they are known: to check its expressions against a kind.
#[derive(Clone, Debug)]
pub struct Kinds<'c> {
    /// Of `object` and `oldObject`.
    pub object: Type<'c>,
    /// Of `params`.
    pub params: Type<'c>,
}

impl Default for Kinds<'_> {
    fn default() -> Self {
        Self { object: Type::Dyn, params: Type::Dyn }
    }
}

/// Compiles the expressions of one policy, each of which may use the variables that came before it.
#[derive(Debug, Default)]
pub struct Compiler<'c> {
    kinds: Kinds<'c>,
    /// Names and types of `variables`.
    composed: Vec<(Box<str>, Type<'c>)>,
}

impl<'c> Compiler<'c> {
    /// For objects and parameters of these kinds.
    pub fn of(kinds: Kinds<'c>) -> Self {
        Self { kinds, composed: Vec::new() }
    }

    fn typed(&self, source: &str, environment: Environment) -> Result<(Program, Type<'c>), CompileError> {
        let mut names = vec![
            ("object", self.kinds.object.clone()),
            ("oldObject", self.kinds.object.clone()),
            ("request", request()),
            ("namespaceObject", namespace()),
            ("variables", Type::Record("kubernetes.variables", self.composed.as_slice().into())),
        ];
        if environment.params {
            names.push(("params", self.kinds.params.clone()));
        }
        if environment.authorizer {
            names.push(("authorizer", Type::Plain(AUTHORIZER)));
        }
        Program::typed(source, &names, environment.patches)
    }

    /// Compiles an expression that must give one of these; none of them: whatever it gives.
    pub fn compile(&self, source: &str, environment: Environment, results: &[Type<'_>]) -> Result<Program, CompileError> {
        let (program, found) = self.typed(source, environment)?;
        let fits = results.is_empty() || results.iter().any(|wanted| found.is_exactly(wanted));
        if fits { Ok(program) } else { Err(unwanted(&found, results)) }
    }

    /// Compiles a variable, which later expressions know by its name, also when it cannot be read: they are not to blame.
    pub fn variable(&mut self, name: &str, source: &str, environment: Environment) -> Result<Program, CompileError> {
        let made = self.typed(source, environment);
        let found = made.as_ref().map_or(Type::Dyn, |(_, found)| found.clone());
        self.composed.push((name.into(), found));
        made.map(|(program, _)| program)
    }
}

/// What a condition gives.
pub const CONDITION: [Type<'static>; 1] = [Type::BOOL];
/// What a message gives.
pub const MESSAGE: [Type<'static>; 1] = [Type::STRING];
/// What the value of an audit annotation gives.
pub const ANNOTATION: [Type<'static>; 2] = [Type::STRING, Type::Null];

/// What an apply configuration gives.
pub fn configuration() -> [Type<'static>; 1] {
    [Type::Made("Object".into())]
}

/// What a JSON patch gives.
pub fn json_patch() -> [Type<'static>; 1] {
    [Type::list(Type::Made("JSONPatch".into()))]
}

fn texts<'c, const N: usize>(names: [&'static str; N]) -> impl Iterator<Item = (&'static str, Type<'c>)> {
    names.into_iter().map(|name| (name, Type::STRING))
}

fn request<'c>() -> Type<'c> {
    let kind = || Type::record("kubernetes.GroupVersionKind", texts(["group", "version", "kind"]));
    let resource = || Type::record("kubernetes.GroupVersionResource", texts(["group", "version", "resource"]));
    let strings = || Type::list(Type::STRING);
    let user = texts(["username", "uid"]).chain([("groups", strings()), ("extra", Type::map(strings()))]);
    let parts = [
        ("kind", kind()),
        ("resource", resource()),
        ("requestKind", kind()),
        ("requestResource", resource()),
        ("userInfo", Type::record("kubernetes.UserInfo", user)),
        ("dryRun", Type::BOOL),
        ("options", Type::Dyn),
    ];
    Type::record("kubernetes.AdmissionRequest", texts(["subResource", "requestSubResource", "name", "namespace", "operation"]).chain(parts))
}

fn namespace<'c>() -> Type<'c> {
    let time = || Type::Plain(TIME);
    let labels = || Type::map(Type::STRING);
    let strings = || Type::list(Type::STRING);
    let metadata = texts(["name", "generateName", "namespace", "UID", "resourceVersion"]).chain([
        ("labels", labels()),
        ("annotations", labels()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", Type::INT),
        ("deletionTimestamp", time()),
        ("generation", Type::INT),
        ("finalizers", strings()),
    ]);
    let condition = texts(["status", "type", "message", "reason"]).chain([("lastTransitionTime", time())]);
    let status = [("conditions", Type::list(Type::record("kubernetes.NamespaceCondition", condition))), ("phase", Type::STRING)];
    Type::record(
        "kubernetes.Namespace",
        [
            ("metadata", Type::record("kubernetes.NamespaceMetadata", metadata)),
            ("spec", Type::record("kubernetes.NamespaceSpec", [("finalizers", strings())])),
            ("status", Type::record("kubernetes.NamespaceStatus", status)),
        ],
    )
}
