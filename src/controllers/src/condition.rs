//! Conditions of statuses: one per type, whose time is that of its last change of status.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a condition says now.
#[derive(Clone, Debug)]
pub struct Says<'a> {
    /// Its type.
    pub type_: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// One word.
    pub reason: &'static str,
    /// For people.
    pub message: &'a str,
    /// Of the spec that it is about; `None` where a kind does not say it.
    pub generation: Option<i64>,
}

/// Adds the condition, or changes the one of its type.
pub fn set(conditions: &mut Vec<Condition>, says: &Says<'_>, now: Timestamp) {
    let status = if says.holds { "True" } else { "False" };
    let old = conditions.iter().position(|c| c.type_ == says.type_);
    let since = old.map(|at| &conditions[at]).filter(|c| c.status == status).map_or(Time(now), |c| c.last_transition_time.clone());
    let new = Condition {
        type_: says.type_.into(),
        status: status.into(),
        reason: says.reason.into(),
        message: says.message.into(),
        observed_generation: says.generation,
        last_transition_time: since,
    };
    match old {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_change() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        let mut check = |holds, reason, now, expected: i64| {
            set(&mut conditions, &Says { type_: "Ready", holds, reason, message: "", generation: None }, at(now));
            assert_eq!((conditions.len(), conditions[0].reason.as_str()), (1, reason));
            assert_eq!(conditions[0].last_transition_time, Time(at(expected)));
        };
        check(true, "A", 1, 1);
        check(true, "B", 2, 1);
        check(false, "C", 3, 3);
    }
}
