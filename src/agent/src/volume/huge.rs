//! Volumes of huge pages: which size of page a medium means. Pure.

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;

use crate::{pod::spec, resources};

/// The medium of huge pages, with `-<size>` after it or without.
const MEDIUM: &str = "HugePages";
/// What the name of the resource has before the size.
const RESOURCE: &str = "hugepages-";

/// Why a medium means no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageSizeError {
    /// which of several
    #[error("medium HugePages says no page size, and the pod asks for pages of several: name one as HugePages-<size>")]
    Several,
    /// none
    #[error("the pod asks for no huge pages")]
    None,
    /// not that
    #[error("the pod asks for no huge pages of {0}")]
    NotAsked(String),
    /// no size
    #[error("{0:?} is not a page size")]
    NoSize(String),
}

/// Whether a medium is of huge pages.
pub fn is_huge(medium: Option<&str>) -> bool {
    medium.is_some_and(|m| m == MEDIUM || m.strip_prefix(MEDIUM).is_some_and(|rest| rest.starts_with('-')))
}

/// Bytes of a page of the medium: the one that it names, or the only one that the pod asks for.
pub fn page_bytes(pod: &Pod, medium: &str) -> Result<i64, PageSizeError> {
    let size = |text: &str| text.parse::<Quantity>().ok().map(|q| q.units()).filter(|n| *n > 0);
    let parts = spec::parts(pod);
    let requests = parts.iter().flat_map(|p| resources::requests(&p.spec).into_iter().chain(resources::limits_of(&p.spec)));
    let mut asked: Vec<i64> = requests.filter_map(|(name, _)| size(name.strip_prefix(RESOURCE)?)).collect();
    let of_pod = pod.spec.as_ref().and_then(|s| s.resources.as_ref());
    let of_pod = resources::amounts(of_pod.and_then(|r| r.limits.as_ref().or(r.requests.as_ref())));
    asked.extend(of_pod.keys().filter_map(|name| size(name.strip_prefix(RESOURCE)?)));
    asked.sort_unstable();
    asked.dedup();
    match medium.strip_prefix("HugePages-") {
        Some(text) => {
            let wanted = size(text).ok_or_else(|| PageSizeError::NoSize(text.to_owned()))?;
            if asked.contains(&wanted) { Ok(wanted) } else { Err(PageSizeError::NotAsked(text.to_owned())) }
        }
        None => match asked[..] {
            [one] => Ok(one),
            [] => Err(PageSizeError::None),
            _ => Err(PageSizeError::Several),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_medium_means_a_size_that_the_pod_asks_for() {
        let pod = |sizes: &[&str]| -> Pod {
            let limits: serde_json::Map<_, _> = sizes.iter().map(|size| (format!("hugepages-{size}"), json!("1Gi"))).collect();
            let container = json!({ "name": "a", "resources": { "limits": limits } });
            serde_json::from_value(json!({ "spec": { "containers": [container] } })).expect("a pod")
        };
        for (sizes, medium, want) in [
            (&["2Mi"][..], "HugePages", Ok(2 << 20)),
            (&["2Mi"], "HugePages-2Mi", Ok(2 << 20)),
            (&["2Mi", "1Gi"], "HugePages-1Gi", Ok(1 << 30)),
            (&["2Mi", "1Gi"], "HugePages", Err(PageSizeError::Several)),
            (&[], "HugePages", Err(PageSizeError::None)),
            (&["2Mi"], "HugePages-1Gi", Err(PageSizeError::NotAsked("1Gi".into()))),
            (&["2Mi"], "HugePages-x", Err(PageSizeError::NoSize("x".into()))),
        ] {
            assert_eq!(page_bytes(&pod(sizes), medium), want, "{sizes:?} {medium}");
            assert!(is_huge(Some(medium)));
        }
        assert!(!is_huge(None) && !is_huge(Some("Memory")) && !is_huge(Some("HugePagesX")));
    }
}
