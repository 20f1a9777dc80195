//! Who may call the node: the API server by its client certificate, and whoever the API lets, by certificate or bearer token.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use coracle_pki::subject::Subject;
use http::{StatusCode, header::AUTHORIZATION};
use rustls::pki_types::CertificateDer;

use super::{
    answer,
    authorize::{self, Gate, User},
};
use crate::context::chain;

/// The API server's name.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// Those who may everything.
const MASTERS: &str = "system:masters";
/// The group of everybody who is somebody.
const AUTHENTICATED: &str = "system:authenticated";

/// Who is at the other end of a connection: the subject of the certificate that TLS has verified against the cluster's client authority, if one
/// was shown.
#[derive(Clone, Debug)]
pub struct Caller(Option<Subject>);

impl Caller {
    /// By the certificates of the connection.
    pub fn of(presented: Option<&[CertificateDer<'_>]>) -> Self {
        Self(presented.and_then(<[_]>::first).and_then(|own| Subject::of(own).ok()))
    }

    /// Whether nobody need be asked: the API server has asked its own authorizers, and must be heard when nobody else answers.
    fn may_everything(&self) -> bool {
        self.0.as_ref().is_some_and(|subject| subject.name == API_SERVER || subject.groups.iter().any(|group| group == MASTERS))
    }

    fn user(&self) -> Option<User> {
        let subject = self.0.as_ref()?;
        let groups = subject.groups.iter().cloned().chain([AUTHENTICATED.to_owned()]).collect();
        Some(User { name: subject.name.clone(), groups, ..User::default() })
    }
}

/// The layer around all routes: lets in who may call.
pub async fn those_who_may(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    if caller.as_ref().is_some_and(Caller::may_everything) {
        return next.run(request).await;
    }
    let asked = Asked {
        user: caller.as_ref().and_then(Caller::user),
        token: bearer(&request).map(str::to_owned),
        verb: authorize::verb(request.method()),
        path: request.uri().path().to_owned(),
    };
    match check(&gate, asked).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal,
    }
}

/// What a request says of who asks for what.
struct Asked {
    /// By certificate.
    user: Option<User>,
    token: Option<String>,
    verb: &'static str,
    path: String,
}

async fn check(gate: &Gate, asked: Asked) -> Result<(), Response> {
    let unsaid = |error: authorize::AskError| {
        tracing::warn!(error = chain(&error), path = asked.path, "a caller of the node is turned away");
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
    };
    let user = match (&asked.user, &asked.token) {
        (Some(user), _) => Some(user.clone()),
        (None, Some(token)) => gate.user(token).await.map_err(unsaid)?,
        (None, None) => None,
    };
    let user = user.ok_or_else(|| answer::text(StatusCode::UNAUTHORIZED, "Unauthorized"))?;
    let (verb, subresources) = (asked.verb, authorize::subresources(&asked.path));
    match gate.allows(&user, verb, subresources).await.map_err(unsaid)? {
        true => Ok(()),
        false => {
            let list = subresources.join(" ");
            let text = format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{list}])\n", user.name);
            Err(answer::text(StatusCode::FORBIDDEN, text))
        }
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.headers().get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn who_need_not_be_asked_for() {
        let subject = |name: &str, group: &str| Caller(Some(Subject { name: name.into(), groups: vec![group.into()], ends_s: 0 }));
        for (caller, may) in [
            (subject(API_SERVER, "any"), true),
            (subject("admin", MASTERS), true),
            (subject("system:node:n", "system:nodes"), false),
            (subject(MASTERS, API_SERVER), false),
            (Caller(None), false),
            (Caller::of(Some(&[CertificateDer::from(vec![0])])), false),
        ] {
            assert_eq!(caller.may_everything(), may, "{caller:?}");
        }
        assert_eq!(subject("a", "g").user().map(|user| user.groups), Some(vec!["g".to_owned(), AUTHENTICATED.to_owned()]));
        assert_eq!(Caller(None).user(), None);
    }

    #[test]
    fn tokens_of_requests() {
        for (header, expected) in
            [("Bearer a.b", Some("a.b")), ("bearer  x", Some("x")), ("Bearer ", None), ("Basic abc", None), ("x", None)]
        {
            let request = Request::get("/").header(AUTHORIZATION, header).body(Body::empty()).expect("a request");
            assert_eq!(bearer(&request), expected, "{header}");
        }
    }
}
