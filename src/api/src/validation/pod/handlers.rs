//! What is asked of a running container: probes and lifecycle hooks.

use super::super::field::Field;
use super::super::rules::{port, port_number};
use super::containers::Surroundings;

pub(super) fn hooks(container: &Field<'_>, around: &Surroundings<'_>) {
    let lifecycle = container.at("lifecycle");
    let grace = around.spec.at("terminationGracePeriodSeconds").number();
    for name in ["postStart", "preStop"] {
        let hook = lifecycle.at(name);
        if hook.exists() {
            let kinds = action(&hook);
            let sleep = hook.at("sleep");
            if sleep.exists() && !(0..=grace).contains(&sleep.at("seconds").number()) {
                sleep.holding(sleep.at("seconds").value()).invalid("must be non-negative and less than terminationGracePeriodSeconds");
            }
            count(&hook, kinds + usize::from(sleep.exists()));
        }
    }
}

pub(super) fn probes(container: &Field<'_>) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.at(name);
        if !probe.exists() {
            continue;
        }
        let grpc = probe.at("grpc");
        if grpc.exists() {
            port_number(&grpc.at("port"));
        }
        let kinds = action(&probe) + usize::from(grpc.exists());
        count(&probe, kinds);
        for number in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
            probe.at(number).not_negative();
        }
        let grace = probe.at("terminationGracePeriodSeconds");
        if name == "readinessProbe" && grace.exists() {
            grace.invalid("must not be set for readinessProbes");
        } else if grace.exists() {
            grace.positive();
        }
        let successes = probe.at("successThreshold");
        if name != "readinessProbe" && successes.number() != 1 {
            successes.invalid("must be 1");
        }
    }
}

/// Checks what a hook or probe does; returns in how many ways it does it.
fn action(handler: &Field<'_>) -> usize {
    let (exec, http, tcp) = (handler.at("exec"), handler.at("httpGet"), handler.at("tcpSocket"));
    if exec.exists() {
        exec.at("command").must_exist();
    }
    if http.exists() {
        http.at("path").must_exist();
        port(&http.at("port"));
        http.at("scheme").one_of(&["HTTP", "HTTPS"]);
        let headers = http.at("httpHeaders");
        for header in headers.list() {
            let name = header["name"].as_str().unwrap_or_default();
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                headers.holding(&header["name"]).invalid("a valid HTTP header must consist of alphanumeric characters or '-'");
            }
        }
    }
    if tcp.exists() {
        port(&tcp.at("port"));
    }
    [exec, http, tcp].iter().filter(|a| a.exists()).count()
}

fn count(handler: &Field<'_>, kinds: usize) {
    match kinds {
        0 => handler.required("must specify a handler type"),
        1 => {}
        _ => handler.forbidden("may not specify more than 1 handler type"),
    }
}
