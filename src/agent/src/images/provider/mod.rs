//! Credential providers: programs of the node that are asked what opens a registry (credentialprovider.kubelet.k8s.io), and how long that counts.

pub mod config;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use coracle_runtime::{Credentials, plugin};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::Api;
use serde::Deserialize;
use serde_json::json;

use self::config::Provider;
use super::{
    keys::{self, Key, Owner, Source},
    pattern,
};
use crate::{
    context::{Context, chain},
    pod::{backoff::later, spec, volumes},
};

/// How long a provider may take: upstream's figure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Answers of one provider that are kept.
const KEPT: usize = 1024;

/// All providers of the node, with what they said.
#[derive(Debug)]
pub struct Providers(Vec<Asked>);

/// Patterns with what opens the images that they cover.
type Answer = Vec<(String, Credentials)>;
/// Where an answer will be.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Answer>>>>;

#[derive(Debug)]
struct Asked {
    provider: Provider,
    kept: Mutex<HashMap<String, (Timestamp, Arc<Answer>)>>,
    /// Questions that are not answered yet: who has the same one shares the answer.
    open: Mutex<HashMap<String, Slot>>,
}

/// For whom a provider is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Speaker {
    account: Option<Owner>,
    token: String,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    cache_key_type: String,
    #[serde(default)]
    cache_duration: Option<String>,
    #[serde(default)]
    auth: Option<BTreeMap<String, Auth>>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Why a provider gives nothing. What it said is not told: it may hold what it was asked for.
#[derive(Debug, thiserror::Error)]
enum ProviderError {
    #[error("it was not answered")]
    Plugin(#[from] plugin::PluginError),
    #[error("its answer is no CredentialProviderResponse of {0}")]
    Response(String),
    #[error("its answer has the cacheKeyType {0:?}, which is none of Image, Registry, Global")]
    CacheKeyType(String),
    #[error("its answer has the cacheDuration {0:?}, which is none")]
    CacheDuration(String),
    #[error("it gives the service account's token back as password, which only cacheType Token allows")]
    Echo,
    #[error("{0}")]
    Account(String),
}

impl Providers {
    /// Those of a configuration.
    pub fn new(list: Vec<Provider>) -> Self {
        Self(list.into_iter().map(|provider| Asked { provider, kept: Mutex::default(), open: Mutex::default() }).collect())
    }

    /// What they give for an image (a full name without tag) of a pod. One that fails is told of in the log, and gives nothing.
    pub async fn keys(&self, ctx: &Context, pod: &Pod, image: &str) -> Vec<Key> {
        let fit = self.0.iter().filter(|asked| asked.provider.match_images.iter().any(|text| pattern::covers(text, image)));
        let answers = fit.map(|asked| async move {
            match asked.keys(ctx, pod, image).await {
                Ok(keys) => keys,
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(
                        provider = asked.provider.name,
                        image,
                        pod = spec::full_name(pod),
                        error,
                        "a credential provider gives nothing"
                    );
                    Vec::new()
                }
            }
        });
        keys::fitting(join_all(answers).await.into_iter().flatten().collect(), image)
    }
}

impl Asked {
    async fn keys(&self, ctx: &Context, pod: &Pod, image: &str) -> Result<Vec<(String, Key)>, ProviderError> {
        let Some(speaker) = self.speaker(ctx, pod).await? else { return Ok(Vec::new()) };
        let source = speaker.account.clone().map_or(Source::Node, Source::ServiceAccount);
        let answer = self.answer(image, &speaker).await?;
        let key = |(pattern, credentials): &(String, Credentials)| {
            (pattern.clone(), Key { credentials: credentials.clone(), source: source.clone() })
        };
        Ok(answer.iter().map(key).collect())
    }

    /// Who speaks, if anybody who may.
    async fn speaker(&self, ctx: &Context, pod: &Pod) -> Result<Option<Speaker>, ProviderError> {
        let Some(wanted) = &self.provider.token else { return Ok(Some(Speaker::default())) };
        let name = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
        if name.is_empty() {
            return Ok((wanted.require_service_account != Some(true)).then(Speaker::default));
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
        let account = accounts.get(name).await.map_err(|error| ProviderError::Account(chain(&error)))?;
        let mut given = account.metadata.annotations.unwrap_or_default();
        let mut annotations = BTreeMap::new();
        for key in &wanted.required_service_account_annotation_keys {
            // Without them the account has not asked to be spoken for.
            let Some(value) = given.remove(key) else { return Ok(None) };
            annotations.insert(key.clone(), value);
        }
        for key in &wanted.optional_service_account_annotation_keys {
            annotations.extend(given.remove_entry(key));
        }
        let token = volumes::token(ctx, pod, name, &wanted.service_account_token_audience).await.map_err(ProviderError::Account)?;
        let uid = account.metadata.uid.unwrap_or_default();
        let owner = Owner { namespace: spec::namespace(pod).to_owned(), name: name.to_owned(), uid };
        Ok(Some(Speaker { account: Some(owner), token, annotations }))
    }

    /// What is kept, or what the program says; the same question is asked once at a time.
    async fn answer(&self, image: &str, speaker: &Speaker) -> Result<Arc<Answer>, ProviderError> {
        let whose = self.whose(speaker);
        if let Some(kept) = self.kept(image, &whose, Timestamp::now()) {
            return Ok(kept);
        }
        let question = format!("{image} {whose} {}", speaker.token);
        let slot = self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(question.clone()).or_default().clone();
        let mut shared = slot.lock().await;
        if let Some(answer) = &*shared {
            return Ok(answer.clone());
        }
        let asked = self.ask(image, speaker).await;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&question);
        let response = asked?;
        let base = match &*response.cache_key_type {
            "Image" => image,
            "Registry" => registry(image),
            "Global" => "",
            other => return Err(ProviderError::CacheKeyType(other.to_owned())),
        };
        let life = match response.cache_duration {
            None => self.provider.cache,
            Some(text) => config::duration(&text).ok_or(ProviderError::CacheDuration(text))?,
        };
        let auth = response.auth.unwrap_or_default().into_iter();
        let answer: Answer =
            auth.map(|(key, a)| (pattern::of_key(&key), Credentials { username: a.username, password: a.password, token: None })).collect();
        let echoed = !speaker.token.is_empty() && answer.iter().any(|(_, c)| c.password == speaker.token);
        if echoed && self.provider.token.as_ref().is_some_and(|token| token.cache_type != "Token") {
            return Err(ProviderError::Echo);
        }
        let answer = Arc::new(answer);
        *shared = Some(answer.clone());
        if !life.is_zero() {
            self.keep(cache_key(base, &whose), later(Timestamp::now(), life), answer.clone());
        }
        Ok(answer)
    }

    async fn ask(&self, image: &str, speaker: &Speaker) -> Result<Response, ProviderError> {
        let provider = &self.provider;
        let mut question = json!({"kind": "CredentialProviderRequest", "apiVersion": provider.protocol, "image": image});
        if speaker.account.is_some() {
            question["serviceAccountToken"] = json!(speaker.token);
            question["serviceAccountAnnotations"] = json!(speaker.annotations);
        }
        let out = plugin::run(&provider.program, &provider.args, &provider.env, question.to_string().as_bytes(), PATIENCE).await?;
        let unread = || ProviderError::Response(provider.protocol.clone());
        let response: Response = serde_json::from_slice(&out).map_err(|_| unread())?;
        let right = response.kind == "CredentialProviderResponse" && response.api_version == provider.protocol;
        if right { Ok(response) } else { Err(unread()) }
    }

    /// Whose answers these are: everybody's, or those of an account, or of one token of it.
    fn whose(&self, speaker: &Speaker) -> String {
        let Some(Owner { namespace, name, uid }) = &speaker.account else { return String::new() };
        let by_token = self.provider.token.as_ref().is_some_and(|token| token.cache_type == "Token");
        let token = if by_token { &*speaker.token } else { "" };
        json!([namespace, name, uid, speaker.annotations, token]).to_string()
    }

    fn kept(&self, image: &str, whose: &str, now: Timestamp) -> Option<Arc<Answer>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            [image, registry(image), ""].into_iter().find_map(|base| kept.get(&cache_key(base, whose)).filter(|(until, _)| *until > now));
        found.map(|(_, answer)| answer.clone())
    }

    fn keep(&self, key: String, until: Timestamp, answer: Arc<Answer>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT {
            let now = Timestamp::now();
            kept.retain(|_, (until, _)| *until > now);
        }
        if kept.len() >= KEPT
            && let Some(soonest) = kept.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone())
        {
            kept.remove(&soonest);
        }
        kept.insert(key, (until, answer));
    }
}

fn registry(image: &str) -> &str {
    image.split('/').next().unwrap_or_default()
}

fn cache_key(base: &str, whose: &str) -> String {
    format!("{base} {whose}")
}

#[cfg(test)]
mod tests;
