//! Deployments and DaemonSets, which roll from one template to the next.

use super::super::field::Field;
use super::super::rules::{at_most_all, number_or_percent, percent};
use super::{selected_template, selector_and_template};

pub(super) fn deployment(spec: &Field<'_>) {
    spec.at("replicas").not_negative();
    selector_and_template(spec, &spec.at("template"));
    let strategy = spec.at("strategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "Recreate" if rolling.exists() => rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"),
        "Recreate" => {}
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            number_or_percent(&unavailable);
            number_or_percent(&surge);
            let none = |field: &Field<'_>| percent(field).or_else(|| field.value().as_i64()) == Some(0);
            if none(&unavailable) && none(&surge) {
                unavailable.invalid("may not be 0 when `maxSurge` is 0");
            }
            at_most_all(&unavailable);
        }
        _ => strategy.holding(strategy.at("type").value()).not_supported(&["Recreate", "RollingUpdate"]),
    }
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let deadline = spec.at("progressDeadlineSeconds");
    deadline.not_negative();
    if deadline.exists() && deadline.number() <= spec.at("minReadySeconds").number() {
        deadline.invalid("must be greater than minReadySeconds");
    }
}

pub(super) fn daemon_set(spec: &Field<'_>) {
    selected_template(spec, &spec.at("template"));
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let strategy = spec.at("updateStrategy");
    let rolling = strategy.at("rollingUpdate");
    match strategy.at("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling.exists() => rolling.required(""),
        "RollingUpdate" => {
            let (unavailable, surge) = (rolling.at("maxUnavailable"), rolling.at("maxSurge"));
            for share in [unavailable, surge] {
                number_or_percent(&share);
                at_most_all(&share);
            }
            let some = |field: &Field<'_>| percent(field).or_else(|| field.value().as_i64()).is_some_and(|n| n > 0);
            match (some(&unavailable), some(&surge)) {
                (true, true) => surge.invalid("may not be set when maxUnavailable is non-zero"),
                (false, false) => unavailable.required("cannot be 0 when maxSurge is 0"),
                _ => {}
            }
        }
        _ => strategy.holding(strategy.at("type").value()).not_supported(&["OnDelete", "RollingUpdate"]),
    }
}
