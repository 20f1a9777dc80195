//! The node's certificates, renewed by requests to the API as upstream's kubelet renews them: between 70 and 90 hundredths of their life a
//! new one is asked for, and the old one is shown until the new one has come.

pub mod plan;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use coracle_client::{
    KubeconfigError, Renewed,
    watch::{WatchError, watch_object},
};
use coracle_pki::{
    authority::IssueError,
    rotation::{self, Identity, IdentityError, Rotating},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use tokio_util::sync::CancellationToken;

use crate::{
    context::chain,
    stats::meters::{CLIENT_RENEWAL_ERRORS, Meters, SERVER_RENEWAL_ERRORS, SERVER_ROTATION, seconds_since},
};

/// For so long an answer is waited for: upstream's figure.
const WAIT: Duration = Duration::from_secs(15 * 60);
/// The longest sleep at once: the clock may be set meanwhile, or the machine sleep too.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The node's own server, under these names and addresses.
    Serving {
        /// DNS names.
        names: Vec<String>,
        /// Addresses.
        ips: Vec<IpAddr>,
    },
    /// The node as a client of the API.
    Client,
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Purpose::Serving { .. } => "kubernetes.io/kubelet-serving",
            Purpose::Client => "kubernetes.io/kube-apiserver-client-kubelet",
        }
    }

    fn usages(&self) -> Vec<String> {
        let usage = match self {
            Purpose::Serving { .. } => "server auth",
            Purpose::Client => "client auth",
        };
        // A key that is not RSA enciphers nothing.
        ["digital signature", usage].map(str::to_owned).into()
    }
}

/// A certificate that is kept renewed.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// What for.
    pub purpose: Purpose,
    /// Where it is shown.
    pub shown: Arc<Rotating>,
    /// Where it is kept over a restart, if that is needed.
    pub file: Option<PathBuf>,
    /// What speaks with it.
    pub speaks: Option<Arc<Renewed>>,
    /// What is shown until the first answer nobody trusts: that one is asked for at once.
    pub at_once: bool,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// No request
    #[error("no key or request can be made")]
    Request(#[source] IssueError),
    /// Not sent
    #[error("the request for a certificate was not sent")]
    Send(#[source] kube::Error),
    /// Not followed
    #[error("the request {name} is not followed")]
    Watch {
        /// Of the object.
        name: String,
        /// Why.
        #[source]
        source: WatchError,
    },
    /// No
    #[error("the request {name} was turned down: {why}")]
    Refused {
        /// Of the object.
        name: String,
        /// What the condition says.
        why: String,
    },
    /// Removed
    #[error("the request {0} was removed before it was answered")]
    Gone(String),
    /// Nobody
    #[error("nobody approved and signed the request {0} in time")]
    Late(String),
    /// Not usable by the client
    #[error("what was issued for the request {name} makes no client")]
    Speak {
        /// Of the object.
        name: String,
        /// Why.
        #[source]
        source: KubeconfigError,
    },
    /// Not usable
    #[error("what was issued for the request {name} cannot be used")]
    Identity {
        /// Of the object.
        name: String,
        /// Why.
        #[source]
        source: IdentityError,
    },
}

impl Certificate {
    /// Keeps it renewed until `stop`.
    pub async fn keep(self, node: String, client: Client, meters: Arc<Meters>, stop: CancellationToken) {
        stop.run_until_cancelled(self.rotate(&node, &client, &meters)).await;
    }

    async fn rotate(&self, node: &str, client: &Client, meters: &Meters) {
        let mut failures = 0;
        loop {
            let now = Timestamp::now();
            let life = self.shown.life(now);
            let urgent = self.at_once && !self.shown.is_put(now);
            if failures == 0 && !urgent {
                sleep_until(life.map_or(now, |(begins, ends)| plan::due(begins, ends, chance()))).await;
            }
            match self.renew(node, client).await {
                Ok(()) => {
                    failures = 0;
                    if let (Purpose::Serving { .. }, Some((begins, _)), false) = (&self.purpose, life, urgent) {
                        meters.observe(&SERVER_ROTATION, &[], seconds_since(begins, Timestamp::now()));
                    }
                }
                Err(error) => {
                    tracing::error!(error = chain(&error), signer = self.purpose.signer(), "the node's certificate is not renewed");
                    failures += 1;
                    let errors = if self.purpose == Purpose::Client { &CLIENT_RENEWAL_ERRORS } else { &SERVER_RENEWAL_ERRORS };
                    meters.count(errors, &[]);
                    tokio::time::sleep(plan::pause(failures)).await;
                }
            }
        }
    }

    /// Asks for one, waits for it, and shows it.
    pub async fn renew(&self, node: &str, client: &Client) -> Result<(), RenewError> {
        let (names, ips) = match &self.purpose {
            Purpose::Serving { names, ips } => (names.as_slice(), ips.as_slice()),
            Purpose::Client => Default::default(),
        };
        let (request, key) = rotation::request(&format!("system:node:{node}"), "system:nodes", names, ips).map_err(RenewError::Request)?;
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.purpose.signer().to_owned(),
                usages: Some(self.purpose.usages()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let sent = requests.create(&PostParams::default(), &object).await.map_err(RenewError::Send)?;
        let name = sent.metadata.name.unwrap_or_default();
        let answer = tokio::time::timeout(WAIT, answer(client, &name)).await;
        let chain = answer.map_err(|_| RenewError::Late(name.clone()))??;
        let unusable = |source| RenewError::Identity { name: name.clone(), source };
        let identity = Identity::from_pem(format!("{}\n{key}", String::from_utf8_lossy(&chain)), Timestamp::now()).map_err(unusable)?;
        if let Some(file) = &self.file
            && let Err(error) = identity.keep(file)
        {
            // It is good all the same, until a restart.
            tracing::error!(%error, path = %file.display(), "the node's certificate is not written");
        }
        self.show(identity).map_err(|source| RenewError::Speak { name, source })
    }

    /// Takes up what an agent before was given, if it still holds. Whether it did.
    pub fn resume(&self) -> bool {
        let (Some(file), now) = (&self.file, Timestamp::now()) else { return false };
        match Identity::load(file, now) {
            Ok(Some(identity)) if identity.life().1 > now => self.show(identity).is_ok(),
            Ok(_) => false,
            Err(error) => {
                tracing::warn!(error = chain(&error), path = %file.display(), "the node's certificate is asked for anew");
                false
            }
        }
    }

    /// Asks until there is one; a server that refuses is not asked again.
    pub async fn first(&self, node: &str, client: &Client) -> Result<(), RenewError> {
        let mut failures = 0;
        loop {
            match self.renew(node, client).await {
                Err(RenewError::Send(error)) if !matches!(error, kube::Error::Api(_)) => {
                    failures += 1;
                    tracing::warn!(error = chain(&error), "the API server does not answer yet");
                    tokio::time::sleep(plan::pause(failures)).await;
                }
                other => return other,
            }
        }
    }

    fn show(&self, identity: Identity) -> Result<(), KubeconfigError> {
        if let Some(client) = &self.speaks {
            let (certificates, key) = identity.parts();
            client.identify(&certificates, &key)?;
        }
        self.shown.put(identity);
        Ok(())
    }
}

/// The certificate that a request got.
async fn answer(client: &Client, name: &str) -> Result<Vec<u8>, RenewError> {
    let mut seen = watch_object::<CertificateSigningRequest>(client, None, name);
    while let Some(sight) = seen.next().await {
        let request = match sight {
            Ok(Some(request)) => request,
            Ok(None) => break,
            // It goes on by itself, save where it may not be seen at all.
            Err(source @ WatchError::List { .. }) => return Err(RenewError::Watch { name: name.to_owned(), source }),
            Err(_) => continue,
        };
        match plan::verdict(&request) {
            plan::Verdict::Open => {}
            plan::Verdict::Issued(chain) => return Ok(chain),
            plan::Verdict::Refused(why) => return Err(RenewError::Refused { name: name.to_owned(), why }),
        }
    }
    Err(RenewError::Gone(name.to_owned()))
}

async fn sleep_until(at: Timestamp) {
    loop {
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// From 0 to 1: nodes that were started together do not all ask at once.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}
