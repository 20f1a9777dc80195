//! A CertificateSigningRequest says who asked, whatever its sender wrote there: signers and approvers decide by it.
//!
//! Upstream does this in the storage of the kind; here the user is known to plugins alone.

use async_trait::async_trait;
use coracle_api::status::Status;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, Say};
use crate::request::User;

/// What is known of the requester.
const FIELDS: [&str; 4] = ["username", "uid", "groups", "extra"];

/// The plugin.
#[derive(Debug)]
pub struct CertificateRequester;

#[async_trait]
impl Plugin for CertificateRequester {
    fn name(&self) -> &'static str {
        "CertificateRequester"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate]
    }

    async fn mutate(&self, write: &Attributes<'_>, request: &mut Value) -> Result<(), Status> {
        let concerns = write.is("certificates.k8s.io", "certificatesigningrequests") && write.info.subresource.is_empty();
        if !concerns {
            return Ok(());
        }
        match (write.operation, write.old) {
            (Operation::Create, _) => set(&mut request["spec"], &requester(write.user)),
            (Operation::Update, Some(old)) => set(&mut request["spec"], &old["spec"]),
            _ => {}
        }
        Ok(())
    }
}

fn requester(user: &User) -> Value {
    let mut out = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        out["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        out["extra"] = json!(user.extra);
    }
    out
}

fn set(spec: &mut Value, from: &Value) {
    if spec.is_null() {
        *spec = json!({});
    }
    let Some(spec) = spec.as_object_mut() else { return };
    for field in FIELDS {
        match from.get(field) {
            Some(value) => spec.insert(field.to_owned(), value.clone()),
            None => spec.remove(field),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_asks_in_the_name_of_another() {
        let mut spec = json!({"username": "admin", "groups": ["system:masters"], "uid": "1", "request": "x"});
        set(&mut spec, &requester(&User { name: "bob".into(), groups: vec!["dev".into()], ..User::default() }));
        assert_eq!(spec, json!({"username": "bob", "groups": ["dev"], "request": "x"}));
    }
}
