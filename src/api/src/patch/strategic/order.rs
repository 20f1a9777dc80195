//! The order of a merged list: what the patch or its `$setElementOrder` names comes in that order, what only the server has keeps its place.

use std::collections::HashMap;

use serde_json::Value;

/// Arranges `merged`; `before` is the list before the patch, `id` tells elements apart. What is new goes before what it has no place beside.
pub fn arrange(merged: Vec<Value>, before: &[Value], wanted: &[Value], id: impl Fn(&Value) -> Value) -> Vec<Value> {
    // By the text of the ids: lists may be long, and each would be compared with each.
    let ranks = |order: &[Value]| -> HashMap<String, usize> {
        order.iter().enumerate().rev().map(|(rank, item)| (id(item).to_string(), rank)).collect()
    };
    let (wanted, before) = (ranks(wanted), ranks(before));
    let rank = |item: &Value, order: &HashMap<String, usize>| order.get(&id(item).to_string()).copied();
    let (mut named, others): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|item| rank(item, &wanted).is_some());
    named.sort_by_cached_key(|item| rank(item, &wanted));

    let mut out = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let server_first = match (others.peek(), named.peek()) {
            (None, None) => return out,
            (Some(other), Some(named)) => match (rank(other, &before), rank(named, &before)) {
                (Some(a), Some(b)) => a < b,
                _ => false,
            },
            (other, _) => other.is_some(),
        };
        out.extend(if server_first { others.next() } else { named.next() });
    }
}
