//! What keeps the node from being Ready, by who says so: the node's status shows it at once.

use std::collections::BTreeMap;

use tokio::sync::watch;

/// Troubles by name.
#[derive(Debug)]
pub struct Health(watch::Sender<BTreeMap<&'static str, String>>);

impl Default for Health {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }
}

impl Health {
    /// Says what is wrong, or that nothing is; whether that is news.
    pub fn set(&self, who: &'static str, why: Option<String>) -> bool {
        self.0.send_if_modified(|troubles| match why {
            Some(why) => troubles.insert(who, why.clone()) != Some(why),
            None => troubles.remove(who).is_some(),
        })
    }

    /// Whether there is a trouble of this name.
    pub fn is(&self, who: &str) -> bool {
        self.0.borrow().contains_key(who)
    }

    /// All of them in words.
    pub fn troubles(&self) -> Vec<String> {
        self.0.borrow().values().cloned().collect()
    }

    /// Tells of changes.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<&'static str, String>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_are_told() {
        let health = Health::default();
        assert!(health.set("b", Some("late".to_owned())) && health.set("a", Some("no disk".to_owned())));
        assert!(!health.set("a", Some("no disk".to_owned())) && health.is("a"));
        assert_eq!(health.troubles(), ["no disk", "late"]);
        assert!(health.set("a", None) && !health.set("a", None) && !health.is("a"));
    }
}
