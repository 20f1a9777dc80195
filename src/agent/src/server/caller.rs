//! Who may call the node: the API server, by its client certificate.

use axum::{extract::Request, middleware::Next, response::Response};
use coracle_pki::subject::Subject;
use http::StatusCode;
use rustls::pki_types::CertificateDer;

use super::answer;

/// The API server's name.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// Those who may everything.
const MASTERS: &str = "system:masters";

/// Who is at the other end of a connection: the subject of the certificate that TLS has verified against the cluster's client authority.
#[derive(Clone, Debug)]
pub struct Caller(Option<Subject>);

impl Caller {
    /// By the certificates of the connection.
    pub fn of(presented: Option<&[CertificateDer<'_>]>) -> Self {
        Self(presented.and_then(<[_]>::first).and_then(|own| Subject::of(own).ok()))
    }

    fn may_call(&self) -> bool {
        self.0.as_ref().is_some_and(|subject| subject.name == API_SERVER || subject.groups.iter().any(|group| group == MASTERS))
    }
}

/// The layer around all routes: lets in who may call.
pub async fn only_the_api_server(request: Request, next: Next) -> Response {
    if request.extensions().get().is_some_and(Caller::may_call) {
        return next.run(request).await;
    }
    answer::text(StatusCode::FORBIDDEN, "only the cluster's API server may call a node\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_call() {
        let subject = |name: &str, group: &str| Caller(Some(Subject { name: name.into(), groups: vec![group.into()], ends_s: 0 }));
        for (caller, may) in [
            (subject(API_SERVER, "any"), true),
            (subject("admin", MASTERS), true),
            (subject("system:node:n", "system:nodes"), false),
            (subject(MASTERS, API_SERVER), false),
            (Caller(None), false),
            (Caller::of(Some(&[CertificateDer::from(vec![0])])), false),
        ] {
            assert_eq!(caller.may_call(), may, "{caller:?}");
        }
    }
}
