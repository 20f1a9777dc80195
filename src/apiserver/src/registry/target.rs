//! What a request is about: the resource as it was asked for, and as it is stored.

use std::sync::Arc;

use coracle_api::{
    catalogue::{Catalogue, Resource},
    names,
    status::Status,
};

use crate::{
    cache::{Cache, collection::Collection, stored},
    request::RequestInfo,
};

/// The resource of a request.
#[derive(Clone, Debug)]
pub struct Target {
    /// In the version of the path.
    pub resource: Arc<Resource>,
    /// In the version that is stored.
    pub stored: Arc<Resource>,
    /// Its objects.
    pub collection: Arc<Collection>,
    /// Of the path; empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// Of the path; empty for collections.
    pub name: String,
    /// Of the path.
    pub subresource: String,
}

/// 404 for a path that names nothing.
pub fn unknown() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
}

/// 405.
pub fn not_allowed() -> Status {
    Status::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource").about("", "", "")
}

impl Target {
    /// Of a request.
    pub fn find(catalogue: &Catalogue, cache: &Cache, info: &RequestInfo) -> Result<Self, Status> {
        let resource = catalogue.resource(&info.group, &info.version, &info.resource).ok_or_else(unknown)?;
        if info.name.contains('/') || info.namespace.contains('/') {
            return Err(unknown());
        }
        for segment in [&info.name, &info.namespace].into_iter().filter(|segment| !segment.is_empty()) {
            names::path_segment(segment).map_err(|error| Status::bad_request(format!("invalid resource name {segment:?}: {error}")))?;
        }
        let namespaced = !info.namespace.is_empty();
        // `namespaces/x` is in the namespace x for authorization, not for storage.
        let namespace = if resource.namespaced { info.namespace.clone() } else { String::new() };
        if namespaced && !resource.namespaced && (resource.group.as_str(), resource.plural.as_str()) != ("", "namespaces") {
            return Err(unknown());
        }
        if !info.name.is_empty() && resource.namespaced && namespace.is_empty() {
            return Err(unknown());
        }
        Ok(Self::new(catalogue, cache, resource, namespace, info.name.clone(), info.subresource.clone()))
    }

    fn new(catalogue: &Catalogue, cache: &Cache, resource: &Arc<Resource>, namespace: String, name: String, subresource: String) -> Self {
        let at = &resource.storage;
        let stored_as = catalogue.stored(resource);
        let collection = cache.collection(&stored(&at.group, &at.plural));
        Self { resource: Arc::clone(resource), stored: Arc::clone(stored_as), collection, namespace, name, subresource }
    }

    /// One object of a built-in resource, for writes from inside the process.
    pub fn of(catalogue: &Catalogue, cache: &Cache, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Self> {
        let resource = catalogue.resources().iter().find(|r| r.group == group && r.plural == plural)?;
        Some(Self::new(catalogue, cache, resource, namespace.to_owned(), name.to_owned(), String::new()))
    }

    /// All objects of a resource, for the server itself.
    pub(crate) fn to(catalogue: &Catalogue, cache: &Cache, resource: &Arc<Resource>) -> Self {
        Self::new(catalogue, cache, resource, String::new(), String::new(), String::new())
    }

    /// The same, for an object of this name in this namespace.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned(), ..self.clone() }
    }

    /// The object's key in its collection.
    pub fn key(&self) -> String {
        if self.namespace.is_empty() { self.name.clone() } else { format!("{}/{}", self.namespace, self.name) }
    }

    /// The object's key in the store.
    pub fn store_key(&self) -> String {
        format!("{}{}/{}", crate::cache::PREFIX, self.collection.kind, self.key())
    }

    /// Whether the requested version is the stored one: then bytes need no change.
    pub fn as_stored(&self) -> bool {
        Arc::ptr_eq(&self.resource, &self.stored)
    }

    /// Whether a webhook converts objects. Then what is stored may still have the version of another day.
    pub fn asks(&self) -> bool {
        self.resource.definition.as_ref().is_some_and(|definition| definition.webhook.is_some())
    }

    /// Whether these bytes of a stored object are already what the path shows.
    pub fn is_shown(&self, json: &[u8]) -> bool {
        self.as_stored() && (!self.asks() || json.starts_with(&self.head()))
    }

    /// How objects of the path's version begin.
    fn head(&self) -> Vec<u8> {
        // Kinds and versions are plain words.
        format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", self.resource.kind, self.resource.api_version()).into_bytes()
    }

    /// 404 for a subresource that there is not.
    pub fn unserved(&self) -> Status {
        if self.resource.custom { unknown().about(&self.resource.group, &self.resource.plural, &self.name) } else { unknown() }
    }

    /// 404 for the object; 500 when the store has it and it cannot be read.
    pub fn not_found(&self) -> Status {
        if let Some(why) = self.collection.unreadable(&self.key()) {
            return Status::internal(format!("Internal error occurred: {why}"));
        }
        Status::not_found(&self.resource.group, &self.resource.plural, &self.name)
    }

    /// 409 for the object.
    pub fn conflict(&self, why: &str) -> Status {
        Status::conflict(&self.resource.group, &self.resource.plural, &self.name, why)
    }

    /// 422 for the object, which is named by its stored kind.
    pub fn invalid(&self, causes: Vec<coracle_api::status::Cause>) -> Status {
        Status::invalid(&self.stored.group, &self.stored.kind, &self.name, causes)
    }

    /// Whether this is the resource `group/plural` (stored names).
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.stored.group == group && self.stored.plural == plural
    }
}
