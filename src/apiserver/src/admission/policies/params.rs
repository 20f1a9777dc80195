//! The parameters that a binding gives to a policy: one object by its name, or all that a selector means.

use coracle_api::{catalogue::Catalogue, catalogue::convert, selector::LabelSelector};
use serde_json::Value;

use crate::objects::Objects;

/// What a policy is asked with: once for each of these. `None` stands for no parameter.
pub fn collect(
    objects: &dyn Objects,
    catalogue: &Catalogue,
    kind: Option<&[String; 3]>,
    reference: &Value,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    let Some([group, version, name]) = kind else { return Ok(vec![None]) };
    let resource = catalogue.kind(group, version, name);
    let unknown = || format!("failed to find resource referenced by paramKind: '{group}/{version}, Kind={name}'");
    let resource = resource.ok_or_else(unknown)?;
    if !reference.is_object() {
        return Ok(vec![None]);
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let namespace = match (resource.namespaced, text("namespace")) {
        (false, "") => "",
        (false, _) => return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if namespace.is_empty() => {
            return Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into());
        }
        (true, "") => namespace,
        (true, named) => named,
    };
    let at = &resource.storage;
    let stored = catalogue.stored(resource);
    let versioned = |object: Value| if std::sync::Arc::ptr_eq(stored, resource) { object } else { convert(stored, resource, object) };
    let found: Vec<Option<Value>> = match text("name") {
        "" => {
            let selector = LabelSelector::from_value(&reference["selector"]).map_err(|error| error.to_string())?;
            let all = objects.list(&at.group, &at.plural, namespace).into_iter();
            all.filter(|object| selector.matches_value(&object["metadata"]["labels"])).map(versioned).map(Some).collect()
        }
        name => objects.get(&at.group, &at.plural, namespace, name).map(versioned).map(Some).into_iter().collect(),
    };
    if found.is_empty() && text("parameterNotFoundAction") == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}
