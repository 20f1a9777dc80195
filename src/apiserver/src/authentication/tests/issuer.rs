//! An issuer of tokens, for tests: discovery, keys that can be replaced, and whatever claims are asked for.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use coracle_pki::authority::Authority;
use futures::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::web::{self, Web};

/// The issuer.
pub struct TestIssuer {
    /// Where it is.
    pub web: Web,
    keys: Arc<Mutex<Value>>,
    signer: Authority,
    directory: tempfile::TempDir,
}

impl TestIssuer {
    /// With a key of its own.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let signer = Authority::open(&directory.path().join("0")).expect("authorities");
        let keys = Arc::new(Mutex::new(signer.signer().verifier().key_set()));
        let served = Arc::clone(&keys);
        let web = Web::start(move |request| {
            let answer = answer(&request, &served.lock().expect("not poisoned"));
            async move { answer }.boxed()
        })
        .await;
        Self { web, keys, signer, directory }
    }

    /// A token with these claims beside the usual ones.
    pub fn token(&self, claims: Value) -> String {
        let mut all = json!({"iss": self.web.url(), "aud": ["us"], "sub": "alice", "exp": jiff::Timestamp::now().as_second() + 600});
        for (name, value) in claims.as_object().expect("an object") {
            all[name] = value.clone();
        }
        self.signer.signer().sign(&all).expect("signed")
    }

    /// Signs with another key from now on, and says so.
    pub fn rotate(&mut self) {
        self.signer = Authority::open(&self.directory.path().join("1")).expect("authorities");
        *self.keys.lock().expect("not poisoned") = self.signer.signer().verifier().key_set();
    }

    /// A configuration that trusts it.
    pub fn configuration(&self, more: &str) -> String {
        let authority = self.web.authority.replace('\n', "\n      ");
        let url = self.web.url();
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n- issuer:\n    url: {url}\n    audiences: [us]\n    \
             certificateAuthority: |\n      {authority}\n  claimMappings:\n    username: {{claim: sub, prefix: 'oidc:'}}\n    groups: {{claim: groups, prefix: 'oidc:'}}\n{more}"
        )
    }
}

fn answer(request: &Request<Bytes>, keys: &Value) -> web::Answer {
    let host = request.headers()[http::header::HOST].to_str().expect("text");
    match request.uri().path() {
        "/.well-known/openid-configuration" => {
            web::json(&json!({"issuer": format!("https://{host}"), "jwks_uri": format!("https://{host}/keys")}))
        }
        "/keys" => web::json(keys),
        _ => {
            let mut none = Response::new(http_body_util::Empty::new().boxed_unsync());
            *none.status_mut() = StatusCode::NOT_FOUND;
            none
        }
    }
}
