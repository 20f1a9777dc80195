//! Objects that the server itself writes: what every cluster has from its first second.

use bytes::Bytes;
use coracle_api::status::Status;
use serde_json::Value;

use super::{Inner, Registry, create, delete, manage::Manage, options::DeleteOptions, target::Target, update, write};
use crate::{
    request::{Context, RequestInfo, User},
    strategy::meta,
};

impl Registry {
    fn own_target(&self, object: &Value, verb: &str) -> Result<(Target, Context), Status> {
        let api_version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = object["kind"].as_str().unwrap_or_default();
        let catalogue = self.catalogue();
        let resource = catalogue
            .kind(group, version, kind)
            .ok_or_else(|| Status::internal(format!("no kind {kind:?} is registered for version {api_version:?}")))?;
        let info = RequestInfo {
            verb: verb.to_owned(),
            is_resource: true,
            group: group.to_owned(),
            version: version.to_owned(),
            resource: resource.plural.clone(),
            namespace: meta::text(object, "namespace").to_owned(),
            name: meta::text(object, "name").to_owned(),
            ..RequestInfo::default()
        };
        let target = Target::find(&catalogue, self.cache(), &info)?;
        let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
        let cx = Context {
            user,
            info,
            query: Vec::new(),
            method: http::Method::POST,
            headers: http::HeaderMap::new(),
            warnings: Default::default(),
            audit: Default::default(),
        };
        Ok((target, cx))
    }

    /// Creates an object, unless one of its name is there; no plugin is asked. True when it was created.
    pub async fn create_if_absent(&self, object: Value) -> Result<bool, Status> {
        let (target, cx) = self.own_target(&object, "create")?;
        if target.collection.get(&target.key()).is_some() {
            return Ok(false);
        }
        match create::insert(&self.inner, &target, &cx, object, &write::internal_options(), true, Manage::Track).await {
            Ok(_) => Ok(true),
            Err(status) if status.reason == "AlreadyExists" => Ok(false),
            Err(status) => Err(status),
        }
    }

    /// Changes an object that is there; no plugin is asked. `make` gets it in the preferred version and may be called again when
    /// another write was first.
    pub async fn change(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        make: &mut (dyn FnMut(&Value) -> Value + Send),
    ) -> Result<Bytes, Status> {
        let target = Target::of(&self.catalogue(), self.cache(), group, resource, namespace, name).ok_or_else(super::target::unknown)?;
        self.inner.change_own(&target, make).await
    }

    /// The same for the status of an object.
    pub(crate) async fn change_status(
        &self,
        group: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        make: &mut (dyn FnMut(&Value) -> Value + Send),
    ) -> Result<Bytes, Status> {
        let target = Target::of(&self.catalogue(), self.cache(), group, resource, namespace, name).ok_or_else(super::target::unknown)?;
        self.inner.change_own(&Target { subresource: "status".to_owned(), ..target }, make).await
    }

    /// Deletes an object, if it still is the one of this uid.
    pub(crate) async fn remove(&self, group: &str, resource: &str, namespace: &str, name: &str, uid: &str) -> Result<(), Status> {
        let target = Target::of(&self.catalogue(), self.cache(), group, resource, namespace, name).ok_or_else(super::target::unknown)?;
        let there = target.collection.get(&target.key()).is_some_and(|object| meta::text(&object.value(), "uid") == uid);
        if there { self.inner.remove_own(&target).await } else { Ok(()) }
    }
}

impl Inner {
    /// Changes an object, or with the target's subresource a part of it, in the name of the server.
    pub(crate) async fn change_own(&self, target: &Target, make: &mut (dyn FnMut(&Value) -> Value + Send)) -> Result<Bytes, Status> {
        let options = write::internal_options();
        let cx = own_context(target, "patch", http::Method::PATCH);
        update::change(self, target, &cx, &options, true, Manage::Track, &mut |old, _| Ok(make(old))).await.map(|written| written.json)
    }

    /// Deletes an object in the name of the server; no plugin is asked, and that it is gone already is no error.
    pub(crate) async fn remove_own(&self, target: &Target) -> Result<(), Status> {
        let cx = own_context(target, "delete", http::Method::DELETE);
        match delete::remove(self, target, &cx, &DeleteOptions::default(), true).await {
            Err(status) if status.code != 404 => Err(status),
            _ => Ok(()),
        }
    }
}

fn own_context(target: &Target, verb: &str, method: http::Method) -> Context {
    let user = User { name: "system:apiserver".into(), groups: vec!["system:masters".into()], ..User::default() };
    let info = RequestInfo {
        verb: verb.into(),
        is_resource: true,
        group: target.resource.group.clone(),
        version: target.resource.version.clone(),
        resource: target.resource.plural.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        ..RequestInfo::default()
    };
    Context {
        user,
        info,
        query: Vec::new(),
        method,
        headers: http::HeaderMap::new(),
        warnings: Default::default(),
        audit: Default::default(),
    }
}
