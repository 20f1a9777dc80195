//! The socket at which plugins present themselves, and the connection to each that has.

use std::{
    path::{Component, Path},
    sync::Arc,
    time::Duration,
};

use coracle_runtime::grpc::{Channel, Code, Router, Status};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    Devices, Plugin, socket,
    v1beta1::{self, DevicePluginOptions, Empty, ListAndWatchResponse, REGISTER, RegisterRequest},
};
use crate::{resources, stats::meters::DEVICE_REGISTRATIONS};

/// How long a plugin may take to accept a connection and say what it wants: upstream's figure.
const INTRODUCTION: Duration = Duration::from_secs(10);
/// The longest name of a resource: that of a label.
const NAME_BYTES: usize = 253 + 1 + 63;
/// What comes before the name of a resource in a quota, and may not be its own beginning.
const REQUESTS: &str = "requests.";

impl Devices {
    /// Listens for plugins until `stop`. Every plugin of before registers anew: the socket is another one, which they watch for.
    pub async fn serve(self: Arc<Self>, stop: CancellationToken) {
        let listener = match socket::listen(&self.dir).and_then(|listener| socket::remove_others(&self.dir).map(|()| listener)) {
            Ok(listener) => listener,
            Err(error) => {
                return tracing::warn!(%error, dir = %self.dir.display(), "this node takes no device plugins");
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(self.clone().expire()));
        let (devices, until) = (self.clone(), stop.clone());
        let router = Router::default().unary(REGISTER, move |request: RegisterRequest| {
            let (devices, until) = (devices.clone(), until.clone());
            async move { devices.register(request, until).await }
        });
        router.serve(listener, stop).await;
        let _ = socket::remove(&self.dir.join(socket::NAME));
    }

    async fn register(self: Arc<Self>, request: RegisterRequest, stop: CancellationToken) -> Result<Empty, Status> {
        if let Err(message) = judge(&request) {
            tracing::warn!(resource = request.resource_name, endpoint = request.endpoint, message, "a device plugin is refused");
            return Err(Status::new(Code::Unknown, message));
        }
        let resource = request.resource_name;
        let channel = Channel::new(self.dir.join(&request.endpoint));
        let options = channel.unary(v1beta1::OPTIONS, Empty {}, Some(INTRODUCTION)).await;
        let options: DevicePluginOptions = options.map_err(|status| {
            tracing::warn!(resource, endpoint = request.endpoint, %status, "a device plugin that registers does not say what it wants");
            Status::new(Code::Unknown, format!("cannot get the options of the device plugin at {}: {}", request.endpoint, status.message()))
        })?;
        let generation = {
            let mut state = self.lock();
            let generation = state.book.connect(&resource);
            let generation =
                generation.ok_or_else(|| Status::new(Code::ResourceExhausted, "this node has as many resources as it can keep book of"))?;
            state.plugins.insert(resource.clone(), Plugin { channel: channel.clone(), options });
            generation
        };
        tracing::info!(resource, endpoint = request.endpoint, "a device plugin has registered");
        self.meters.count(&DEVICE_REGISTRATIONS, &[&resource]);
        self.changed.send_replace(());
        self.save_soon();
        tokio::spawn(self.follow(resource, generation, channel, stop));
        Ok(Empty {})
    }

    /// Takes in what a plugin tells of its devices, until its connection ends.
    async fn follow(self: Arc<Self>, resource: String, generation: u64, channel: Channel, stop: CancellationToken) {
        let told = stop.run_until_cancelled(self.listen(&resource, generation, &channel)).await;
        // An agent that stops is no end of a plugin's.
        let Some(end) = told else { return };
        tracing::warn!(resource, reason = end, "a device plugin is gone: none of its devices is given away");
        self.lock().book.disconnect(&resource, generation, Timestamp::now());
        self.changed.send_replace(());
    }

    /// Why it ended.
    async fn listen(&self, resource: &str, generation: u64, channel: &Channel) -> String {
        let mut lists = match channel.streaming::<_, ListAndWatchResponse>(v1beta1::LIST_AND_WATCH, Empty {}).await {
            Ok(lists) => lists,
            Err(status) => return status.to_string(),
        };
        loop {
            match lists.message().await {
                Ok(Some(list)) => {
                    tracing::debug!(resource, devices = list.devices.len(), "a device plugin tells of its devices");
                    self.lock().book.update(resource, generation, list.devices);
                    self.changed.send_replace(());
                }
                Ok(None) => return "it ended the list of its devices".to_owned(),
                Err(status) => return status.to_string(),
            }
        }
    }

    /// Forgets the resources of plugins that do not come back in time.
    async fn expire(self: Arc<Self>) {
        let mut changes = self.changes();
        loop {
            let (next, fewer) = self.forget_expired();
            if fewer {
                self.changed.send_replace(());
                self.save_soon();
            }
            let wait = async {
                match next {
                    Some(at) => tokio::time::sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = wait => {}
                // The sender is our own.
                _ = changes.changed() => {}
            }
        }
    }

    /// When the next one is due, and whether there are fewer now.
    fn forget_expired(&self) -> (Option<Timestamp>, bool) {
        let mut state = self.lock();
        let before = state.book.registered().count();
        let next = state.book.expire(Timestamp::now());
        let left: Vec<String> = state.book.registered().map(|(name, _)| name.to_owned()).collect();
        state.plugins.retain(|name, _| left.contains(name));
        (next, left.len() < before)
    }
}

/// Whether a plugin may register as it says.
fn judge(request: &RegisterRequest) -> Result<(), String> {
    if request.version != v1beta1::VERSION {
        let version = &request.version;
        return Err(format!("version {version:?} of the device plugin API is not supported; supported are [{:?}]", v1beta1::VERSION));
    }
    if !is_resource_name(&request.resource_name) {
        return Err(format!("{:?} is not the name of an extended resource", request.resource_name));
    }
    // A name in our directory; nothing that leads out of it.
    if request.endpoint.is_empty() || !Path::new(&request.endpoint).components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(format!("{:?} is not the name of a socket in the directory of device plugins", request.endpoint));
    }
    Ok(())
}

/// `domain/name`, of a domain that is not Kubernetes' own, fit for a quota.
fn is_resource_name(name: &str) -> bool {
    let label = |part: &str, most: usize, more: fn(char) -> bool| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        part.len() <= most
            && edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || more(c))
    };
    let domain = |domain: &str| {
        let lower = !domain.contains(|c: char| c.is_ascii_uppercase());
        lower && domain.len() + REQUESTS.len() <= 253 && domain.split('.').all(|part| label(part, 63, |c| c == '-'))
    };
    let Some((before, after)) = name.split_once('/') else { return false };
    name.len() <= NAME_BYTES
        && resources::is_extended(name)
        && !name.starts_with(REQUESTS)
        && domain(before)
        && label(after, 63, |c| matches!(c, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources() {
        for good in ["nvidia.com/gpu", "example.com/a_b.c-D", "x/y", "nvidia.com/mig-1g.5gb"] {
            assert!(is_resource_name(good), "{good}");
        }
        let long = format!("example.com/{}", "a".repeat(64));
        for bad in [
            "cpu",
            "gpu",
            "kubernetes.io/gpu",
            "a.kubernetes.io/x",
            "requests.example.com/x",
            "Example.com/x",
            "e..com/x",
            "e.com/",
            "/x",
            "e/x/y",
            "e/-x",
            &long,
        ] {
            assert!(!is_resource_name(bad), "{bad}");
        }
    }

    #[test]
    fn who_may_register() {
        let request = |version: &str, endpoint: &str, resource: &str| RegisterRequest {
            version: version.into(),
            endpoint: endpoint.into(),
            resource_name: resource.into(),
            options: None,
        };
        assert_eq!(judge(&request("v1beta1", "gpu.sock", "example.com/gpu")), Ok(()));
        for (version, endpoint, resource, said) in [
            ("v1alpha", "gpu.sock", "example.com/gpu", "\"v1alpha\""),
            ("v1beta1", "gpu.sock", "cpu", "extended resource"),
            ("v1beta1", "", "example.com/gpu", "name of a socket"),
            ("v1beta1", "../../run/x.sock", "example.com/gpu", "name of a socket"),
            ("v1beta1", "/run/x.sock", "example.com/gpu", "name of a socket"),
        ] {
            let message = judge(&request(version, endpoint, resource)).expect_err(said);
            assert!(message.contains(said), "{message}");
        }
    }
}
