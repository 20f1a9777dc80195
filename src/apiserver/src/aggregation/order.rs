//! The order of groups and versions in discovery: by the priorities of their APIServices. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use coracle_api::{catalogue::Catalogue, custom::newest_first};

use super::service::{ApiService, GROUP};

/// Priorities of the group and its versions where a CustomResourceDefinition defines them, as upstream has them.
pub const DEFINED: (i64, i64) = (1000, 100);
/// Of the group of APIServices, which has none itself: before all others.
const OWN: (i64, i64) = (20_000, 1);

/// Versions of a group with their priorities.
type Versions = &'static [(&'static str, i64)];

/// Upstream's priorities of the groups that are always there, and of their versions.
const BUILTIN: [(&str, i64, Versions); 23] = [
    ("", 18_000, &[("v1", 1)]),
    ("apps", 17_800, &[("v1", 15)]),
    ("events.k8s.io", 17_750, &[("v1", 15)]),
    ("authentication.k8s.io", 17_700, &[("v1", 15)]),
    ("authorization.k8s.io", 17_600, &[("v1", 15)]),
    ("autoscaling", 17_500, &[("v2", 30), ("v1", 15)]),
    ("batch", 17_400, &[("v1", 15)]),
    ("certificates.k8s.io", 17_300, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("networking.k8s.io", 17_200, &[("v1", 15), ("v1beta1", 9)]),
    ("policy", 17_100, &[("v1", 15)]),
    ("rbac.authorization.k8s.io", 17_000, &[("v1", 15)]),
    ("storage.k8s.io", 16_800, &[("v1", 15), ("v1beta1", 9), ("v1alpha1", 1)]),
    ("admissionregistration.k8s.io", 16_700, &[("v1", 15), ("v1beta1", 12), ("v1alpha1", 9)]),
    ("apiextensions.k8s.io", 16_700, &[("v1", 15)]),
    ("scheduling.k8s.io", 16_600, &[("v1", 15), ("v1alpha2", 2)]),
    ("coordination.k8s.io", 16_500, &[("v1", 15), ("v1beta1", 13), ("v1alpha2", 12)]),
    ("node.k8s.io", 16_300, &[("v1", 15)]),
    ("discovery.k8s.io", 16_200, &[("v1", 15)]),
    ("resource.k8s.io", 16_200, &[("v1", 21), ("v1beta2", 15), ("v1beta1", 9), ("v1alpha3", 1)]),
    ("flowcontrol.apiserver.k8s.io", 16_100, &[("v1", 21)]),
    ("internal.apiserver.k8s.io", 16_000, &[("v1alpha1", 9)]),
    ("storagemigration.k8s.io", 15_800, &[("v1beta1", 9)]),
    // metrics-server's own.
    ("metrics.k8s.io", 100, &[("v1beta1", 100)]),
];

/// The priorities of a version that is always there.
pub fn builtin(group: &str, version: &str) -> Option<(i64, i64)> {
    let (_, of_group, versions) = BUILTIN.iter().find(|(name, ..)| *name == group)?;
    versions.iter().find(|(name, _)| *name == version).map(|(_, of_version)| (*of_group, *of_version))
}

/// A version of a group that is served, here or elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// API group, never the core group.
    pub group: &'a str,
    /// API version.
    pub version: &'a str,
    group_priority: i64,
    version_priority: i64,
}

/// All that is served besides the core group.
pub fn entries<'a>(catalogue: &'a Catalogue, services: &'a [Arc<ApiService>]) -> Vec<Entry<'a>> {
    let named: HashMap<(&str, &str), &Arc<ApiService>> = services.iter().map(|s| ((s.group.as_str(), s.version.as_str()), s)).collect();
    let mut seen = HashSet::new();
    let mut out: Vec<Entry<'a>> = Vec::new();
    let here = catalogue.resources().iter().map(|resource| (resource.group.as_str(), resource.version.as_str()));
    let elsewhere = services.iter().filter(|s| s.remote.is_some()).map(|s| (s.group.as_str(), s.version.as_str()));
    for (group, version) in here.chain(elsewhere) {
        if group.is_empty() || !seen.insert((group, version)) {
            continue;
        }
        let told = named.get(&(group, version)).map(|service| (service.group_priority, service.version_priority));
        let own = (group == GROUP).then_some(OWN);
        let (group_priority, version_priority) = told.or(own).or_else(|| builtin(group, version)).unwrap_or(DEFINED);
        out.push(Entry { group, version, group_priority, version_priority });
    }
    out
}

/// Groups with their versions, as the legacy documents list them: equal groups by the names of their APIServices.
pub fn legacy<'a>(mut entries: Vec<Entry<'a>>) -> Vec<(&'a str, Vec<&'a str>)> {
    entries.sort_by_cached_key(|entry| (-entry.group_priority, format!("{}.{}", entry.version, entry.group)));
    grouped(entries)
}

/// Groups with their versions, as the aggregated document lists them: equal groups by their own names.
pub fn aggregated<'a>(mut entries: Vec<Entry<'a>>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut highest: HashMap<&'a str, i64> = HashMap::new();
    for entry in &entries {
        let known = highest.entry(entry.group).or_insert(entry.group_priority);
        *known = entry.group_priority.max(*known);
    }
    let of = |group: &str| highest.get(group).copied().unwrap_or_default();
    entries.sort_by(|a, b| of(b.group).cmp(&of(a.group)).then_with(|| a.group.cmp(b.group)));
    grouped(entries)
}

/// Groups in the order of their first entry, each with its versions in the order of theirs.
fn grouped(mut entries: Vec<Entry<'_>>) -> Vec<(&str, Vec<&str>)> {
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in &entries {
        at.entry(entry.group).or_insert_with(|| {
            groups.push((entry.group, Vec::new()));
            groups.len() - 1
        });
    }
    entries.sort_by(|a, b| b.version_priority.cmp(&a.version_priority).then_with(|| newest_first(a.version, b.version)));
    for entry in &entries {
        groups[at[entry.group]].1.push(entry.version);
    }
    groups
}

#[cfg(test)]
mod tests {
    use coracle_api::{catalogue, discovery};
    use serde_json::json;

    use super::*;

    fn remote(group: &str, version: &str, priorities: (i64, i64)) -> Arc<ApiService> {
        let object = json!({"metadata": {"name": format!("{version}.{group}")},
            "spec": {"group": group, "version": version, "service": {"namespace": "n", "name": "s"},
                "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1}});
        Arc::new(ApiService::read(&object))
    }

    #[test]
    fn built_in_groups_stand_as_upstream_lists_them() {
        let builtin = catalogue::builtin();
        let order = legacy(entries(builtin, &[]));
        let listed = discovery::groups(builtin);
        let groups: Vec<&str> = listed["groups"].as_array().expect("groups").iter().filter_map(|g| g["name"].as_str()).collect();
        assert_eq!(order.iter().map(|(group, _)| *group).collect::<Vec<_>>(), groups);
        for (group, versions) in order {
            assert_eq!(versions, builtin.versions(group), "{group}");
        }
    }

    #[test]
    fn priorities_then_names() {
        let services = [
            remote("z.test", "v1", (100, 15)),
            remote("a.test", "v1beta1", (100, 15)),
            remote("top.test", "v1", (18_500, 1)),
            remote("z.test", "v2", (50, 15)),
            remote("z.test", "v3", (50, 16)),
        ];
        let all = || entries(catalogue::builtin(), &services);
        let order = legacy(all());
        assert_eq!(order[..2].iter().map(|(group, _)| *group).collect::<Vec<_>>(), [GROUP, "top.test"]);
        let tail = |order: &[(&str, Vec<&str>)]| {
            let ours = order[2..].iter().filter(|(group, _)| group.ends_with(".test") && *group != "top.test");
            ours.map(|(g, v)| format!("{g} {v:?}")).collect::<Vec<_>>()
        };
        let z = "z.test [\"v3\", \"v2\", \"v1\"]";
        assert_eq!(tail(&order), [z, "a.test [\"v1beta1\"]"]);
        assert_eq!(tail(&aggregated(all())), ["a.test [\"v1beta1\"]", z]);
    }

    #[test]
    fn every_built_in_version_has_priorities() {
        for resource in catalogue::builtin().resources().iter().filter(|resource| resource.group != GROUP) {
            assert!(builtin(&resource.group, &resource.version).is_some(), "{}", resource.api_version());
        }
    }
}
