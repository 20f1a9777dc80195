//! What a caller of the node may: which attribute of the node a path is (upstream's fine-grained ones), asked of the API and remembered for a while.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use sha2::{Digest as _, Sha256};

/// How long a token is believed: upstream's figure.
const TOKEN: Duration = Duration::from_secs(120);
/// How long a yes holds: upstream's figure.
const ALLOWED: Duration = Duration::from_secs(300);
/// How long a no holds: upstream's figure.
const REFUSED: Duration = Duration::from_secs(30);
/// Answers that are remembered of each kind: callers of a node are few.
const ANSWERS: usize = 1024;

/// Who calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    /// Name.
    pub name: String,
    /// Uid; empty for none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the API knows of them.
    pub extra: Vec<(String, Vec<String>)>,
}

/// The API did not say.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// who has a token
    #[error("the API does not say whose the token is")]
    Token(#[source] kube::Error),
    /// whether they may
    #[error("the API does not say whether the caller may")]
    Access(#[source] kube::Error),
}

/// Asks the API, and remembers.
pub struct Gate {
    client: Client,
    node: String,
    users: Memory<[u8; 32], Option<User>>,
    answers: Memory<(User, &'static str, &'static str), bool>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Gate {
    /// Of a node.
    pub fn new(client: Client, node: String) -> Self {
        Self { client, node, users: Memory::default(), answers: Memory::default() }
    }

    /// Whose a bearer token is; `None` is nobody's.
    pub async fn user(&self, token: &str) -> Result<Option<User>, AskError> {
        let key = Sha256::digest(token).into();
        if let Some(known) = self.users.get(&key, Instant::now()) {
            return Ok(known);
        }
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await.map_err(AskError::Token)?;
        let status = answer.status.unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default().into_iter().collect(),
        });
        let lasts = if user.is_some() { TOKEN } else { REFUSED };
        self.users.put(key, user.clone(), Instant::now() + lasts);
        Ok(user)
    }

    /// Whether the user may; one of the subresources is enough.
    pub async fn allows(&self, user: &User, verb: &'static str, subresources: &[&'static str]) -> Result<bool, AskError> {
        for subresource in subresources {
            if self.allows_one(user, verb, subresource).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn allows_one(&self, user: &User, verb: &'static str, subresource: &'static str) -> Result<bool, AskError> {
        let key = (user.clone(), verb, subresource);
        if let Some(known) = self.answers.get(&key, Instant::now()) {
            return Ok(known);
        }
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = SubjectAccessReviewSpec {
            user: some(&user.name),
            uid: some(&user.uid),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.iter().cloned().collect()),
            resource_attributes: Some(ResourceAttributes {
                verb: some(verb),
                version: some("v1"),
                resource: some("nodes"),
                subresource: some(subresource),
                name: some(&self.node),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews = Api::<SubjectAccessReview>::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.map_err(AskError::Access)?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.answers.put(key, allowed, Instant::now() + if allowed { ALLOWED } else { REFUSED });
        Ok(allowed)
    }
}

/// The verb of the API for a method.
pub fn verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The subresources of `nodes` of which a caller of this path needs one.
pub fn subresources(path: &str) -> &'static [&'static str] {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    const TABLE: [(&str, &[&str]); 10] = [
        ("/stats", &["stats"]),
        ("/metrics", &["metrics"]),
        ("/logs", &["log"]),
        ("/checkpoint", &["checkpoint"]),
        ("/statusz", &["statusz"]),
        ("/flagz", &["configz"]),
        ("/pods", &["pods", "proxy"]),
        ("/runningpods", &["pods", "proxy"]),
        ("/healthz", &["healthz", "proxy"]),
        ("/configz", &["configz", "proxy"]),
    ];
    TABLE.iter().find(|(root, _)| below(root)).map_or(&["proxy"], |(_, subresources)| subresources)
}

/// Answers, each until its time.
struct Memory<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Memory<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Memory<K, V> {
    fn get(&self, key: &K, now: Instant) -> Option<V> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    fn put(&self, key: K, value: V, until: Instant) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() >= ANSWERS {
            let now = Instant::now();
            held.retain(|_, (_, until)| now < *until);
        }
        // Who is full of what holds asks again and again, and is right.
        if held.len() < ANSWERS {
            held.insert(key, (value, until));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_subresources_of_the_node() {
        for (path, expected) in [
            ("/metrics", &["metrics"][..]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/stats/summary", &["stats"]),
            ("/logs/", &["log"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/pods", &["pods", "proxy"]),
            ("/runningpods/", &["pods", "proxy"]),
            ("/configz", &["configz", "proxy"]),
            ("/exec/a/b/c", &["proxy"]),
            ("/", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }

    #[test]
    fn answers_are_forgotten_in_time_and_bounded() {
        let memory = Memory::default();
        let now = Instant::now();
        memory.put("a", 1, now + Duration::from_secs(1));
        assert_eq!(memory.get(&"a", now), Some(1));
        assert_eq!(memory.get(&"a", now + Duration::from_secs(1)), None);
        let many = Memory::default();
        for key in 0..2 * ANSWERS {
            many.put(key, (), now + ALLOWED);
        }
        assert_eq!(many.0.lock().expect("unpoisoned").len(), ANSWERS);
    }
}
