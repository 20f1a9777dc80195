//! StatefulSets: pods with names and claims of their own.

use serde_json::Value;

use super::super::field::Field;
use super::super::pod;
use super::super::rules::{at_most_all, labels, number_or_percent};
use super::selector_and_template;
use crate::names;

pub(super) fn stateful_set(spec: &Field<'_>, old: Option<&Value>) {
    let management = spec.at("podManagementPolicy");
    match management.text() {
        "" => management.required(""),
        "OrderedReady" | "Parallel" => {}
        _ => management.invalid("must be 'OrderedReady' or 'Parallel'"),
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "" => strategy.required(""),
        "OnDelete" if rolling.exists() => rolling.invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            rolling.at("partition").not_negative();
            let unavailable = rolling.at("maxUnavailable");
            if unavailable.exists() {
                number_or_percent(&unavailable);
                at_most_all(&unavailable);
            }
        }
        _ => strategy.invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.at("persistentVolumeClaimRetentionPolicy");
    for name in ["whenDeleted", "whenScaled"] {
        retention.at(name).optional_one_of(&["Delete", "Retain"]);
    }
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let ordinals = spec.at("ordinals");
    ordinals.at("start").not_negative();
    if old.is_none() {
        spec.at("serviceName").may_be_valid(names::dns_subdomain);
        spec.at("volumeClaimTemplates").each(|_, claim| pod::claim_spec(&claim.at("spec")));
    }
    let template = with_claims(spec);
    let place = spec.at("template");
    selector_and_template(spec, &place.holding(&template));
    labels(&place.called("labels").holding(&template["metadata"]["labels"]));
    if let Some(old) = old {
        let (mut new, mut old) = (spec.value().clone(), old["spec"].clone());
        for side in [&mut new, &mut old] {
            for name in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
                "revisionHistoryLimit",
            ] {
                side.as_object_mut().map(|s| s.remove(name));
            }
        }
        if new != old {
            spec.forbidden(
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', \
                 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }
}

/// The template with the volumes that the claims become.
fn with_claims(spec: &Field<'_>) -> Value {
    let mut template = spec.at("template").value().clone();
    let claims = spec.at("volumeClaimTemplates").list();
    if claims.is_empty() || !template["spec"].is_object() {
        return template;
    }
    let name = |claim: &Value| claim["metadata"]["name"].clone();
    let mut volumes: Vec<Value> =
        claims.iter().map(|c| serde_json::json!({"name": name(c), "persistentVolumeClaim": {"claimName": name(c)}})).collect();
    let others = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    volumes.extend(others.into_iter().filter(|volume| !claims.iter().any(|c| name(c) == volume["name"])));
    template["spec"]["volumes"] = volumes.into();
    template
}
