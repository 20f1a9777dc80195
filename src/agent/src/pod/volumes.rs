//! Carries volumes out: objects, tokens, then the mounts off the reactor. The same call brings mounted volumes up to date.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, api::PostParams};

use super::{backoff::later, spec};
use crate::{
    context::{Context, chain},
    objects::Used,
    volume::{
        mount::{self, common_user, fs_group},
        payload::Inputs,
    },
};

/// Life of a token where the volume names none.
const TOKEN_SECONDS: i64 = 3600;

/// Tokens that were issued for a pod, by volume and path.
pub type Tokens = Arc<Mutex<BTreeMap<(String, String), Token>>>;

/// An issued token.
#[derive(Clone, Debug)]
pub struct Token {
    text: String,
    renew_at: Timestamp,
}

/// Devices by ResourceClaims (KEP-4381) come from drivers that this node has no socket for: a pod that claims some runs without them nowhere.
pub fn claims(pod: &Pod) -> Result<(), String> {
    let mut claims = pod.spec.iter().flat_map(|s| s.resource_claims.iter().flatten());
    claims.next().map_or(Ok(()), |claim| {
        Err(format!("Failed to prepare dynamic resources: no driver of this node prepares the claim {:?}", claim.name))
    })
}

/// Makes or renews all volumes of `pod`; on success says when the next token must be renewed.
pub async fn mount(ctx: &Context, pod: &Arc<Pod>, used: &Used, tokens: &Tokens, addresses: &[IpAddr]) -> Result<Option<Timestamp>, String> {
    let snapshot = used.snapshot().await.map_err(|e| e.to_string())?;
    let renew_at = issue(ctx, pod, tokens).await?;
    let texts = tokens.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(k, t)| (k.clone(), t.text.clone())).collect();
    let (pod, dir, known) = (pod.clone(), ctx.pod_dir(pod), ctx.known(addresses));
    let made = tokio::task::spawn_blocking(move || {
        let inputs =
            Inputs { source: &snapshot, tokens: &texts, known: &known, token_owner: common_user(&pod), fs_group: fs_group(&pod).is_some() };
        mount::mount_all(&pod, &dir, &inputs, Timestamp::now())
    });
    match made.await {
        Ok(Ok(())) => Ok(renew_at),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}

/// Asks for tokens that are new or at four fifths of their life.
async fn issue(ctx: &Context, pod: &Pod, tokens: &Tokens) -> Result<Option<Timestamp>, String> {
    let Some(spec_) = &pod.spec else { return Ok(None) };
    let account = spec_.service_account_name.as_deref().filter(|n| !n.is_empty()).unwrap_or("default");
    let mut soonest: Option<Timestamp> = None;
    for volume in spec_.volumes.iter().flatten() {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
        for source in sources.filter_map(|s| s.service_account_token.as_ref()) {
            let key = (volume.name.clone(), source.path.clone());
            let old = tokens.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
            let token = match old.filter(|t| t.renew_at > Timestamp::now()) {
                Some(token) => token,
                None => request(ctx, pod, account, source.audience.as_deref(), source.expiration_seconds).await?,
            };
            soonest = Some(soonest.map_or(token.renew_at, |s| s.min(token.renew_at)));
            tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, token);
        }
    }
    Ok(soonest)
}

/// A token of the pod's service account for one audience, of the usual life.
pub async fn token(ctx: &Context, pod: &Pod, account: &str, audience: &str) -> Result<String, String> {
    request(ctx, pod, account, Some(audience), None).await.map(|token| token.text)
}

async fn request(ctx: &Context, pod: &Pod, account: &str, audience: Option<&str>, seconds: Option<i64>) -> Result<Token, String> {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(spec::name(pod).to_owned()),
        uid: Some(spec::uid(pod).to_owned()),
    };
    let audiences = audience.filter(|a| !a.is_empty()).map(|a| vec![a.to_owned()]);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences,
            bound_object_ref: Some(bound),
            expiration_seconds: Some(seconds.unwrap_or(TOKEN_SECONDS)),
        }),
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), spec::namespace(pod));
    let now = Timestamp::now();
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let status = answer.map_err(|e| format!("no token for service account {account:?}: {e}"))?.status.unwrap_or_default();
    let text = status.token.filter(|t| !t.is_empty()).ok_or_else(|| format!("service account {account:?} was given an empty token"))?;
    let life = status.expiration_timestamp.map_or(Duration::ZERO, |t| t.0.duration_since(now).unsigned_abs());
    // Renewed at four fifths, and daily at the latest, as clients reload it about then.
    let renew_at = later(now, (life * 4 / 5).min(Duration::from_secs(24 * 3600)));
    Ok(Token { text, renew_at })
}
