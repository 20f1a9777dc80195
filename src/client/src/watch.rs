//! A list and the watch that goes on from it, begun anew whenever that is needed: how every role learns of every change.
//!
//! The protocol is written once, over bytes; a kind's own type comes in where an object is decoded and nowhere else. (`kube::runtime::watcher`
//! is compiled again for every kind, and decodes each object by way of a tree of values: two megabytes of program.)

mod source;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use futures::{Stream, StreamExt as _};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Client, Resource};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use self::source::Source;

/// Which objects of a kind a watch carries. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// Field selector, such as `spec.nodeName=n1`.
    pub fields: Option<String>,
    /// Label selector.
    pub labels: Option<String>,
}

impl Scope {
    /// Only what this field selector matches.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), labels: None }
    }

    /// Only what this label selector matches.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { fields: None, labels: Some(selector.into()) }
    }
}

/// One thing that a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// A list begins: the first one, and another whenever the server's history does not reach back far enough.
    Begin,
    /// An object of the list.
    Listed(T),
    /// The list is complete; what was known before and not in it is gone.
    Complete,
    /// An object as it is now.
    Put(T),
    /// An object as it was last.
    Deleted(T),
}

/// Why a watch tells nothing for now. It goes on by itself.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// {path} is not listed
    #[error("{path} is not listed")]
    List {
        /// Of the request.
        path: Arc<str>,
        /// What the server or the way to it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// {path} is not watched
    #[error("{path} is not watched")]
    Open {
        /// Of the request.
        path: Arc<str>,
        /// What the server or the way to it said.
        #[source]
        source: Box<kube::Error>,
    },
    /// the watch of {path} broke
    #[error("the watch of {path} broke")]
    Broken {
        /// Of the request.
        path: Arc<str>,
        /// How.
        #[source]
        source: io::Error,
    },
    /// the server ended the watch of {path}: {message} ({code})
    #[error("the server ended the watch of {path}: {message} ({code})")]
    Ended {
        /// Of the request.
        path: Arc<str>,
        /// HTTP's; 410 when its history does not reach back far enough.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// what came from {path} cannot be read
    #[error("what came from {path} cannot be read")]
    Decode {
        /// Of the request.
        path: Arc<str>,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// Follows the objects of `K`, in one namespace or in all. It never ends; after an error it waits, longer each time, and goes on.
pub fn watch<K>(
    client: &Client,
    namespace: Option<&str>,
    scope: Scope,
) -> impl Stream<Item = Result<Step<K>, WatchError>> + Send + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let path: Arc<str> = K::url_path(&(), namespace).into();
    Source::new(client.clone(), Arc::clone(&path), scope, false).steps().map(move |step| decode(step, &path, |object: K| object))
}

/// Follows the metadata of whatever lies at `path`, such as `/apis/apps/v1/deployments`.
pub fn watch_metadata(client: &Client, path: String) -> impl Stream<Item = Result<Step<ObjectMeta>, WatchError>> + Send + Unpin + use<> {
    #[derive(Deserialize)]
    struct Bare {
        metadata: ObjectMeta,
    }
    let path: Arc<str> = path.into();
    Source::new(client.clone(), Arc::clone(&path), Scope::default(), true)
        .steps()
        .map(move |step| decode(step, &path, |bare: Bare| bare.metadata))
}

/// Follows one object by its name; `None` while there is none.
pub fn watch_object<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> impl Stream<Item = Result<Option<K>, WatchError>> + Send + Unpin + use<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let mut found = false;
    watch::<K>(client, namespace, Scope::fields(format!("metadata.name={name}"))).filter_map(move |step| {
        std::future::ready(match step {
            Err(error) => Some(Err(error)),
            Ok(Step::Begin) => {
                found = false;
                None
            }
            Ok(Step::Listed(object)) => {
                found = true;
                Some(Ok(Some(object)))
            }
            Ok(Step::Complete) => (!found).then_some(Ok(None)),
            Ok(Step::Put(object)) => Some(Ok(Some(object))),
            Ok(Step::Deleted(_)) => Some(Ok(None)),
        })
    })
}

/// Waits until one object, or its absence, is as it should be; an error ends the wait.
pub async fn until<K>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    good: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>, WatchError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Send + 'static,
{
    let mut states = watch_object::<K>(client, namespace, name);
    loop {
        match states.next().await {
            Some(Ok(state)) if good(state.as_ref()) => return Ok(state),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            // The stream has no end.
            None => std::future::pending().await,
        }
    }
}

/// An object that cannot be decoded is told as an error, and the watch goes on behind it.
fn decode<T, U>(step: Result<Step<Box<RawValue>>, WatchError>, path: &Arc<str>, out: impl Fn(T) -> U) -> Result<Step<U>, WatchError>
where
    T: DeserializeOwned,
{
    let object = |raw: Box<RawValue>| {
        let decoded = serde_json::from_str(raw.get()).map(&out);
        decoded.map_err(|source| WatchError::Decode { path: Arc::clone(path), source })
    };
    Ok(match step? {
        Step::Begin => Step::Begin,
        Step::Complete => Step::Complete,
        Step::Listed(raw) => Step::Listed(object(raw)?),
        Step::Put(raw) => Step::Put(object(raw)?),
        Step::Deleted(raw) => Step::Deleted(object(raw)?),
    })
}
