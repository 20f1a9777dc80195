//! Keeps flow control as its objects say, the objects that every cluster has as they should be, and seats where they are wanted.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use coracle_api::{catalogue::bootstrap, status::Status};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::config::digest;
use crate::server::Shared;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
/// Says whether an object that the server suggests stays as it suggests.
const AUTOUPDATE: &str = "apf.kubernetes.io/autoupdate-spec";
/// Between two looks at who wants seats while somebody waits.
const ADJUST_EVERY: Duration = Duration::from_secs(1);

/// Follows the objects for ever.
pub(crate) async fn run(shared: Weak<Shared>) {
    let Some(strong) = shared.upgrade() else { return };
    let mut schemas = strong.registry.subscribe(GROUP, SCHEMAS);
    let mut levels = strong.registry.subscribe(GROUP, LEVELS);
    drop(strong);
    let (mut look, mut waits) = (true, false);
    // Its own clock: however often the objects change, seats move on.
    let mut again = tokio::time::interval(ADJUST_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Some(strong) = shared.upgrade() else { return };
        if look {
            follow(&strong).await;
        }
        // A second owner of the server's parts would keep them alive for ever.
        let (flow, stop) = (Arc::clone(&strong.flow), strong.stop.clone());
        drop(strong);
        look = false;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = schemas.next() => {
                if changed.is_err() {
                    let Some(strong) = shared.upgrade() else { return };
                    schemas = strong.registry.subscribe(GROUP, SCHEMAS);
                }
                look = true;
            }
            changed = levels.next() => {
                if changed.is_err() {
                    let Some(strong) = shared.upgrade() else { return };
                    levels = strong.registry.subscribe(GROUP, LEVELS);
                }
                look = true;
            }
            // While somebody waits, who else does shows at the next look: nobody is woken for each.
            () = flow.contended.notified(), if !waits => {
                waits = flow.adjust();
                again.reset();
            }
            _ = again.tick(), if waits => waits = flow.adjust(),
        }
    }
}

async fn follow(shared: &Shared) {
    for (plural, wanted) in [(LEVELS, bootstrap::priority_levels()), (SCHEMAS, bootstrap::flow_schemas())] {
        for object in wanted {
            if let Err(error) = settle(shared, plural, &object).await {
                tracing::warn!(kind = plural, name = %object["metadata"]["name"], error = error.message, "an object of flow control is not as it should be");
            }
        }
    }
    let list = |plural: &str| shared.registry.list(GROUP, plural, "").objects.iter().map(|object| object.value()).collect::<Vec<_>>();
    let schemas = list(SCHEMAS);
    let spec = digest(&schemas, &list(LEVELS));
    let references = spec.references.clone();
    shared.flow.configure(spec);
    for (name, level, there) in references {
        if let Err(error) = tell(shared, &name, &level, there).await {
            tracing::warn!(name, error = error.message, "the status of a FlowSchema was not written");
        }
    }
}

/// Creates an object that every cluster has, or gives it the spec that it should have.
async fn settle(shared: &Shared, plural: &str, wanted: &Value) -> Result<(), Status> {
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default();
    let Some(held) = shared.registry.get(GROUP, plural, "", name) else {
        return shared.registry.create_if_absent(wanted.clone()).await.map(drop);
    };
    let now = held.value();
    if now["spec"] == wanted["spec"] || !is_ours(plural, &now) {
        return Ok(());
    }
    let mut make = |old: &Value| {
        let mut new = old.clone();
        new["spec"] = wanted["spec"].clone();
        new
    };
    shared.registry.change(GROUP, plural, "", name, &mut make).await.map(drop)
}

/// Whether the server decides the spec: of what is mandatory always, save how many seats the exempt level counts for; of what it
/// suggests until somebody says or does otherwise.
fn is_ours(plural: &str, object: &Value) -> bool {
    let metadata = &object["metadata"];
    match metadata["name"].as_str().unwrap_or_default() {
        "exempt" if plural == LEVELS => object["spec"]["type"] != "Exempt",
        "exempt" | "catch-all" => true,
        _ => match metadata["annotations"][AUTOUPDATE].as_str() {
            Some(word) => word == "true",
            None => metadata["generation"].as_i64().unwrap_or(1) == 1,
        },
    }
}

/// Writes whether a schema's level is there, unless its status says so already.
async fn tell(shared: &Shared, name: &str, level: &str, there: bool) -> Result<(), Status> {
    let Some(held) = shared.registry.get(GROUP, SCHEMAS, "", name) else { return Ok(()) };
    if with_condition(&held.value(), level, there).is_none() {
        return Ok(());
    }
    let mut make = |old: &Value| with_condition(old, level, there).unwrap_or_else(|| old.clone());
    match shared.registry.change_status(GROUP, SCHEMAS, "", name, &mut make).await {
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// The schema with its condition; `None` when it has that already.
fn with_condition(schema: &Value, level: &str, there: bool) -> Option<Value> {
    let (status, reason, end) = match there {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old = conditions.iter().find(|condition| condition["type"] == "Dangling");
    if old.is_some_and(|old| old["status"] == status && old["reason"] == reason && old["message"] == message.as_str()) {
        return None;
    }
    let same = old.filter(|old| old["status"] == status).map(|old| old["lastTransitionTime"].clone());
    let since = same.unwrap_or_else(|| Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into());
    let condition = json!({"type": "Dangling", "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    let mut conditions: Vec<Value> = conditions.into_iter().filter(|condition| condition["type"] != "Dangling").collect();
    conditions.push(condition);
    let mut new = schema.clone();
    new["status"]["conditions"] = conditions.into();
    Some(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_changes() {
        let schema = json!({"metadata": {"name": "s"}, "spec": {}});
        let dangling = with_condition(&schema, "none", false).unwrap();
        let condition = &dangling["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"], &condition["reason"]),
            (&json!("Dangling"), &json!("True"), &json!("NotFound"))
        );
        assert!(with_condition(&dangling, "none", false).is_none());
        let found = with_condition(&dangling, "none", true).unwrap();
        assert_eq!(found["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(found["status"]["conditions"][0]["status"], "False");
    }

    #[test]
    fn what_the_server_suggests_is_its_owners_to_change() {
        let object = |name: &str, annotation: Option<&str>, generation: i64| {
            let annotations = annotation.map_or(json!({}), |word| json!({AUTOUPDATE: word}));
            json!({"metadata": {"name": name, "generation": generation, "annotations": annotations}, "spec": {"type": "Exempt"}})
        };
        for (plural, name, annotation, generation, ours) in [
            (SCHEMAS, "probes", Some("true"), 5, true),
            (SCHEMAS, "probes", Some("false"), 1, false),
            (SCHEMAS, "probes", None, 1, true),
            (SCHEMAS, "probes", None, 2, false),
            (SCHEMAS, "exempt", Some("false"), 2, true),
            (LEVELS, "exempt", None, 1, false),
            (LEVELS, "catch-all", None, 9, true),
        ] {
            assert_eq!(is_ours(plural, &object(name, annotation, generation)), ours, "{name} {annotation:?} {generation}");
        }
        assert!(is_ours(LEVELS, &json!({"metadata": {"name": "exempt"}, "spec": {"type": "Limited"}})));
    }
}
