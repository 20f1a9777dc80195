//! What may change of a pod that exists.

use serde_json::Value;

use super::super::field::Field;

/// Everything else of the spec is fixed once the pod exists.
pub(in super::super) fn update(pod: &Field<'_>, old: &Value, subresource: &str) {
    let (spec, before) = (pod.at("spec"), &old["spec"]);
    // A binding changes nothing but the node's name, which the registry writes itself.
    if matches!(subresource, "status" | "binding") {
        return;
    }
    super::spec(&spec);
    for list in ["containers", "initContainers"] {
        let containers = spec.at(list);
        if containers.list().len() != before[list].as_array().map_or(0, Vec::len) {
            containers.forbidden("pod updates may not add or remove containers");
            return;
        }
        containers.each(|_, container| {
            let image = container.at("image");
            if image.is_empty() {
                image.required("");
            }
        });
    }
    deadline(&spec.at("activeDeadlineSeconds"), &before["activeDeadlineSeconds"]);
    let tolerations = spec.at("tolerations");
    let kept = |toleration: &Value| {
        tolerations.list().iter().any(|t| {
            let same = |name: &str| t[name] == toleration[name];
            ["key", "operator", "value", "effect"].iter().all(|name| same(name))
        })
    };
    if !before["tolerations"].as_array().into_iter().flatten().all(kept) {
        tolerations.forbidden("existing toleration can not be modified except its tolerationSeconds");
    }
    let gates = before["schedulingGates"].as_array().map(Vec::as_slice).unwrap_or_default();
    spec.at("schedulingGates").each(|_, gate| {
        if !gates.contains(gate.value()) {
            gate.at("name").forbidden("only deletion is allowed, but found new scheduling gate");
        }
    });
    let (mut new, mut old) = (spec.value().clone(), before.clone());
    let gated = !gates.is_empty();
    for side in [&mut new, &mut old] {
        without_what_may_change(side, gated);
    }
    if new["terminationGracePeriodSeconds"] == 1 && old["terminationGracePeriodSeconds"].as_i64().is_some_and(|s| s < 0) {
        old["terminationGracePeriodSeconds"] = 1.into();
    }
    if subresource == "resize" {
        for side in [&mut new, &mut old] {
            for_containers(side, |container| {
                container.as_object_mut().map(|c| (c.remove("resources"), c.remove("resizePolicy")));
            });
        }
    }
    if subresource == "ephemeralcontainers" {
        for side in [&mut new, &mut old] {
            side.as_object_mut().map(|s| s.remove("ephemeralContainers"));
        }
    }
    if new != old {
        spec.forbidden(
            "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, \
             `spec.tolerations` (only additions to existing tolerations), `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
}

fn deadline(new: &Field<'_>, old: &Value) {
    match (new.value().as_i64(), old.as_i64()) {
        (Some(new_seconds), Some(old_seconds)) if new_seconds > old_seconds => new.invalid("must be less than or equal to previous value"),
        (None, Some(_)) => new.invalid("must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn for_containers(spec: &mut Value, change: impl Fn(&mut Value)) {
    for list in ["containers", "initContainers"] {
        spec[list].as_array_mut().into_iter().flatten().for_each(&change);
    }
}

fn without_what_may_change(spec: &mut Value, gated: bool) {
    for_containers(spec, |container| container["image"] = Value::Null);
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        spec.as_object_mut().map(|s| s.remove(name));
    }
    if gated {
        // A pod that is not yet scheduled may still be told where to go.
        for name in ["nodeSelector", "affinity"] {
            spec.as_object_mut().map(|s| s.remove(name));
        }
    }
    for list in ["containers", "initContainers"] {
        if spec[list].is_null() {
            spec.as_object_mut().map(|s| s.remove(list));
        }
    }
}
