//! NodeMetrics and PodMetrics, as metrics-server writes them. Pure.

use coracle_api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    GROUP,
    window::{Figures, Name, Usage},
};
use crate::strategy::meta;

/// Of a node; `None` while nothing is known of it.
pub(super) fn node(node: &Value, usage: &Usage) -> Option<Value> {
    let figures = usage.node?;
    let mut out = object("NodeMetrics", node, &figures);
    out["usage"] = used(&figures);
    Some(out)
}

/// Of a pod; `None` while nothing is known of its containers.
pub(super) fn pod(pod: &Value, usage: &Usage) -> Option<Value> {
    let (namespace, pod_name) = (meta::text(pod, "namespace"), meta::text(pod, "name"));
    let from = Name { namespace: namespace.to_owned(), pod: pod_name.to_owned(), container: String::new() };
    let own = usage.containers.range(from..).take_while(|(name, _)| name.namespace == namespace && name.pod == pod_name);
    let containers: Vec<(&Name, &Figures)> = own.collect();
    // The oldest figures say how old all are.
    let oldest = containers.iter().map(|(_, figures)| **figures).min_by_key(|figures| figures.at)?;
    let mut out = object("PodMetrics", pod, &oldest);
    out["containers"] = containers.iter().map(|(name, figures)| json!({"name": name.container, "usage": used(figures)})).collect();
    Some(out)
}

fn object(kind: &str, of: &Value, figures: &Figures) -> Value {
    let from = &of["metadata"];
    let mut metadata = json!({"name": from["name"], "creationTimestamp": meta::time(Timestamp::now())});
    for field in ["namespace", "labels"] {
        if !from[field].is_null() {
            metadata[field] = from[field].clone();
        }
    }
    let at = Timestamp::from_millisecond(figures.at).unwrap_or_default();
    json!({
        "kind": kind, "apiVersion": format!("{GROUP}/v1beta1"), "metadata": metadata,
        "timestamp": meta::time(at), "window": window(figures.window),
    })
}

fn used(figures: &Figures) -> Value {
    let quantity = |text: String| text.parse::<Quantity>().map_or(text, |quantity| quantity.to_string());
    let memory = match figures.memory {
        bytes if bytes % 1024 == 0 => format!("{}Ki", bytes / 1024),
        bytes => bytes.to_string(),
    };
    json!({"cpu": quantity(format!("{}n", figures.cpu)), "memory": quantity(memory)})
}

/// As Go writes a duration: `15.021s`, `1m2s`.
fn window(milliseconds: i64) -> String {
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    let seconds = format!("{}.{:03}", rest / 1000, rest % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match minutes {
        0 => format!("{seconds}s"),
        minutes if minutes < 60 => format!("{minutes}m{seconds}s"),
        minutes => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_its_containers_and_no_others() {
        let figures = |at| Figures { cpu: 2_000_000, memory: 3 << 20, at, window: 15_021 };
        let name = |pod: &str, container: &str| Name { namespace: "n".into(), pod: pod.into(), container: container.into() };
        let containers =
            [(name("p", "a"), figures(2000)), (name("p", "b"), figures(1000)), (name("p2", "c"), figures(1)), (name("o", "d"), figures(1))];
        let usage = Usage { node: None, containers: containers.into() };
        let seen = pod(&json!({"metadata": {"namespace": "n", "name": "p", "labels": {"x": "y"}}}), &usage).expect("figures");
        assert_eq!(seen["containers"].as_array().expect("a list").len(), 2);
        assert_eq!(seen["containers"][0], json!({"name": "a", "usage": {"cpu": "2m", "memory": "3Mi"}}));
        assert_eq!((&seen["window"], &seen["timestamp"]), (&json!("15.021s"), &json!("1970-01-01T00:00:01Z")));
        assert_eq!(seen["metadata"]["labels"], json!({"x": "y"}));
        assert_eq!(pod(&json!({"metadata": {"namespace": "n", "name": "none"}}), &usage), None);
        assert_eq!(node(&json!({"metadata": {"name": "x"}}), &usage), None);
    }

    #[test]
    fn windows_are_written_as_go_writes_them() {
        for (milliseconds, text) in [(500, "0.5s"), (15_021, "15.021s"), (60_000, "1m0s"), (62_500, "1m2.5s"), (3_723_000, "1h2m3s")] {
            assert_eq!(window(milliseconds), text);
        }
    }
}
