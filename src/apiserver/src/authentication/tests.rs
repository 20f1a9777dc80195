//! Authentication as a whole: who is known by what, and what strangers cost the others.

pub mod issuer;
pub mod web;

use std::{sync::atomic::Ordering, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use coracle_pki::authority::Authority;
use futures::{FutureExt as _, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use rustls::crypto::ring::default_provider;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{certificate::Verifier, service_account::tests::Given, *};
use issuer::TestIssuer;
use web::Web;

const OWN: &str = "https://kubernetes.default.svc";

struct Fixture {
    directory: TempDir,
    objects: Arc<Given>,
    authenticator: Arc<Authenticator>,
}

impl Fixture {
    fn new(configuration: Option<&str>, webhook: Option<token_webhook::Settings>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Arc::new(Authority::open(&directory.path().join("tls")).expect("authorities"));
        let provider = Arc::new(default_provider());
        let objects = Arc::new(Given::default());
        let tokens = Arc::new(Tokens::new(Arc::clone(&authority), Arc::clone(&objects) as _, OWN.into()));
        let file = configuration.map(|text| {
            let file = directory.path().join("authentication.yaml");
            std::fs::write(&file, text).expect("written");
            file
        });
        let verifiers = (
            Verifier::new(authority.client_ca(), &provider).expect("a verifier"),
            FrontProxy::new(authority.front_proxy_ca(), &provider).expect("a verifier"),
        );
        let settings = Settings { configuration: file, token_webhook: webhook };
        let authenticator = Authenticator::new(verifiers, tokens, Arc::clone(&objects) as _, Some("let-me-in"), &settings);
        Self { directory, objects, authenticator: Arc::new(authenticator.expect("settings that hold")) }
    }

    async fn ask(&self, token: &str) -> Result<User, String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
        let found = self.authenticator.authenticate(&Caller::Connection(None), &mut headers, "/api", Timestamp::now()).await;
        found.map_err(|error| match error {
            AuthenticationError::Token(refusals) => refusals.to_string(),
            other => other.to_string(),
        })
    }

    fn account_token(&self) -> String {
        self.objects.put("serviceaccounts", "web", "u-web", None);
        let tokens = &self.authenticator.tokens;
        tokens.issue(("ns", "web", "u-web"), None, &[], 600, Timestamp::now()).expect("issued").token
    }

    fn put_bootstrap_token(&self) {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let data = json!({"token-id": encode("abcdef"), "token-secret": encode("0123456789abcdef"), "usage-bootstrap-authentication": encode("true")});
        let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data});
        self.objects.0.lock().expect("not poisoned").insert(("secrets".into(), "bootstrap-token-abcdef".into()), secret);
    }
}

#[tokio::test]
async fn each_token_is_known_by_its_kind() {
    let issuer = TestIssuer::start().await;
    let all = Fixture::new(Some(&issuer.configuration("")), None);
    all.put_bootstrap_token();
    let account = all.account_token();
    for (token, name, groups) in [
        ("let-me-in".to_owned(), "coracle:bootstrap", &["system:masters", "system:authenticated"][..]),
        (account, "system:serviceaccount:ns:web", &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]),
        ("abcdef.0123456789abcdef".into(), "system:bootstrap:abcdef", &["system:bootstrappers", "system:authenticated"]),
        (issuer.token(json!({"groups": ["dev"]})), "oidc:alice", &["oidc:dev", "system:authenticated"]),
    ] {
        let user = all.ask(&token).await.expect("known");
        assert_eq!((user.name.as_str(), user.groups.iter().map(String::as_str).collect::<Vec<_>>()), (name, groups.to_vec()));
    }
    assert_eq!(issuer.web.asked.load(Ordering::SeqCst), 2, "discovery and keys, once");
    assert!(all.ask("nonsense").await.is_err());
    let (user, audiences) =
        all.authenticator.token("abcdef.0123456789abcdef", &["other".into(), OWN.into()], Timestamp::now()).await.expect("known");
    assert_eq!((user.name.as_str(), audiences), ("system:bootstrap:abcdef", vec![OWN.to_owned()]));
    let elsewhere = all.authenticator.token("abcdef.0123456789abcdef", &["other".into()], Timestamp::now()).await;
    assert!(elsewhere.is_err(), "such a token is for the API server alone");
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_refused_without_a_question() {
    let issuer = TestIssuer::start().await;
    let all = Fixture::new(Some(&issuer.configuration("")), None);
    let encode = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({"iss": issuer.web.url(), "aud": "us", "sub": "alice", "exp": 4_000_000_000_i64});
    let now = Timestamp::now().as_second();
    for (token, why) in [
        (issuer.token(json!({"aud": ["them"]})), "expected audience"),
        (issuer.token(json!({"aud": null})), "expected audience"),
        (issuer.token(json!({"exp": now - 1})), "expired"),
        (issuer.token(json!({"exp": null})), "expired"),
        (issuer.token(json!({"nbf": now + 3600})), "not valid yet"),
        (issuer.token(json!({"iss": "https://nobody.test"})), "as a ServiceAccount's token"),
        (format!("{}.{}.", encode(&json!({"alg": "none"})), encode(&claims)), "algorithm that is not allowed"),
        (format!("{}.{}.AAAA", encode(&json!({"alg": "HS256"})), encode(&claims)), "algorithm that is not allowed"),
    ] {
        let refused = all.ask(&token).await.expect_err("refused");
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(issuer.web.asked.load(Ordering::SeqCst), 0, "the issuer was not asked for any of them");
    let refused = all.ask(&issuer.token(json!({"sub": 7}))).await.expect_err("refused");
    assert!(refused.contains("\"sub\" is not a string"), "{refused}");
}

/// Lets this much time pass for everybody at once.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

#[tokio::test]
async fn new_keys_are_fetched_when_a_token_needs_them() {
    let mut issuer = TestIssuer::start().await;
    let all = Fixture::new(Some(&issuer.configuration("")), None);
    let old = issuer.token(json!({}));
    all.ask(&old).await.expect("known");
    issuer.rotate();
    let new = issuer.token(json!({}));
    let refused = all.ask(&new).await.expect_err("the issuer was asked a moment ago");
    assert!(refused.contains("not signed by a key of the issuer"), "{refused}");
    pass(Duration::from_secs(2)).await;
    all.ask(&new).await.expect("known by the new key");
    assert_eq!(issuer.web.asked.load(Ordering::SeqCst), 4);
    all.ask(&old).await.expect_err("the old key is gone");
}

#[tokio::test]
async fn a_flood_of_strangers_asks_the_issuer_once() {
    let issuer = TestIssuer::start().await;
    let all = Fixture::new(Some(&issuer.configuration("")), None);
    let stranger = TestIssuer::start().await;
    let forged: Vec<String> = (0..100).map(|n| stranger.token(json!({"iss": issuer.web.url(), "n": n}))).collect();
    let answers = futures::future::join_all(forged.iter().map(|token| all.ask(token))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(issuer.web.asked.load(Ordering::SeqCst), 2);
    all.ask(&issuer.token(json!({}))).await.expect("who is known stays known");
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_up_nobody_else() {
    let web = Web::start(|_| futures::future::pending().boxed()).await;
    let issuer = TestIssuer::start().await;
    let text = issuer.configuration("").replace(&issuer.web.url(), &web.url());
    let authority = |of: &Web| of.authority.replace('\n', "\n      ");
    let all = Fixture::new(Some(&text.replace(&authority(&issuer.web), &authority(&web))), None);
    let account = all.account_token();
    let token = issuer.token(json!({"iss": web.url()}));
    let mut waiting = Box::pin(all.ask(&token));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    all.ask(&account).await.expect("others go on");
    // Until the request is there, time goes as it goes.
    while web.asked.load(Ordering::SeqCst) == 0 {
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    tokio::time::pause();
    let refused = waiting.await.expect_err("refused in the end");
    assert!(refused.contains("did not answer within 10 s"), "{refused}");
}

#[tokio::test]
async fn keys_without_end_are_not_read_to_their_end() {
    let issuer = TestIssuer::start().await;
    let url = std::sync::OnceLock::<String>::new();
    let url = Arc::new(url);
    let own = Arc::clone(&url);
    let web = Web::start(move |request| {
        let url = own.get().cloned().unwrap_or_default();
        let answer = match request.uri().path() {
            "/keys" => {
                let chunk = Bytes::from(vec![b' '; 1 << 20]);
                let body = stream::repeat_with(move || Ok(http_body::Frame::data(chunk.clone()))).take(100);
                http::Response::new(StreamBody::new(body).boxed_unsync())
            }
            _ => web::json(&json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
        };
        async move { answer }.boxed()
    })
    .await;
    url.set(web.url()).expect("set once");
    let text = issuer.configuration("").replace(&issuer.web.url(), &web.url());
    let authority = |of: &Web| of.authority.replace('\n', "\n      ");
    let all = Fixture::new(Some(&text.replace(&authority(&issuer.web), &authority(&web))), None);
    let refused = all.ask(&issuer.token(json!({"iss": web.url()}))).await.expect_err("refused");
    assert!(refused.contains("larger than 1048576 bytes"), "{refused}");
}

#[tokio::test]
async fn who_answers_and_closes_has_answered() {
    let text = "x".repeat(100_000);
    let expected = text.clone();
    let handler = move |_| {
        let answer = web::json(&json!(text));
        async move { answer }.boxed()
    };
    let web = Web::start_with(handler, false).await;
    let remote = remote::Remote::new(&remote::Trust { authority: web.authority.clone(), ..Default::default() }).expect("a client");
    for _ in 0..20 {
        let request = http::Request::get(web.url()).body(Bytes::new()).expect("a request");
        let (status, body) = remote.ask(request, Duration::from_secs(10), 1 << 20).await.expect("an answer");
        assert_eq!((status, serde_json::from_slice::<Value>(&body).expect("JSON")), (http::StatusCode::OK, json!(expected)));
    }
}

#[tokio::test]
async fn discovery_must_be_the_issuers_own() {
    let issuer = TestIssuer::start().await;
    let discovery = format!("{}/.well-known/openid-configuration", issuer.web.url());
    let text = issuer
        .configuration("")
        .replace(&format!("url: {}", issuer.web.url()), &format!("url: https://other.test\n    discoveryURL: {discovery}"));
    let all = Fixture::new(Some(&text), None);
    let refused = all.ask(&issuer.token(json!({"iss": "https://other.test"}))).await.expect_err("refused");
    assert!(refused.contains("discovery is that of"), "{refused}");
}

#[tokio::test]
async fn a_new_configuration_takes_the_place_of_the_old() {
    let issuer = TestIssuer::start().await;
    let all = Fixture::new(Some(&issuer.configuration("")), None);
    let token = issuer.token(json!({}));
    all.ask(&token).await.expect("known");
    let parse = |text: &str| configuration::parse(text, OWN).expect("it holds");
    let renamed = issuer.configuration("").replace("oidc:", "corp:");
    all.authenticator.configure(parse(&renamed)).expect("taken");
    assert_eq!(all.ask(&token).await.expect("known").name, "corp:alice");
    assert_eq!(issuer.web.asked.load(Ordering::SeqCst), 2, "the issuer's keys are still known");
    let none = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    all.authenticator.configure(parse(none)).expect("taken");
    all.ask(&token).await.expect_err("nobody knows it any more");
}

#[tokio::test]
async fn a_webhook_vouches_for_tokens_and_is_not_asked_twice() {
    let web = Web::start(|request| {
        let review: Value = serde_json::from_slice(request.body()).expect("JSON");
        assert_eq!((&review["kind"], &review["apiVersion"]), (&json!("TokenReview"), &json!("authentication.k8s.io/v1")));
        assert_eq!(request.headers()[AUTHORIZATION], "Bearer mine");
        let status = match review["spec"]["token"].as_str() {
            Some("good") => {
                json!({"authenticated": true, "user": {"username": "hooked", "uid": "7", "groups": ["g"], "extra": {"a": ["b"]}}})
            }
            Some("foreign") => json!({"authenticated": true, "audiences": ["other"], "user": {"username": "hooked"}}),
            _ => json!({"authenticated": false, "error": "who is that?"}),
        };
        let answer = web::json(&json!({"kind": "TokenReview", "status": status}));
        async move { answer }.boxed()
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("webhook.yaml");
    std::fs::write(directory.path().join("ca.pem"), &web.authority).expect("written");
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: '{}/review', certificate-authority: ca.pem}}}}]\nusers: [{{name: u, user: {{token: mine}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n",
        web.url()
    );
    std::fs::write(&kubeconfig, text).expect("written");
    let settings = token_webhook::Settings { kubeconfig, version: token_webhook::Version::V1, cache: Duration::from_secs(60) };
    let all = Fixture::new(None, Some(settings));
    for _ in 0..3 {
        let user = all.ask("good").await.expect("vouched for");
        assert_eq!((user.name.as_str(), user.uid.as_str(), &user.groups[..]), ("hooked", "7", &["g".to_owned(), AUTHENTICATED.into()][..]));
        assert_eq!(user.extra["a"], ["b"]);
        assert!(all.ask("bad").await.expect_err("not vouched for").contains("who is that?"));
    }
    assert_eq!(web.asked.load(Ordering::SeqCst), 2, "verdicts are remembered");
    assert!(all.ask("foreign").await.expect_err("for somebody else").contains("[\"other\"]"));
    all.ask(&all.account_token()).await.expect("known without a question");
    assert_eq!(web.asked.load(Ordering::SeqCst), 3);
    pass(Duration::from_secs(61)).await;
    all.ask("good").await.expect("asked again");
    assert_eq!(web.asked.load(Ordering::SeqCst), 4);
    drop(all.directory);
}

#[tokio::test]
async fn a_webhook_that_fails_is_no_verdict() {
    let web = Web::start(|_| {
        let mut answer = web::json(&json!({}));
        *answer.status_mut() = http::StatusCode::FORBIDDEN;
        async move { answer }.boxed()
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = directory.path().join("webhook.yaml");
    let data = base64::engine::general_purpose::STANDARD.encode(&web.authority);
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: '{}', certificate-authority-data: {data}}}}}]\ncontexts: [{{name: x, context: {{cluster: c}}}}]\ncurrent-context: x\n",
        web.url()
    );
    std::fs::write(&kubeconfig, text).expect("written");
    let settings = token_webhook::Settings { kubeconfig, version: token_webhook::Version::V1Beta1, cache: Duration::from_secs(60) };
    let all = Fixture::new(None, Some(settings));
    for asked in 1..3 {
        assert!(all.ask("good").await.expect_err("refused").contains("403"));
        assert_eq!(web.asked.load(Ordering::SeqCst), asked, "a failure is not remembered");
    }
}
