//! Keeps the `kubernetes` Service and where it leads: without them no pod finds the API, and `kubectl delete all --all` takes them.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use super::reachable;
use crate::server::{Config, Shared};

/// What is followed.
const FOLLOWED: [(&str, &str); 3] = [("", "services"), ("", "endpoints"), ("discovery.k8s.io", "endpointslices")];
/// Between two looks: a busy cluster wakes nobody for each change, and who disagrees is not answered without end.
const APART: Duration = Duration::from_millis(100);
/// After a repair that failed; somebody else may hold the address.
const AGAIN: Duration = Duration::from_secs(5);

/// Follows them for ever. A second owner of the server's parts would keep those alive, so it has none.
pub(crate) async fn run(shared: Weak<Shared>, config: Arc<Config>, service_ips: Vec<IpAddr>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let [mut services, mut endpoints, mut slices] = FOLLOWED.map(|(group, resource)| strong.registry.subscribe(group, resource));
        let stop = strong.stop.clone();
        let kept = reachable(&strong, &config, &service_ips).await.inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "pods may not find the API");
        });
        drop(strong);
        tokio::select! {
            () = stop.cancelled() => return,
            _ = services.next() => {}
            _ = endpoints.next() => {}
            _ = slices.next() => {}
            () = tokio::time::sleep(AGAIN), if kept.is_err() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(APART) => {}
        }
    }
}
