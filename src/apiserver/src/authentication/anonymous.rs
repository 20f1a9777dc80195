//! Requests without any proof: where they are let in.

use super::configuration;

/// Paths that need no proof unless the operator says otherwise: probes and load balancers ask there.
const PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Where anonymous requests are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// How the server is, and below.
    Health,
    /// Nowhere.
    Nowhere,
    /// Everywhere; what they may do there is for authorization.
    Everywhere,
    /// On these whole paths.
    Paths(Vec<String>),
}

impl Anonymous {
    /// As configured, or by default.
    pub fn new(configured: Option<&configuration::Anonymous>) -> Self {
        match configured {
            None => Self::Health,
            Some(configured) if !configured.enabled => Self::Nowhere,
            Some(configured) if configured.conditions.is_empty() => Self::Everywhere,
            Some(configured) => Self::Paths(configured.conditions.iter().map(|condition| condition.path.clone()).collect()),
        }
    }

    /// Whether one is let in at this path.
    pub fn admits(&self, path: &str) -> bool {
        match self {
            Self::Health => PATHS.iter().any(|open| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))),
            Self::Nowhere => false,
            Self::Everywhere => true,
            Self::Paths(paths) => paths.iter().any(|open| open == path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_open_unless_the_operator_says_otherwise() {
        let configured = |enabled, paths: &[&str]| {
            let conditions = paths.iter().map(|path| configuration::Condition { path: (*path).to_owned() }).collect();
            Anonymous::new(Some(&configuration::Anonymous { enabled, conditions }))
        };
        for (rule, path, open) in [
            (Anonymous::new(None), "/readyz", true),
            (Anonymous::new(None), "/readyz/ping", true),
            (Anonymous::new(None), "/readyzz", false),
            (Anonymous::new(None), "/api", false),
            (configured(false, &[]), "/readyz", false),
            (configured(true, &[]), "/api", true),
            (configured(true, &["/livez"]), "/livez", true),
            (configured(true, &["/livez"]), "/livez/ping", false),
            (configured(true, &["/livez"]), "/readyz", false),
        ] {
            assert_eq!(rule.admits(path), open, "{rule:?} {path}");
        }
    }
}
