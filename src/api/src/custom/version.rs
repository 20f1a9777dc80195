//! The order of API versions: `v2` before `v1` before `v2beta1` before `v1alpha1` before names that are none.

use std::cmp::Ordering;

/// Compares two versions, the preferred one first.
pub fn newest_first(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major and minor number of `v1`, `v1beta2`, `v1alpha1`.
fn rank(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n > 0 && !text.starts_with(['+', '0']));
    if let Some(major) = number(rest) {
        return Some((2, major, 0));
    }
    let (word, stability) = if rest.contains("beta") { ("beta", 1) } else { ("alpha", 0) };
    let (major, minor) = rest.split_once(word)?;
    Some((stability, number(major)?, number(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_first_and_words_last() {
        let mut versions = ["foo10", "v1", "v11alpha2", "v10", "v3beta1", "v2", "v12alpha1", "foo1", "v11beta2", "v0", "v10beta3"];
        versions.sort_by(|a, b| newest_first(a, b));
        assert_eq!(versions, ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10", "v0"]);
    }
}
