//! Which requests are those of a node for its client certificate, and whose permission lets them through.

use coracle_pki::request::SigningRequest;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

use super::sign::{NODE_CLIENT, NODE_SERVING, check_node_client, check_node_serving};
use crate::config::OwnNode;

/// What a requester must be allowed to create: subresources of `certificatesigningrequests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    /// A node renews its own certificate.
    SelfNodeClient,
    /// Somebody, such as a bootstrap token, asks for a node's first one.
    NodeClient,
}

impl Permission {
    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "selfnodeclient",
            Self::NodeClient => "nodeclient",
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Self::SelfNodeClient => "Approved after a SubjectAccessReview: a node renews its own client certificate.",
            Self::NodeClient => "Approved after a SubjectAccessReview: the requester may create client certificates of nodes.",
        }
    }
}

/// The permissions that would do, the narrower first; none for a request of another kind.
pub(super) fn recognised(request: &CertificateSigningRequest) -> Vec<Permission> {
    let spec = &request.spec;
    if spec.signer_name != NODE_CLIENT {
        return Vec::new();
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    let Some(asked) = SigningRequest::from_pem(&spec.request.0).ok().filter(|asked| check_node_client(asked, usages).is_ok()) else {
        return Vec::new();
    };
    let own = spec.username.as_ref() == Some(&asked.common_name);
    own.then_some(Permission::SelfNodeClient).into_iter().chain([Permission::NodeClient]).collect()
}

/// Whether this node asks for a serving certificate, by itself and under no other names and addresses than its own.
pub(super) fn is_own_serving(request: &CertificateSigningRequest, node: &OwnNode) -> bool {
    let spec = &request.spec;
    let name = format!("system:node:{}", node.name);
    if spec.signer_name != NODE_SERVING || spec.username.as_ref() != Some(&name) {
        return false;
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    SigningRequest::from_pem(&spec.request.0).is_ok_and(|asked| {
        let own = asked.common_name == name && asked.dns_names.iter().all(|n| *n == node.name);
        own && asked.ips.iter().all(|ip| node.ips.contains(ip)) && check_node_serving(&asked, usages).is_ok()
    })
}
