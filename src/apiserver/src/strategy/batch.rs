//! Jobs and DaemonSets.

use serde_json::{Value, json};

use super::meta;

/// The old counter of a DaemonSet's template, kept as an annotation.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A Job selects its pods by its own uid, unless it asks to choose for itself.
pub fn prepare_job(job: &mut Value) {
    if job["spec"]["manualSelector"] != true {
        let (uid, name) = (meta::text(job, "uid").to_owned(), meta::text(job, "name").to_owned());
        let labels = meta::map(meta_value(&mut job["spec"]["template"]), "labels");
        for (key, value) in [
            ("controller-uid", &uid),
            ("batch.kubernetes.io/controller-uid", &uid),
            ("job-name", &name),
            ("batch.kubernetes.io/job-name", &name),
        ] {
            // What somebody set otherwise is for validation to refuse.
            labels.entry(key).or_insert_with(|| value.as_str().into());
        }
        let selector = meta::map(&mut job["spec"], "selector");
        let wanted = selector.entry("matchLabels").or_insert_with(|| json!({}));
        if wanted["batch.kubernetes.io/controller-uid"].is_null() {
            wanted["batch.kubernetes.io/controller-uid"] = uid.into();
        }
    }
    let labels = job["spec"]["template"]["metadata"]["labels"].clone();
    let own = &mut job["metadata"]["labels"];
    if own.as_object().is_none_or(serde_json::Map::is_empty) && labels.is_object() {
        *own = labels;
    }
}

fn meta_value(template: &mut Value) -> &mut Value {
    meta::of(template);
    &mut template["metadata"]
}

/// Counts the changes of the template in an annotation.
pub fn prepare_daemon_set(set: &mut Value, old: Option<&Value>) {
    let counter = |set: &Value| set["metadata"]["annotations"][TEMPLATE_GENERATION].as_str().and_then(|text| text.parse::<i64>().ok());
    let count = match old {
        None => counter(set).unwrap_or(1).max(1),
        Some(old) => {
            let before = counter(old).unwrap_or(1);
            before + i64::from(old["spec"]["template"] != set["spec"]["template"])
        }
    };
    meta::of(set);
    meta::map(&mut set["metadata"], "annotations").insert(TEMPLATE_GENERATION.into(), count.to_string().into());
}
