//! The life of a token.

use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::objects::PodRecord;

/// Objects by resource and name.
#[derive(Debug, Default)]
pub(in crate::authentication) struct Given(pub Mutex<BTreeMap<(String, String), Value>>);

impl Given {
    pub fn put(&self, resource: &str, name: &str, uid: &str, deleted: Option<i64>) {
        let mut object = json!({"metadata": {"name": name, "uid": uid}});
        if let Some(second) = deleted {
            object["metadata"]["deletionTimestamp"] = at(second).to_string().into();
        }
        self.0.lock().unwrap().insert((resource.into(), name.into()), object);
    }
}

#[async_trait::async_trait]
impl Objects for Given {
    async fn appears(&self, group: &str, resource: &str, namespace: &str, name: &str, _: std::time::Duration) -> Option<Value> {
        self.get(group, resource, namespace, name)
    }

    fn get(&self, _: &str, resource: &str, _: &str, name: &str) -> Option<Value> {
        self.0.lock().unwrap().get(&(resource.into(), name.into())).cloned()
    }

    fn list(&self, _: &str, _: &str, _: &str) -> Vec<Value> {
        Vec::new()
    }

    fn version(&self, _: &str, _: &str) -> u64 {
        0
    }

    fn pods_on(&self, _: &str, _: &str) -> Vec<PodRecord> {
        Vec::new()
    }
}

const START: i64 = 1_800_000_000;
const ACCOUNT: (&str, &str, &str) = ("ns", "web", "u-web");

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(START + second).unwrap()
}

fn tokens() -> (tempfile::TempDir, Arc<Given>, Tokens) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(coracle_pki::authority::Authority::open(dir.path()).unwrap());
    let objects = Arc::new(Given::default());
    objects.put("serviceaccounts", "web", "u-web", None);
    objects.put("pods", "p", "u-p", None);
    let tokens = Tokens::new(authority, Arc::clone(&objects) as Arc<dyn Objects>, "https://kubernetes.default.svc".into());
    (dir, objects, tokens)
}

fn pod() -> Bound {
    Bound::Pod(Named { name: "p".into(), uid: "u-p".into() }, Some(("n".into(), Some("u-n".into()))))
}

#[test]
fn a_bound_token_says_who_and_where() {
    let (_dir, _, tokens) = tokens();
    let issued = tokens.issue(ACCOUNT, Some(&pod()), &[], 600, at(0)).unwrap();
    let (user, audiences) = tokens.user(&issued.token, &[], at(1)).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:ns:web", "u-web"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    for (key, value) in [("pod-name", "p"), ("pod-uid", "u-p"), ("node-name", "n"), ("node-uid", "u-n")] {
        assert_eq!(user.extra[&format!("authentication.kubernetes.io/{key}")], [value]);
    }
    assert_eq!(audiences, ["https://kubernetes.default.svc"]);
    assert_eq!(issued.expires, at(600));
}

#[test]
fn a_token_ends_with_its_time() {
    let (_dir, _, tokens) = tokens();
    let token = tokens.issue(ACCOUNT, None, &[], 600, at(0)).unwrap().token;
    for (second, ok) in [(-61, false), (-60, true), (0, true), (660, true), (661, false)] {
        assert_eq!(tokens.user(&token, &[], at(second)).is_ok(), ok, "at {second}");
    }
    let token = tokens.issue(ACCOUNT, Some(&pod()), &[], POD_TOKEN_S, at(0)).unwrap().token;
    assert!(tokens.user(&token, &[], at(EXTENDED_S)).is_ok());
    let token = tokens.issue(ACCOUNT, Some(&pod()), &["other".into()], POD_TOKEN_S, at(0)).unwrap().token;
    assert_eq!(tokens.user(&token, &["other".into()], at(EXTENDED_S)).unwrap_err(), TokenError::Expired);
}

#[test]
fn a_token_dies_with_what_it_is_bound_to() {
    let (_dir, objects, tokens) = tokens();
    let token = tokens.issue(ACCOUNT, Some(&pod()), &[], 600, at(0)).unwrap().token;
    let dead = |kind, name: &str| Err(TokenError::Dead { kind, name: name.into() });
    let ask = |second| tokens.user(&token, &[], at(second)).map(|_| ());
    assert_eq!(ask(100), Ok(()));
    objects.put("pods", "p", "u-p", Some(100));
    assert_eq!(ask(160), Ok(()), "a pod that is going may still speak");
    assert_eq!(ask(161), dead("Pod", "p"));
    objects.put("pods", "p", "another", None);
    assert_eq!(ask(100), dead("Pod", "p"));
    objects.put("pods", "p", "u-p", None);
    objects.put("serviceaccounts", "web", "another", None);
    assert_eq!(ask(100), dead("ServiceAccount", "web"));
    objects.0.lock().unwrap().clear();
    assert_eq!(ask(100), dead("ServiceAccount", "web"));
}

#[test]
fn a_token_is_for_its_audience_and_by_its_issuer() {
    let (_dir, objects, tokens) = tokens();
    let token = tokens.issue(ACCOUNT, None, &["vault".into()], 600, at(0)).unwrap().token;
    assert_eq!(tokens.user(&token, &[], at(0)).unwrap_err(), TokenError::Audience(vec!["vault".into()]));
    assert_eq!(tokens.user(&token, &["x".into(), "vault".into()], at(0)).unwrap().1, ["vault"]);
    let elsewhere = Tokens::new(Arc::clone(&tokens.authority), objects, "https://elsewhere".into());
    assert_eq!(elsewhere.user(&token, &["vault".into()], at(0)).unwrap_err(), TokenError::Issuer(tokens.issuer.clone()));
}

#[test]
fn a_token_of_a_secret_lives_as_long_as_the_secret() {
    use base64::Engine as _;

    let (_dir, objects, tokens) = tokens();
    let claim = |name: &str| format!("kubernetes.io/serviceaccount/{name}");
    let claims = json!({
        "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:ns:web", claim("namespace"): "ns",
        claim("secret.name"): "s", claim("service-account.name"): "web", claim("service-account.uid"): "u-web",
    });
    let token = tokens.signer().sign(&claims).unwrap();
    let ask = || tokens.user(&token, &[], at(0)).map(|(user, _)| user.name);
    let dead = |kind, name: &str| Err(TokenError::Dead { kind, name: name.into() });
    assert_eq!(ask(), dead("Secret", "s"));
    let secret = |token: &str, more: Value| {
        let mut secret = json!({"metadata": {"name": "s"}, "data": {"token": base64::engine::general_purpose::STANDARD.encode(token)}});
        for (name, value) in more.as_object().unwrap() {
            secret["metadata"][name] = value.clone();
        }
        objects.0.lock().unwrap().insert(("secrets".into(), "s".into()), secret);
    };
    secret(&token, json!({}));
    assert_eq!(ask().as_deref(), Ok("system:serviceaccount:ns:web"));
    assert_eq!(tokens.user(&token, &["vault".into()], at(0)).unwrap_err(), TokenError::Audience(vec![tokens.issuer.clone()]));
    secret("another", json!({}));
    assert_eq!(ask(), dead("Secret", "s"));
    secret(&token, json!({"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}));
    assert_eq!(ask(), dead("Secret", "s"));
    secret(&token, json!({}));
    objects.put("serviceaccounts", "web", "another", None);
    assert_eq!(ask(), dead("ServiceAccount", "web"));
    objects.put("serviceaccounts", "web", "u-web", Some(0));
    assert_eq!(ask(), dead("ServiceAccount", "web"));
}
