//! The administrators' group: may do everything, also when every role is gone.

use super::{Decision, Question};

/// The group.
pub const GROUP: &str = "system:masters";

/// Allows its members everything.
pub fn decide(question: &Question<'_>) -> Decision {
    if question.user.groups.iter().any(|group| group == GROUP) {
        Decision::Allow(String::new())
    } else {
        Decision::NoOpinion(String::new())
    }
}
