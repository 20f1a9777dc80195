//! NamespaceLifecycle: nothing is created where there is no namespace or where it is ending, and the namespaces of the system stay.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coracle_api::status::{Cause, Status};
use serde_json::Value;

use super::{Attributes, Operation, Plugin, Say};
use crate::objects::Objects;

/// May not be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long a namespace that another server has just created may take to be seen here.
const PATIENCE: Duration = Duration::from_millis(50);

/// The plugin.
#[derive(Debug)]
pub struct NamespaceLifecycle {
    /// Where namespaces are looked up.
    pub objects: Arc<dyn Objects>,
}

#[async_trait]
impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn says(&self) -> &'static [Say] {
        &[Say::Mutate, Say::Validate]
    }

    async fn mutate(&self, write: &Attributes<'_>, _object: &mut Value) -> Result<(), Status> {
        let info = write.info;
        let elsewhere =
            info.namespace.is_empty() || matches!((&*info.group, &*info.resource), ("authorization.k8s.io", _) | ("", "namespaces"));
        if elsewhere || !matches!(write.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let namespace = self.objects.appears("", "namespaces", "", &info.namespace, PATIENCE).await;
        let namespace = namespace.ok_or_else(|| Status::not_found("", "namespaces", &info.namespace))?;
        let ending = namespace.pointer("/status/phase").is_some_and(|phase| phase == "Terminating");
        if ending && write.operation == Operation::Create { Err(ending_namespace(write)) } else { Ok(()) }
    }

    async fn validate(&self, write: &Attributes<'_>, _object: Option<&Value>) -> Result<(), Status> {
        let info = write.info;
        let namespace = (info.group.as_str(), info.resource.as_str()) == ("", "namespaces");
        if namespace && write.operation == Operation::Delete && IMMORTAL.contains(&info.name.as_str()) {
            return Err(Status::forbidden("", "namespaces", &info.name, "this namespace may not be deleted"));
        }
        Ok(())
    }
}

/// The refusal that controllers recognise by its cause.
fn ending_namespace(write: &Attributes<'_>) -> Status {
    let info = write.info;
    let why = format!("unable to create new content in namespace {} because it is being terminated", info.namespace);
    let mut status = Status::forbidden(&info.group, &info.resource, &info.name, &why);
    status.details.get_or_insert_default().causes = vec![Cause {
        reason: "NamespaceTerminating",
        field: "metadata.namespace".into(),
        message: format!("namespace {} is being terminated", info.namespace),
    }];
    status
}
