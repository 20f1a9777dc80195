//! `/healthz`, `/livez`, `/readyz`: whole or check by check.

use std::{fmt::Write as _, sync::Arc};

use axum::{Router, extract::State, response::Response, routing::any};
use http::StatusCode;

use super::route::Named;
use crate::{answer, request::Context, server::Shared};

/// The three questions.
const KINDS: [&str; 3] = ["healthz", "livez", "readyz"];

/// What the checks look at.
struct Seen {
    store_answers: bool,
    bootstrapped: bool,
    stopping: bool,
}

/// A check: its name, whether only `/readyz` has it, and when it passes.
struct Check {
    name: &'static str,
    ready_only: bool,
    passes: fn(&Seen) -> bool,
}

const CHECKS: [Check; 9] = [
    Check { name: "ping", ready_only: false, passes: |_| true },
    Check { name: "log", ready_only: false, passes: |_| true },
    // Named as upstream's, whatever engine the store is.
    Check { name: "etcd", ready_only: false, passes: |seen| seen.store_answers },
    Check { name: "etcd-readiness", ready_only: true, passes: |seen| seen.store_answers },
    Check { name: "informer-sync", ready_only: true, passes: |_| true },
    Check { name: "poststarthook/rbac/bootstrap-roles", ready_only: true, passes: |seen| seen.bootstrapped },
    Check { name: "poststarthook/scheduling/bootstrap-system-priority-classes", ready_only: true, passes: |seen| seen.bootstrapped },
    Check { name: "poststarthook/priority-and-fairness-config-producer", ready_only: true, passes: |seen| seen.bootstrapped },
    Check { name: "shutdown", ready_only: true, passes: |seen| !seen.stopping },
];

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    let routes = |router: Router<Arc<Shared>>, kind| {
        router
            .route(&format!("/{kind}"), any(move |State(shared), cx| whole(shared, cx, kind)))
            .route(&format!("/{kind}/{{*check}}"), any(move |State(shared), Named(check), cx| single(shared, check, cx, kind)))
    };
    KINDS.into_iter().fold(Router::new(), routes)
}

async fn whole(shared: Arc<Shared>, cx: Context, kind: &'static str) -> Response {
    let excluded: Vec<&str> = cx.query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let results = results(&shared, kind).await;
    // As upstream: a check that is asked for alone, or left out, is none of the service level.
    for (name, passed) in results.iter().filter(|(name, _)| !excluded.contains(name)) {
        shared.slis.checked(name, kind, *passed);
    }
    let (code, text) = report(kind, &results, &excluded, cx.param("verbose").is_some());
    answer::text(code, text)
}

async fn single(shared: Arc<Shared>, check: String, cx: Context, kind: &'static str) -> Response {
    let results = results(&shared, kind).await;
    let Some(result) = results.iter().find(|(known, _)| *known == check) else { return answer::page_not_found() };
    let (code, text) = report(&format!("{kind}/{check}"), &[*result], &[], cx.param("verbose").is_some());
    answer::text(code, text)
}

/// The checks of a kind, and whether they pass now.
async fn results(shared: &Shared, kind: &str) -> Vec<(&'static str, bool)> {
    let seen =
        Seen { store_answers: shared.store_answers().await, bootstrapped: shared.bootstrapped(), stopping: shared.stop.is_cancelled() };
    let of_kind = CHECKS.iter().filter(|check| kind == "readyz" || !check.ready_only);
    of_kind.map(|check| (check.name, (check.passes)(&seen))).collect()
}

/// All that pass say `ok`; one that does not, or a verbose question, brings the list.
fn report(title: &str, results: &[(&str, bool)], excluded: &[&str], verbose: bool) -> (StatusCode, String) {
    let mut list = String::new();
    let mut failed = false;
    for (name, passed) in results {
        let line = if excluded.contains(name) {
            writeln!(list, "[+]{name} excluded: ok")
        } else if *passed {
            writeln!(list, "[+]{name} ok")
        } else {
            failed = true;
            writeln!(list, "[-]{name} failed: reason withheld")
        };
        // Writing to a String cannot fail.
        let _ = line;
    }
    for name in excluded.iter().filter(|name| results.iter().all(|(known, _)| known != *name)) {
        let _ = writeln!(list, "warn: some health checks cannot be excluded: no matches for {name:?}");
    }
    match (failed, verbose) {
        (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{list}{title} check failed\n")),
        (false, true) => (StatusCode::OK, format!("{list}{title} check passed\n")),
        (false, false) => (StatusCode::OK, "ok".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let results = [("ping", true), ("etcd", false)];
        let check = |excluded: &[&str], verbose| report("readyz", &results, excluded, verbose);
        assert_eq!(check(&["etcd"], false), (StatusCode::OK, "ok".into()));
        assert_eq!(check(&["etcd"], true).1, "[+]ping ok\n[+]etcd excluded: ok\nreadyz check passed\n");
        let (code, text) = check(&[], false);
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(text, "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n");
        assert!(check(&["x"], true).1.contains("no matches for \"x\""));
    }
}
