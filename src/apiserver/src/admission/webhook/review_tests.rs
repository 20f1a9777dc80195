//! Answers of webhooks, honest and not.

use proptest::prelude::*;

use super::*;

fn answer(response: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn encoded(patch: &str) -> String {
    STANDARD.encode(patch)
}

#[test]
fn an_honest_answer_is_read() {
    let said = json!({"uid": "u", "allowed": true, "patch": encoded(r#"[{"op": "add", "path": "/x", "value": 1}]"#), "patchType": "JSONPatch",
        "warnings": ["w"], "auditAnnotations": {"k": "v"}});
    let verdict = read(Version::V1, "u", true, answer(&said)).expect("it is read");
    assert!(verdict.allowed);
    assert_eq!(verdict.patch, Some(json!([{"op": "add", "path": "/x", "value": 1}])));
    assert_eq!((verdict.warnings, verdict.annotations["k"].as_str()), (vec!["w".to_owned()], "v"));
    let empty =
        read(Version::V1, "u", true, answer(&json!({"uid": "u", "patch": encoded("[]"), "patchType": "JSONPatch"}))).expect("it is read");
    assert_eq!(empty, Verdict::default());
}

#[test]
fn the_older_version_is_asked_for_less() {
    let said = json!({"response": {"allowed": true, "patch": encoded(r#"[{"op": "remove", "path": "/x"}]"#)}});
    assert!(read(Version::V1Beta1, "u", true, said.clone()).expect("it is read").patch.is_some());
    assert!(read(Version::V1Beta1, "u", false, said.clone()).expect("it is read").patch.is_none());
    assert!(read(Version::V1, "u", true, said).is_err());
}

#[test]
fn a_lie_is_named() {
    let patch = encoded(r#"[{"op": "remove", "path": "/x"}]"#);
    for (mutating, answer, what) in [
        (true, json!({}), "absent"),
        (true, json!([]), "absent"),
        (true, answer(&json!({"uid": "other", "allowed": true})), "expected response.uid"),
        (true, json!({"kind": "Pod", "apiVersion": "v1", "response": {"uid": "u"}}), "expected webhook response of admission.k8s.io/v1"),
        (true, answer(&json!({"uid": "u", "allowed": "yes"})), "response: "),
        (true, answer(&json!({"uid": "u", "patch": patch})), "not response.patchType"),
        (true, answer(&json!({"uid": "u", "patchType": "JSONPatch"})), "not response.patch"),
        (true, answer(&json!({"uid": "u", "patch": patch, "patchType": "Magic"})), "unsupported patch type"),
        (true, answer(&json!({"uid": "u", "patch": "%", "patchType": "JSONPatch"})), "base64"),
        (true, answer(&json!({"uid": "u", "patch": encoded("{"), "patchType": "JSONPatch"})), "undecodable patch"),
        (true, answer(&json!({"uid": "u", "patch": encoded("{}"), "patchType": "JSONPatch"})), "undecodable patch"),
        (false, answer(&json!({"uid": "u", "patch": patch})), "may not return response.patch"),
        (false, answer(&json!({"uid": "u", "patchType": "JSONPatch"})), "may not return response.patchType"),
        (false, answer(&json!({"uid": "u", "status": {"code": "x"}})), "not a Status"),
    ] {
        let why = read(Version::V1, "u", mutating, answer.clone()).expect_err("a lie");
        assert!(why.contains(what), "{answer}: {why}");
    }
}

#[test]
fn a_no_is_worded_as_clients_know_it() {
    for (result, code, message) in [
        (Value::Null, 400, "admission webhook \"w\" denied the request without explanation"),
        (json!({"message": "no", "code": 403, "reason": "Forbidden"}), 403, "admission webhook \"w\" denied the request: no"),
        (json!({"reason": "Because", "code": 200}), 400, "admission webhook \"w\" denied the request: Because"),
        (json!({"code": 9999}), 400, "admission webhook \"w\" denied the request without explanation"),
    ] {
        let status = denied("w", Some(&result));
        let body = status.to_value();
        assert_eq!(
            (status.code, &body["code"], &body["message"], &body["status"]),
            (code, &json!(code), &json!(message), &json!("Failure"))
        );
        assert_eq!(body["reason"], result["reason"]);
    }
    let details = json!({"name": "x", "causes": [{"reason": "Odd", "message": "m", "field": "f"}]});
    assert_eq!(denied("w", Some(&json!({"details": details}))).to_value()["details"], details);
}

proptest! {
    #[test]
    fn no_answer_can_hurt(text in "[ -~]{0,60}", code in any::<i64>(), depth in 0usize..4) {
        let mut value = json!({"uid": text, "allowed": code, "status": {"code": code, "message": text}});
        for _ in 0..depth {
            value = json!({"response": value, text.clone(): code});
        }
        for mutating in [true, false] {
            if let Ok(verdict) = read(Version::V1Beta1, "u", mutating, value.clone()) {
                let status = denied("w", verdict.result.as_ref());
                prop_assert!((400..600).contains(&status.code));
            }
        }
    }
}
