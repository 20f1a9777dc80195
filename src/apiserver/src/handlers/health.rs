//! `/healthz`, `/livez`, `/readyz`: whole or check by check.

use std::fmt::Write as _;

use http::{Response, StatusCode};

use crate::{answer, body::Body, request::Context, server::Shared};

/// A check: its name, whether only `/readyz` has it, and the state that it looks at.
struct Check {
    name: &'static str,
    ready_only: bool,
    passes: fn(&Shared) -> bool,
}

const CHECKS: [Check; 6] = [
    Check { name: "ping", ready_only: false, passes: |_| true },
    // Named as upstream's, whatever engine the store is.
    Check { name: "etcd", ready_only: false, passes: |shared| shared.store_answers() },
    Check { name: "informer-sync", ready_only: true, passes: |_| true },
    Check { name: "poststarthook/rbac/bootstrap-roles", ready_only: true, passes: |shared| shared.bootstrapped() },
    Check { name: "poststarthook/scheduling/bootstrap-system-priority-classes", ready_only: true, passes: |shared| shared.bootstrapped() },
    Check { name: "shutdown", ready_only: true, passes: |shared| !shared.stop.is_cancelled() },
];

/// Whether `/readyz` would say ok.
pub fn ready(shared: &Shared) -> bool {
    CHECKS.iter().all(|check| (check.passes)(shared))
}

/// The answer of `/KIND` or `/KIND/CHECK`.
pub fn answer(shared: &Shared, cx: &Context, kind: &str, check: &[&str]) -> Response<Body> {
    let of_kind = CHECKS.iter().filter(|check| kind == "readyz" || !check.ready_only);
    let results: Vec<(&str, bool)> = of_kind.map(|check| (check.name, (check.passes)(shared))).collect();
    let excluded: Vec<&str> = cx.query.iter().filter(|(key, _)| key == "exclude").map(|(_, value)| value.as_str()).collect();
    let verbose = cx.param("verbose").is_some();
    let (code, text) = if check.is_empty() {
        report(kind, &results, &excluded, verbose)
    } else {
        let name = check.join("/");
        let Some(result) = results.iter().find(|(known, _)| *known == name) else { return answer::page_not_found() };
        report(&format!("{kind}/{name}"), &[*result], &[], verbose)
    };
    answer::text(code, text)
}

/// All that pass say `ok`; one that does not, or a verbose question, brings the list.
fn report(title: &str, results: &[(&str, bool)], excluded: &[&str], verbose: bool) -> (StatusCode, String) {
    let mut list = String::new();
    let mut failed = false;
    for (name, passed) in results {
        let line = if excluded.contains(name) {
            write!(list, "[+]{name} excluded: ok\n")
        } else if *passed {
            write!(list, "[+]{name} ok\n")
        } else {
            failed = true;
            write!(list, "[-]{name} failed: reason withheld\n")
        };
        // Writing to a String cannot fail.
        let _ = line;
    }
    for name in excluded.iter().filter(|name| results.iter().all(|(known, _)| known != *name)) {
        let _ = write!(list, "warn: some health checks cannot be excluded: no matches for {name:?}\n");
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
