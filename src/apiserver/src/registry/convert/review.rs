//! ConversionReview: what a definition's webhook is asked, and what its answer may change. Pure.

use coracle_api::names;
use serde::Serialize;
use serde_json::{Map, Value};

/// Group of the two versions.
const GROUP: &str = "apiextensions.k8s.io";
/// Bytes of all annotations of an object. Upstream's bound.
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// A version of ConversionReview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// The first that is known of a definition's `conversionReviewVersions`.
    pub fn first(list: &[String]) -> Option<Self> {
        list.iter().find_map(|version| match version.as_str() {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1Beta1),
            _ => None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// The body of the call.
pub(super) fn write(version: Version, uid: &str, desired: &str, objects: &[&Value]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Review<'a> {
        kind: &'static str,
        api_version: String,
        request: Request<'a>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Request<'a> {
        uid: &'a str,
        #[serde(rename = "desiredAPIVersion")]
        desired: &'a str,
        objects: &'a [&'a Value],
    }
    let api_version = format!("{GROUP}/{}", version.word());
    // Values and texts: there is nothing that JSON cannot say.
    serde_json::to_vec(&Review { kind: "ConversionReview", api_version, request: Request { uid, desired, objects } }).unwrap_or_default()
}

/// The objects of an answer; the error is what is wrong with it, or what the webhook says.
pub(super) fn read(version: Version, uid: &str, mut answer: Value) -> Result<Vec<Value>, String> {
    let text = |field: &str| answer[field].as_str().unwrap_or_default();
    let wanted = format!("{GROUP}/{}", version.word());
    // The older version never asked for these.
    if version == Version::V1 && (text("apiVersion"), text("kind")) != (&wanted, "ConversionReview") {
        let (is, kind) = (text("apiVersion"), text("kind"));
        return Err(format!("expected webhook response of {wanted}, Kind=ConversionReview, got {is}, Kind={kind}"));
    }
    let response = answer.get_mut("response").map(Value::take).filter(Value::is_object).ok_or("no response provided")?;
    if version == Version::V1 && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].as_str().unwrap_or_default()));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or_default();
    if status != "Success" {
        let message = result["message"].as_str().filter(|message| !message.is_empty());
        return Err(message.map_or_else(|| format!("response.result.status was '{status}', not 'Success'"), str::to_owned));
    }
    match response {
        Value::Object(mut response) => match response.remove("convertedObjects") {
            Some(Value::Array(objects)) => Ok(objects),
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(_) => Err("response.convertedObjects is no list".into()),
        },
        _ => Ok(Vec::new()),
    }
}

/// What the webhook made of an object, with all metadata of before but labels and annotations, which are the webhook's.
pub(super) fn accept(original: &Value, mut converted: Value, desired: &str) -> Result<Value, String> {
    if converted["apiVersion"] != desired {
        let is = converted["apiVersion"].as_str().unwrap_or_default();
        return Err(format!("invalid groupVersion (expected {desired}, received {is})"));
    }
    if converted["kind"] != original["kind"] {
        let text = |value: &Value| value["kind"].as_str().unwrap_or_default().to_owned();
        return Err(format!("invalid kind (expected {}, received {})", text(original), text(&converted)));
    }
    for (field, called) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let text = |value: &Value| value["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (before, after) = (text(original), text(&converted));
        if before != after {
            return Err(format!("must have the same {called}: {before} != {after}"));
        }
    }
    let map = converted.as_object_mut().ok_or("it is no object")?;
    let given = match map.remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        Some(_) => return Err("invalid metadata in converted object".into()),
        None => return Err("missing metadata in converted object".into()),
    };
    map.insert("metadata".into(), metadata(&original["metadata"], given)?.into());
    Ok(converted)
}

fn metadata(original: &Value, mut given: Map<String, Value>) -> Result<Map<String, Value>, String> {
    let mut out = original.as_object().cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        out.remove(field);
        match given.remove(field) {
            None | Some(Value::Null) => {}
            Some(Value::Object(texts)) => {
                if original[field].as_object() != Some(&texts) {
                    check(field, &texts)?;
                }
                out.insert(field.into(), texts.into());
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    Ok(out)
}

fn check(field: &str, texts: &Map<String, Value>) -> Result<(), String> {
    let mut total = 0;
    for (key, value) in texts {
        let value = value.as_str().ok_or_else(|| format!("metadata.{field}[{key}] must be a string in converted object"))?;
        let at = |why: String| format!("metadata.{field}: Invalid value: {key:?}: {why}");
        let name = if field == "labels" { key.clone() } else { key.to_lowercase() };
        names::qualified(&name).map_err(|error| at(error.to_string()))?;
        if field == "labels" {
            names::label_value(value).map_err(|error| format!("metadata.labels: Invalid value: {value:?}: {error}"))?;
        }
        total += key.len() + value.len();
    }
    if field == "annotations" && total > MAX_ANNOTATIONS_BYTES {
        return Err(format!("metadata.annotations: Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const V2: &str = "g.test/v2";

    #[test]
    fn an_answer_is_read_or_says_why_not() {
        let answer = |response: Value| json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
        let done = json!({"status": "Success"});
        let objects = read(Version::V1, "u", answer(json!({"uid": "u", "result": done, "convertedObjects": [1]})));
        assert_eq!(objects, Ok(vec![json!(1)]));
        let older = json!({"response": {"result": done, "convertedObjects": [1]}});
        assert_eq!(read(Version::V1Beta1, "u", older.clone()), Ok(vec![json!(1)]));
        for (answer, what) in [
            (older, "expected webhook response of apiextensions.k8s.io/v1"),
            (answer(Value::Null), "no response provided"),
            (answer(json!({"uid": "x", "result": done})), "expected response.uid"),
            (answer(json!({"uid": "u"})), "not 'Success'"),
            (answer(json!({"uid": "u", "result": {"status": "Failure", "message": "I will not"}})), "I will not"),
            (answer(json!({"uid": "u", "result": done, "convertedObjects": {}})), "no list"),
            (json!(7), "expected webhook response"),
        ] {
            let why = read(Version::V1, "u", answer.clone()).expect_err("a lie");
            assert!(why.contains(what), "{answer}: {why}");
        }
    }

    #[test]
    fn metadata_stay_but_for_labels_and_annotations() {
        let original = json!({"apiVersion": "g.test/v1", "kind": "K", "metadata": {"name": "a", "namespace": "n", "uid": "u",
            "resourceVersion": "7", "finalizers": ["f/x"], "labels": {"a": "1"}}, "spec": {"x": 1}});
        let converted = |metadata: Value| json!({"apiVersion": V2, "kind": "K", "metadata": metadata, "spec": {"y": 1}});
        let honest = json!({"name": "a", "namespace": "n", "uid": "u", "labels": {"b": "2"}, "annotations": {"c": "3"}, "finalizers": []});
        let accepted = accept(&original, converted(honest), V2).expect("accepted");
        let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "finalizers": ["f/x"], "labels": {"b": "2"},
            "annotations": {"c": "3"}});
        assert_eq!(accepted, json!({"apiVersion": V2, "kind": "K", "metadata": metadata, "spec": {"y": 1}}));
        let own = |field: &str, value: Value| {
            let mut metadata = json!({"name": "a", "namespace": "n", "uid": "u"});
            metadata[field] = value;
            converted(metadata)
        };
        for (answer, what) in [
            (own("name", json!("b")), "same name"),
            (own("namespace", Value::Null), "same namespace"),
            (own("uid", json!("v")), "same UID"),
            (own("labels", json!({"a": "no value!"})), "metadata.labels"),
            (own("labels", json!({"a": 1})), "must be a string"),
            (own("annotations", json!({"no key!": "1"})), "metadata.annotations"),
            (own("labels", json!([])), "invalid metadata.labels"),
            (converted(json!(1)), "same name"),
            (json!({"apiVersion": "g.test/v1", "kind": "K"}), "invalid groupVersion"),
            (json!({"apiVersion": V2, "kind": "L"}), "invalid kind"),
            (json!("text"), "invalid groupVersion"),
        ] {
            let why = accept(&original, answer.clone(), V2).expect_err("a lie");
            assert!(why.contains(what), "{answer}: {why}");
        }
    }
}
