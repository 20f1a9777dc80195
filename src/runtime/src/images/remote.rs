//! One endpoint of a registry (OCI distribution specification, the reading half) with one key to it: requests, tokens, bounds on what it says.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Client, Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE},
    redirect,
};
use serde::Deserialize;

use super::{
    challenge::{self, Challenge},
    registries::Endpoint,
};
use crate::{Credentials, causes::causes};

/// A registry that does not accept a connection in this time does not answer.
const CONNECT: Duration = Duration::from_secs(15);
/// Silence that ends a request: no head, or nothing more of a body.
const SILENCE: Duration = Duration::from_secs(60);
/// Places that one request may be sent on to; blobs lie one or two away.
const REDIRECTS: usize = 10;
/// Bytes of a token service's answer: tokens have some kilobytes.
const TOKEN_BYTES: u64 = 1 << 20;
/// Bytes of an error's body that are read for its message.
const ERROR_BYTES: u64 = 16 << 10;
/// Letters of a registry's own message that are told on.
const MESSAGE: usize = 300;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// nobody is there
    #[error("{0}")]
    Unreachable(String),
    /// it stumbles, or its answer broke off: it may do better the next time
    #[error("{0}")]
    Unavailable(String),
    /// it does not let in, or has no such thing
    #[error("{0}")]
    Refused(String),
    /// it has no such thing
    #[error("not found")]
    NotFound,
    /// what it says cannot be
    #[error("{0}")]
    Lies(String),
}

/// An endpoint and how it is asked.
pub(crate) struct Session {
    http: Client,
    endpoint: Endpoint,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<HeaderValue>>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// What the endpoint's host is reached by; one for all credentials.
pub(crate) fn http(endpoint: &Endpoint) -> Result<Client, Fault> {
    // Ring is the provider of the whole program; a second installation is refused, and that is well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let redirects = redirect::Policy::custom(|attempt| {
        let downgraded = attempt.previous().last().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
        if attempt.previous().len() > REDIRECTS {
            attempt.error("it is sent on and on")
        } else if downgraded {
            attempt.error("it is sent on from https to http")
        } else {
            attempt.follow()
        }
    });
    let host = &endpoint.host;
    let mut builder = Client::builder()
        .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .redirect(redirects)
        .tls_danger_accept_invalid_certs(host.insecure);
    let tls = |error: reqwest::Error| Fault::Refused(format!("TLS: {}", causes(&error)));
    for pem in &host.authorities {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(tls)?);
    }
    if let Some(pem) = &host.identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem).map_err(tls)?);
    }
    builder.build().map_err(tls)
}

impl Session {
    pub(crate) fn new(http: Client, endpoint: Endpoint, credentials: Option<Credentials>) -> Self {
        let token = credentials.as_ref().and_then(|c| c.token.as_ref()).and_then(|token| secret(&format!("Bearer {token}")));
        Self { http, endpoint, credentials, authorization: Mutex::new(token) }
    }

    /// A manifest's bytes, by tag or digest.
    pub(crate) async fn manifest(&self, version: &str, accepted: &str, limit: u64) -> Result<Vec<u8>, Fault> {
        let response = self.get(&format!("manifests/{version}"), Some(accepted), None).await?;
        bounded(response, limit).await
    }

    /// A blob from byte `from` on, and where what comes begins.
    pub(crate) async fn blob(&self, digest: &str, from: u64) -> Result<(Response, u64), Fault> {
        let response = self.get(&format!("blobs/{digest}"), None, (from > 0).then_some(from)).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Ok((response, 0));
        }
        let range = response.headers().get("content-range").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let start = range.strip_prefix("bytes ").and_then(|r| r.split('-').next()?.parse::<u64>().ok());
        match start {
            // Registries that answer a range without telling which give the one that was asked for.
            None => Ok((response, from)),
            Some(start) if start <= from => Ok((response, start)),
            Some(start) => Err(Fault::Lies(format!("was asked for bytes from {from} on, and gives {range:?} from {start}"))),
        }
    }

    async fn get(&self, path: &str, accept: Option<&str>, from: Option<u64>) -> Result<Response, Fault> {
        let mut url = self.endpoint.base.clone();
        url.set_path(&format!("{}/{}/{path}", self.endpoint.base.path().trim_end_matches('/'), self.endpoint.repository));
        if let Some(registry) = &self.endpoint.mirror_of {
            // How a mirror of several registries learns which one is meant; others pass it over.
            url.query_pairs_mut().append_pair("ns", registry);
        }
        let send = || {
            let mut request = self.http.get(url.clone());
            if let Some(accept) = accept {
                request = request.header(ACCEPT, accept);
            }
            if let Some(from) = from {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            if let Some(key) = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                request = request.header(AUTHORIZATION, key);
            }
            request.send()
        };
        let response = send().await.map_err(fault)?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return good(response).await;
        }
        // A key that is missing, or one whose time is over.
        let headers = response.headers().clone();
        let refusal = refused(response).await;
        let Some(key) = self.authorize(&headers, &url).await? else { return Err(refusal) };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        good(send().await.map_err(fault)?).await
    }

    /// The key that the registry asks for, if there is one.
    async fn authorize(&self, headers: &HeaderMap, url: &Url) -> Result<Option<HeaderValue>, Fault> {
        let asked = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok()).flat_map(challenge::challenges);
        for challenge in asked {
            match (challenge, &self.credentials) {
                (Challenge::Bearer { .. }, Some(Credentials { token: Some(_), .. })) => return Ok(None),
                (Challenge::Bearer { realm, service, scope }, credentials) => {
                    let realm = realm_of(&realm, url)?;
                    let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.endpoint.repository));
                    return self.token(realm, service.as_deref(), &scope, credentials.as_ref()).await.map(Some);
                }
                (Challenge::Basic, Some(Credentials { username, password, .. })) if !username.is_empty() => {
                    return Ok(secret(&challenge::basic(username, password)));
                }
                (Challenge::Basic, _) => {}
            }
        }
        Ok(None)
    }

    /// Asks the token service.
    async fn token(&self, realm: Url, service: Option<&str>, scope: &str, credentials: Option<&Credentials>) -> Result<HeaderValue, Fault> {
        let place = super::registries::authority(&realm);
        let request = match credentials {
            // An identity token is exchanged as OAuth 2.0 has it.
            Some(Credentials { username, password, .. }) if username.is_empty() && !password.is_empty() => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token").append_pair("client_id", "coracle");
                form.append_pair("service", service.unwrap_or_default()).append_pair("scope", scope).append_pair("refresh_token", password);
                let form = self.http.request(Method::POST, realm).body(form.finish());
                form.header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            }
            other => {
                let mut realm = realm;
                if let Some(service) = service {
                    realm.query_pairs_mut().append_pair("service", service);
                }
                realm.query_pairs_mut().append_pair("scope", scope);
                let request = self.http.get(realm);
                match other.filter(|c| !c.username.is_empty()).and_then(|c| secret(&challenge::basic(&c.username, &c.password))) {
                    Some(key) => request.header(AUTHORIZATION, key),
                    None => request,
                }
            }
        };
        let answered = async {
            let response = good(request.send().await.map_err(fault)?).await?;
            bounded(response, TOKEN_BYTES).await
        };
        let bytes = answered.await.map_err(|why| match why {
            Fault::Unreachable(why) => Fault::Unreachable(format!("token service {place}: {why}")),
            Fault::Unavailable(why) => Fault::Unavailable(format!("token service {place}: {why}")),
            other => Fault::Refused(format!("token service {place}: {other}")),
        })?;
        let token = serde_json::from_slice::<Token>(&bytes).ok().and_then(|t| t.token.or(t.access_token)).filter(|t| !t.is_empty());
        let key = token.and_then(|token| secret(&format!("Bearer {token}")));
        key.ok_or_else(|| Fault::Refused(format!("token service {place} gives no token")))
    }
}

/// A password goes to no service that is less protected than the registry which names it.
fn realm_of(realm: &str, registry: &Url) -> Result<Url, Fault> {
    let refused = |what: &str| Fault::Refused(format!("its token service {realm:?} {what}"));
    let url: Url = realm.parse().map_err(|_| refused("is no URL"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if registry.scheme() == "http" => Ok(url),
        "http" => Err(refused("is to be asked without TLS")),
        _ => Err(refused("is neither http:// nor https://")),
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

async fn good(response: Response) -> Result<Response, Fault> {
    if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
}

/// An answer that is none, in the registry's own words where it has some.
async fn refused(response: Response) -> Fault {
    let status = response.status();
    let body = bounded(response, ERROR_BYTES).await.unwrap_or_default();
    let errors = serde_json::from_slice::<Errors>(&body).map(|e| e.errors).unwrap_or_default();
    let more =
        errors.first().map(|e| format!("{}: {}", e.code, e.message).chars().filter(|c| !c.is_control()).take(MESSAGE).collect::<String>());
    let text = more.map_or_else(|| status.to_string(), |more| format!("{status}: {more}"));
    match status {
        StatusCode::NOT_FOUND => Fault::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Fault::Unavailable(text),
        status if status.is_server_error() => Fault::Unavailable(text),
        _ => Fault::Refused(text),
    }
}

/// All of a body, which must be short.
async fn bounded(mut response: Response, limit: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(fault)? {
        if (bytes.len() + piece.len()) as u64 > limit {
            return Err(Fault::Lies(format!("answers with more than {limit} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Without the address that it was about: those of blobs hold keys.
pub(crate) fn fault(error: reqwest::Error) -> Fault {
    let (redirect, connect, silent) = (error.is_redirect(), error.is_connect(), error.is_timeout());
    let text = causes(&error.without_url());
    match (redirect, connect, silent) {
        (true, ..) => Fault::Refused(text),
        (_, true, _) => Fault::Unreachable(text),
        (.., true) => Fault::Unavailable(format!("says nothing for {} s", SILENCE.as_secs())),
        _ => Fault::Unavailable(text),
    }
}
