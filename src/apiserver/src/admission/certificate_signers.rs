//! Who may approve or sign a certificate signing request: whoever may `approve` or `sign` for its signer, or for all signers of its domain.

use std::sync::Arc;

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::{
    authorization::{Authorizers, Question},
    request::User,
};

/// Guards `certificatesigningrequests/approval`.
#[derive(Debug)]
pub struct CertificateApproval {
    /// Who may do what.
    pub authorizers: Arc<Authorizers>,
}

/// Guards `certificatesigningrequests/status`.
#[derive(Debug)]
pub struct CertificateSigning {
    /// Who may do what.
    pub authorizers: Arc<Authorizers>,
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, _: Option<&Value>) -> Result<(), Status> {
        // The signer of the object as it is: nobody names another one to be allowed.
        let Some(old) = written(write, "approval") else { return Ok(()) };
        let signer = signer(old);
        if may(&self.authorizers, write.user, "approve", signer) {
            return Ok(());
        }
        Err(refuse(write, &format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some((old, new)) = written(write, "status").zip(object) else { return Ok(()) };
        let same = |field: &str| old["status"][field] == new["status"][field];
        let signer = signer(old);
        if same("certificate") && same("conditions") || may(&self.authorizers, write.user, "sign", signer) {
            return Ok(());
        }
        Err(refuse(write, &format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// The object before a write of this subresource.
fn written<'a>(write: &Attributes<'a>, subresource: &str) -> Option<&'a Value> {
    let concerns = write.operation == Operation::Update
        && write.info.subresource == subresource
        && write.is("certificates.k8s.io", "certificatesigningrequests");
    write.old.filter(|_| concerns)
}

fn signer(request: &Value) -> &str {
    request["spec"]["signerName"].as_str().unwrap_or_default()
}

fn may(authorizers: &Authorizers, user: &User, verb: &str, signer: &str) -> bool {
    let allowed = |name: &str| {
        let blank = Question::blank(user);
        authorizers.allows(&Question {
            verb,
            is_resource: true,
            group: "certificates.k8s.io",
            version: "*",
            resource: "signers",
            name,
            ..blank
        })
    };
    allowed(signer) || allowed(&format!("{}/*", signer.split('/').next().unwrap_or_default()))
}
