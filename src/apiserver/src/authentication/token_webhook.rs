//! Webhook token authentication: another server says whose a token is, in a TokenReview; what it said counts for a while.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};

use super::{
    remote::{ClientError, Remote, RemoteError, Trust},
    sha256,
};
use crate::request::User;

/// How long the webhook may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of its answer: a user with some thousand groups.
const ANSWER_BOUND: usize = 256 * 1024;
/// Times that it is asked when it fails, and the pause after the first failure, which grows by half each time. The number and pause are upstream's.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);
/// Tokens whose reviews are under way; beyond them tokens are refused at once.
const UNDER_WAY: usize = 256;
/// Verdicts that are remembered: as many as tokens may be in use at once.
const REMEMBERED: usize = 8192;
/// Longest token that is passed on, in bytes.
const TOKEN_BOUND: usize = 16 * 1024;

/// How to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A kubeconfig: the server is the address that TokenReviews are posted to.
    pub kubeconfig: PathBuf,
    /// `v1` or `v1beta1`.
    pub version: Version,
    /// How long a verdict counts; 0: not at all.
    pub cache: Duration,
}

/// The version of the TokenReviews.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// `authentication.k8s.io/v1`
    V1,
    /// `authentication.k8s.io/v1beta1`, upstream's default.
    #[default]
    V1Beta1,
}

impl Version {
    fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "authentication.k8s.io/v1",
            Self::V1Beta1 => "authentication.k8s.io/v1beta1",
        }
    }
}

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The kubeconfig or a file that it names.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// Not a kubeconfig.
    #[error("{0} is no kubeconfig: {1}")]
    Form(PathBuf, String),
    /// A kubeconfig that leads nowhere.
    #[error("{path}: {what}")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// Certificates in it.
    #[error("{0}: its certificates cannot be used")]
    Client(PathBuf, #[source] ClientError),
}

/// Why the webhook did not vouch for a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// It said no.
    #[error("the webhook does not know it{0}")]
    No(String),
    /// It did not say.
    #[error("the webhook failed: {0}")]
    Failed(String),
    /// For somebody else.
    #[error("the webhook vouches for the audiences {0:?}")]
    Audience(Vec<String>),
    /// Everybody waits.
    #[error("{UNDER_WAY} tokens wait for the webhook already")]
    Busy,
}

type Verdict = Result<(User, Vec<String>), WebhookError>;

/// The webhook.
#[derive(Debug)]
pub struct TokenWebhook {
    remote: Remote,
    address: Uri,
    bearer: Option<String>,
    version: Version,
    lasts: Duration,
    verdicts: Mutex<HashMap<[u8; 32], (Verdict, Instant)>>,
    under_way: Semaphore,
}

impl TokenWebhook {
    /// By a kubeconfig.
    pub fn open(settings: &Settings) -> Result<Self, SettingsError> {
        let (address, trust, bearer) = kubeconfig(&settings.kubeconfig)?;
        let remote = Remote::new(&trust).map_err(|error| SettingsError::Client(settings.kubeconfig.clone(), error))?;
        let (verdicts, under_way) = (Mutex::default(), Semaphore::new(UNDER_WAY));
        Ok(Self { remote, address, bearer, version: settings.version, lasts: settings.cache, verdicts, under_way })
    }

    /// Who a token speaks for, and for which of the wanted audiences; those of the API server are `own`.
    pub async fn user(&self, token: &str, wanted: &[String], own: &[String]) -> Verdict {
        if token.len() > TOKEN_BOUND {
            return Err(WebhookError::No(String::new()));
        }
        let key = sha256(&json!([token, wanted]).to_string());
        if let Some(verdict) = self.remembered(&key) {
            return verdict;
        }
        let _place = self.under_way.try_acquire().map_err(|_| WebhookError::Busy)?;
        // Somebody may have asked the same in the meantime.
        if let Some(verdict) = self.remembered(&key) {
            return verdict;
        }
        let review = self.review(token, wanted).await?;
        let verdict = verdict(&review, wanted, own);
        if !self.lasts.is_zero() {
            self.remember(key, verdict.clone());
        }
        verdict
    }

    fn remembered(&self, key: &[u8; 32]) -> Option<Verdict> {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.get(key).filter(|(_, until)| *until > Instant::now()).map(|(verdict, _)| verdict.clone())
    }

    fn remember(&self, key: [u8; 32], verdict: Verdict) {
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if verdicts.len() >= REMEMBERED {
            verdicts.retain(|_, (_, until)| *until > now);
        }
        if verdicts.len() < REMEMBERED {
            verdicts.insert(key, (verdict, now + self.lasts));
        }
    }

    /// Its answer. Failures of the webhook are no verdict: it is asked again, for as long as a client waits.
    async fn review(&self, token: &str, wanted: &[String]) -> Result<Value, WebhookError> {
        let mut spec = json!({"token": token});
        if !wanted.is_empty() {
            spec["audiences"] = json!(wanted);
        }
        let review = json!({"kind": "TokenReview", "apiVersion": self.version.api_version(), "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"user": {}}});
        let body = Bytes::from(review.to_string());
        let mut pause = PAUSE;
        for attempt in 1.. {
            let why = match self.post(body.clone()).await {
                Ok((status, answer)) if status.is_success() => {
                    return serde_json::from_slice(&answer).map_err(|_| WebhookError::Failed("its answer is not JSON".into()));
                }
                Ok((status, _)) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => format!("it answered {status}"),
                Ok((status, _)) => return Err(WebhookError::Failed(format!("it answered {status}"))),
                Err(error @ RemoteError::Late { .. }) => return Err(WebhookError::Failed(error.to_string())),
                Err(error) => error.to_string(),
            };
            if attempt == TRIES {
                tracing::warn!(webhook = %self.address, why, "the token webhook fails");
                return Err(WebhookError::Failed(why));
            }
            tokio::time::sleep(pause).await;
            pause = pause * 3 / 2;
        }
        unreachable!("the last attempt returns")
    }

    async fn post(&self, body: Bytes) -> Result<(StatusCode, Bytes), RemoteError> {
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        request.uri_mut().clone_from(&self.address);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        if let Some(bearer) = self.bearer.as_ref().and_then(|token| format!("Bearer {token}").try_into().ok()) {
            headers.insert(AUTHORIZATION, bearer);
        }
        let length = request.body().len();
        request.headers_mut().insert(http::header::CONTENT_LENGTH, length.into());
        self.remote.ask(request, PATIENCE, ANSWER_BOUND).await
    }
}

/// What a review says.
fn verdict(review: &Value, wanted: &[String], own: &[String]) -> Verdict {
    let status = &review["status"];
    let strings =
        |value: &Value| -> Vec<String> { value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect() };
    if status["authenticated"] != true {
        let why = status["error"].as_str().filter(|why| !why.is_empty()).map(|why| format!(": {why}"));
        return Err(WebhookError::No(why.unwrap_or_default()));
    }
    let vouched = Some(strings(&status["audiences"])).filter(|list| !list.is_empty()).unwrap_or_else(|| own.to_vec());
    let matched: Vec<String> = wanted.iter().filter(|audience| vouched.contains(audience)).cloned().collect();
    if matched.is_empty() && !wanted.is_empty() {
        return Err(WebhookError::Audience(vouched));
    }
    let user = &status["user"];
    let text = |field: &str| user[field].as_str().unwrap_or_default().to_owned();
    let extra = user["extra"].as_object().into_iter().flatten().map(|(key, values)| (key.clone(), strings(values))).collect();
    Ok((User { name: text("username"), uid: text("uid"), groups: strings(&user["groups"]), extra }, matched))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
    current_context: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: String,
    user: Identity,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Identity {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

/// The address, what to trust and the token of a kubeconfig's current context.
fn kubeconfig(path: &Path) -> Result<(Uri, Trust, Option<String>), SettingsError> {
    let content = |what| SettingsError::Content { path: path.to_owned(), what };
    let text = String::from_utf8(file(path)?).map_err(|_| content("it is not text"))?;
    let config: Kubeconfig = serde_saphyr::from_str(&text)
        .map_err(|error| SettingsError::Form(path.to_owned(), error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    let context = config.contexts.iter().find(|named| named.name == config.current_context).map(|named| &named.context);
    let context = context.ok_or_else(|| content("it has no current context"))?;
    let cluster = config.clusters.iter().find(|named| named.name == context.cluster).map(|named| &named.cluster);
    let cluster = cluster.ok_or_else(|| content("its current context names no cluster"))?;
    let address: Uri = cluster.server.parse().map_err(|_| content("its server is not a URL"))?;
    if address.scheme_str() != Some("https") {
        return Err(content("its server is not an https address"));
    }
    let beside = |name: &str| path.parent().unwrap_or(Path::new(".")).join(name);
    let either = |data: &str, name: &str| -> Result<Vec<u8>, SettingsError> {
        match (data, name) {
            ("", "") => Ok(Vec::new()),
            ("", name) => file(&beside(name)),
            (data, _) => STANDARD.decode(data).map_err(|_| content("one of its data fields is not base64")),
        }
    };
    let authority = either(&cluster.certificate_authority_data, &cluster.certificate_authority)?;
    let mut trust = Trust {
        authority: String::from_utf8(authority).map_err(|_| content("its certificate authority is not PEM"))?,
        identity: None,
        insecure: cluster.insecure_skip_tls_verify,
        server_name: cluster.tls_server_name.clone().filter(|name| !name.is_empty()),
    };
    let user = config.users.iter().find(|named| named.name == context.user).map(|named| &named.user);
    let Some(user) = user else { return Ok((address, trust, None)) };
    let certificate = either(&user.client_certificate_data, &user.client_certificate)?;
    if !certificate.is_empty() {
        trust.identity = Some((certificate, either(&user.client_key_data, &user.client_key)?));
    }
    let token = match user.token_file.as_str() {
        "" => user.token.clone(),
        name => Some(String::from_utf8_lossy(&file(&beside(name))?).trim().to_owned()),
    };
    Ok((address, trust, token.filter(|token| !token.is_empty())))
}

fn file(path: &Path) -> Result<Vec<u8>, SettingsError> {
    std::fs::read(path).map_err(|error| SettingsError::Read(path.to_owned(), error))
}
