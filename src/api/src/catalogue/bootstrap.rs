//! Objects that a cluster has from its first second: RBAC defaults, flow schemas, priority levels and classes.

use serde_json::Value;

const OBJECTS: &str = include_str!("../../catalogue/bootstrap-1.36.jsonl");

/// All of them, in an order in which they can be created.
pub fn objects() -> Vec<Value> {
    OBJECTS.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of_kind(kind: &str) -> Vec<Value> {
    let marker = format!("\"kind\":\"{kind}\",\"metadata\"");
    OBJECTS.lines().filter(|line| line.contains(&marker)).filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Default ClusterRoles.
pub fn cluster_roles() -> Vec<Value> {
    of_kind("ClusterRole")
}

/// Default ClusterRoleBindings.
pub fn cluster_role_bindings() -> Vec<Value> {
    of_kind("ClusterRoleBinding")
}

/// Default Roles of kube-system and kube-public.
pub fn roles() -> Vec<Value> {
    of_kind("Role")
}

/// Default RoleBindings of kube-system and kube-public.
pub fn role_bindings() -> Vec<Value> {
    of_kind("RoleBinding")
}

/// Default FlowSchemas.
pub fn flow_schemas() -> Vec<Value> {
    of_kind("FlowSchema")
}

/// Default PriorityLevelConfigurations.
pub fn priority_levels() -> Vec<Value> {
    of_kind("PriorityLevelConfiguration")
}

/// `system-node-critical` and `system-cluster-critical`.
pub fn priority_classes() -> Vec<Value> {
    of_kind("PriorityClass")
}
