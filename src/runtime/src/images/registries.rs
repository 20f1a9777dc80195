//! `registries.yaml`, in the format of k3s: mirrors of registries with their endpoints and rewrites, and what opens and identifies each host.
//!
//! An image is asked for at the endpoints of its registry's mirror (or of the mirror `*`), in their order, and then at the registry itself.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::Regex;
use reqwest::Url;
use serde::Deserialize;

use super::reference::{DEFAULT_REGISTRY, Reference};
use crate::Credentials;

/// Longer files are refused: no configuration is a megabyte.
const MAX_BYTES: u64 = 1 << 20;
/// Bytes that one rewrite may compile to.
const REWRITE_BYTES: usize = 1 << 20;
/// Where docker.io answers.
const DOCKER_HUB: &str = "registry-1.docker.io";
/// The entry for all that have none of their own.
const ANY: &str = "*";

/// Why `registries.yaml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    /// a file cannot be read
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// what it says cannot be
    #[error("{}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong with it.
        what: String,
    },
}

/// How registries are reached. The default knows no mirrors.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    mirrors: BTreeMap<String, Mirror>,
    hosts: BTreeMap<String, Host>,
    /// A registry that has a mirror is not asked itself.
    pub mirrors_only: bool,
}

#[derive(Clone, Debug, Default)]
struct Mirror {
    endpoints: Vec<Url>,
    rewrites: Vec<(Regex, String)>,
}

/// What a host is identified by, and opened with.
#[derive(Clone, Default)]
pub(crate) struct Host {
    /// PEM certificates of authorities to trust beside the machine's.
    pub(crate) authorities: Vec<Vec<u8>>,
    /// PEM certificate and key to show.
    pub(crate) identity: Option<Vec<u8>>,
    /// Whoever answers is believed.
    pub(crate) insecure: bool,
    /// Tried where a pod brings nothing of its own.
    pub(crate) credentials: Option<Credentials>,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("insecure", &self.insecure).field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

impl Host {
    fn has_tls(&self) -> bool {
        !self.authorities.is_empty() || self.identity.is_some() || self.insecure
    }
}

/// One place where an image may be.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// `https://host/v2`: what the repository is appended to.
    pub(crate) base: Url,
    /// The repository as this place calls it.
    pub(crate) repository: String,
    /// How its host is met.
    pub(crate) host: Host,
    /// The registry that a mirror stands for.
    pub(crate) mirror_of: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mirrors: Option<BTreeMap<String, Option<MirrorFile>>>,
    #[serde(default)]
    configs: Option<BTreeMap<String, Option<HostFile>>>,
    #[serde(default)]
    auths: Option<BTreeMap<String, Auth>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MirrorFile {
    #[serde(default)]
    endpoint: Option<Vec<String>>,
    #[serde(default)]
    rewrite: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    #[serde(default)]
    auth: Option<Auth>,
    #[serde(default)]
    tls: Option<Tls>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    identity_token: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default)]
    cert_file: Option<PathBuf>,
    #[serde(default)]
    key_file: Option<PathBuf>,
    #[serde(default)]
    insecure_skip_verify: Option<bool>,
}

impl Registries {
    /// Reads the file; one that is not there says nothing, unless it `must_exist`.
    pub fn read(path: &Path, must_exist: bool) -> Result<Self, RegistriesError> {
        let text = match file(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(Self::default()),
            Err(source) => return Err(RegistriesError::Read { path: path.to_owned(), source }),
            Ok(bytes) => String::from_utf8(bytes),
        };
        let invalid = |what: String| RegistriesError::Invalid { path: path.to_owned(), what };
        let text = text.map_err(|_| invalid("it is not UTF-8 text".to_owned()))?;
        Self::parse(&text, &|path| file(path)).map_err(invalid)
    }

    /// With authorities to trust for every host, as a command line may name them.
    pub fn trusting(mut self, authorities: Vec<Vec<u8>>) -> Self {
        self.hosts.entry(ANY.to_owned()).or_default();
        for host in self.hosts.values_mut() {
            host.authorities.extend(authorities.iter().cloned());
        }
        self
    }

    fn parse(text: &str, read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>) -> Result<Self, String> {
        if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---") {
            return Ok(Self::default());
        }
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
        let mut out = Self::default();
        for (registry, mirror) in file.mirrors.unwrap_or_default() {
            out.mirrors.insert(registry.clone(), mirror_of(&registry, mirror.unwrap_or_default())?);
        }
        for (host, auth) in file.auths.unwrap_or_default() {
            let name = host.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
            out.hosts.entry(name).or_default().credentials = credentials(&format!("auths.{host:?}"), auth)?;
        }
        for (name, host) in file.configs.unwrap_or_default() {
            let host = host.unwrap_or_default();
            let into = out.hosts.entry(name.clone()).or_default();
            if let Some(auth) = host.auth {
                into.credentials = credentials(&format!("configs.{name:?}.auth"), auth)?;
            }
            tls_of(&format!("configs.{name:?}.tls"), host.tls.unwrap_or_default(), read, into)?;
        }
        Ok(out)
    }

    /// Where to ask for an image, in this order.
    pub(crate) fn endpoints(&self, image: &Reference) -> Vec<Endpoint> {
        let mirror = self.mirrors.get(&image.registry).or_else(|| self.mirrors.get(ANY));
        let own_host = if image.registry == DEFAULT_REGISTRY { DOCKER_HUB } else { &image.registry };
        let mut out = Vec::new();
        for base in mirror.iter().flat_map(|mirror| &mirror.endpoints) {
            let host = self.host(&authority(base));
            let repository = rewritten(&image.repository, mirror.map_or(&[], |mirror| &mirror.rewrites));
            out.push(Endpoint { base: base.clone(), repository, host, mirror_of: Some(image.registry.clone()) });
        }
        let itself = format!("https://{own_host}/v2").parse::<Url>().ok();
        // A mirror that names the registry itself is not asked twice.
        let named = |base: &Url| out.iter().any(|known| known.base == *base && known.repository == image.repository);
        let replaced = self.mirrors_only && mirror.is_some_and(|mirror| !mirror.endpoints.is_empty());
        if let Some(mut base) = itself.filter(|base| !(replaced || named(base))) {
            let host = self.host(&image.registry);
            // As containerd: a registry on this very machine may speak plainly.
            if is_loopback(&base) && !host.has_tls() {
                let _ = base.set_scheme("http");
            }
            if !named(&base) {
                out.push(Endpoint { base, repository: image.repository.clone(), host, mirror_of: None });
            }
        }
        out
    }

    fn host(&self, name: &str) -> Host {
        let hub: &[&str] = if matches!(name, DEFAULT_REGISTRY | DOCKER_HUB | "index.docker.io") {
            &[DEFAULT_REGISTRY, DOCKER_HUB, "index.docker.io"]
        } else {
            &[]
        };
        let found = std::iter::once(&name).chain(hub).find_map(|name| self.hosts.get(*name)).or_else(|| self.hosts.get(ANY));
        found.cloned().unwrap_or_default()
    }
}

fn file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(std::io::Error::other("it is larger than a megabyte")) } else { Ok(bytes) }
}

fn mirror_of(registry: &str, mirror: MirrorFile) -> Result<Mirror, String> {
    let mut out = Mirror::default();
    for (number, text) in mirror.endpoint.unwrap_or_default().iter().enumerate() {
        let url = endpoint(text).map_err(|why| format!("mirrors.{registry:?}.endpoint[{number}]: {text:?} {why}"))?;
        out.endpoints.push(url);
    }
    for (pattern, by) in mirror.rewrite.unwrap_or_default() {
        let compiled = regex::RegexBuilder::new(&pattern).size_limit(REWRITE_BYTES).build();
        let compiled = compiled.map_err(|error| {
            let why = error.to_string().lines().last().unwrap_or_default().to_owned();
            format!("mirrors.{registry:?}.rewrite: {pattern:?} is no regular expression: {why}")
        })?;
        out.rewrites.push((compiled, by));
    }
    Ok(out)
}

/// `host`, `host:port` and `https://host/` mean `/v2` of it; any other path is taken as it is.
fn endpoint(text: &str) -> Result<Url, &'static str> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url: Url = full.parse().map_err(|_| "is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("is neither http:// nor https://");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("has no host");
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        return Err("has more than scheme, host, port and path");
    }
    if !text.contains("://") && is_loopback(&url) {
        let _ = url.set_scheme("http");
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(if path.is_empty() { "/v2" } else { &path });
    Ok(url)
}

/// The first rewrite that fits, in the order of the patterns, as k3s applies them.
fn rewritten(repository: &str, rewrites: &[(Regex, String)]) -> String {
    let found = rewrites.iter().find(|(pattern, _)| pattern.is_match(repository));
    found.map_or_else(|| repository.to_owned(), |(pattern, by)| pattern.replace_all(repository, by).into_owned())
}

/// `host:port`, without a port that the scheme has anyway.
pub(crate) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn credentials(field: &str, auth: Auth) -> Result<Option<Credentials>, String> {
    if let Some(token) = auth.identity_token.filter(|t| !t.is_empty()) {
        // A password of nobody is a token that is exchanged for others.
        return Ok(Some(Credentials { username: String::new(), password: token, token: None }));
    }
    if let (Some(username), Some(password)) = (auth.username.filter(|u| !u.is_empty()), auth.password) {
        return Ok(Some(Credentials { username, password, token: None }));
    }
    let Some(text) = auth.auth.filter(|a| !a.is_empty()) else { return Ok(None) };
    let decoded = STANDARD.decode(text.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (username, password) = pair.ok_or_else(|| format!("{field}.auth: it is not the base64 of user:password"))?;
    Ok(Some(Credentials { username: username.to_owned(), password: password.to_owned(), token: None }))
}

fn tls_of(field: &str, tls: Tls, read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>, into: &mut Host) -> Result<(), String> {
    let get = |name: &str, path: &Path| read(path).map_err(|error| format!("{field}.{name}: {}: {error}", path.display()));
    let given = |path: Option<PathBuf>| path.filter(|p| !p.as_os_str().is_empty());
    if let Some(path) = given(tls.ca_file) {
        let pem = get("ca_file", &path)?;
        match reqwest::Certificate::from_pem_bundle(&pem) {
            Ok(list) if !list.is_empty() => into.authorities.push(pem),
            _ => return Err(format!("{field}.ca_file: {} holds no PEM certificate", path.display())),
        }
    }
    match (given(tls.cert_file), given(tls.key_file)) {
        (Some(cert), Some(key)) => {
            let mut pem = get("cert_file", &cert)?;
            pem.push(b'\n');
            pem.extend(get("key_file", &key)?);
            if reqwest::Identity::from_pem(&pem).is_err() {
                return Err(format!("{field}: {} and {} are no pair of certificate and key in PEM", cert.display(), key.display()));
            }
            into.identity = Some(pem);
        }
        (None, None) => {}
        (Some(_), None) => return Err(format!("{field}.key_file: it is missing beside cert_file")),
        (None, Some(_)) => return Err(format!("{field}.cert_file: it is missing beside key_file")),
    }
    into.insecure = tls.insecure_skip_verify.unwrap_or_default();
    Ok(())
}

#[cfg(test)]
mod tests;
