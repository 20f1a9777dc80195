//! Nobody becomes an administrator by a certificate signing request: the signer of API clients signs none for the group `system:masters`.

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_api::status::Status;
use coracle_pki::request::SigningRequest;
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say, refuse};
use crate::authorization::masters;

const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// The plugin.
#[derive(Debug)]
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Validate]
    }

    async fn validate(&self, write: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let creates = write.operation == Operation::Create
            && write.info.subresource.is_empty()
            && write.is("certificates.k8s.io", "certificatesigningrequests");
        let Some(object) = object.filter(|object| creates && object["spec"]["signerName"] == SIGNER) else { return Ok(()) };
        let request = request(object).map_err(|why| refuse(write, &why))?;
        if request.organisations.iter().any(|group| group == masters::GROUP) {
            return Err(refuse(write, &format!("use of {SIGNER} signer with {} group is not allowed", masters::GROUP)));
        }
        Ok(())
    }
}

/// The request in an object.
pub(super) fn request(object: &Value) -> Result<SigningRequest, String> {
    let pem = STANDARD.decode(object["spec"]["request"].as_str().unwrap_or_default()).unwrap_or_default();
    SigningRequest::from_pem(&pem).map_err(|error| format!("failed to parse CSR: {error}"))
}
