//! Asks another server over HTTPS: an issuer for its keys, a webhook for its verdict. One request on a connection of its own, bounded in time and size.

use std::{io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not PEM, or no certificates.
    #[error("the certificate authority holds no certificate in PEM form")]
    Authority,
    /// One of them is none.
    #[error("a certificate of the authority is malformed")]
    Root(#[source] rustls::Error),
    /// Own certificate or key.
    #[error("the client certificate or its key cannot be used")]
    Identity(#[source] rustls::Error),
    /// Own certificate or key.
    #[error("the client certificate or its key is not PEM")]
    IdentityPem,
    /// rustls refuses.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Neither https nor a host.
    #[error("{0} is not an https address")]
    Address(Uri),
    /// Nobody there.
    #[error("cannot connect to {host}")]
    Connect {
        /// Whom.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not the one that was meant, or no TLS at all.
    #[error("the TLS handshake with {host} failed")]
    Handshake {
        /// With whom.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the exchange with {host} broke")]
    Http {
        /// With whom.
        host: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// It does not end.
    #[error("the answer of {host} is larger than {bound} bytes")]
    TooLarge {
        /// Whose.
        host: String,
        /// How much is read.
        bound: usize,
    },
    /// The answer stopped.
    #[error("the answer of {host} ended early")]
    Body {
        /// Whose.
        host: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It hangs.
    #[error("{host} did not answer within {seconds} s")]
    Late {
        /// Who.
        host: String,
        /// For how long.
        seconds: u64,
    },
}

/// Who the other servers are, and who we are to them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// PEM of the authorities of the other server; empty: those of this machine.
    pub authority: String,
    /// PEM of our certificate and its key, if the other wants one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Take any certificate. What a kubeconfig says with `insecure-skip-tls-verify`.
    pub insecure: bool,
    /// The name in the other's certificate, if it is not that of the address.
    pub server_name: Option<String>,
}

/// A client of one other server.
#[derive(Clone)]
pub struct Remote {
    tls: TlsConnector,
    server_name: Option<String>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Remote {
    /// With what it trusts.
    pub fn new(trust: &Trust) -> Result<Self, ClientError> {
        let provider = Arc::new(ring::default_provider());
        let config = match trust.insecure {
            true => coracle_pki::stranger::client_config(&provider).map_err(ClientError::Tls)?,
            false => verified(trust, provider)?,
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), server_name: trust.server_name.clone() })
    }

    /// Sends one request and reads the whole answer, within a time and up to a size.
    pub async fn ask(&self, request: Request<Bytes>, patience: Duration, bound: usize) -> Result<(StatusCode, Bytes), RemoteError> {
        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let late = RemoteError::Late { host: host.clone(), seconds: patience.as_secs() };
        timeout(patience, self.exchange(request, host, bound)).await.unwrap_or(Err(late))
    }

    async fn exchange(&self, mut request: Request<Bytes>, host: String, bound: usize) -> Result<(StatusCode, Bytes), RemoteError> {
        let uri = request.uri().clone();
        let address = || RemoteError::Address(uri.clone());
        let name = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(address)?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let wanted = self.server_name.as_deref().unwrap_or(name).to_owned();
        let wanted = ServerName::try_from(wanted).map_err(|_| address())?;
        let stream = TcpStream::connect((name, uri.port_u16().unwrap_or(443))).await;
        let stream = stream.map_err(|source| RemoteError::Connect { host: host.clone(), source })?;
        let stream = self.tls.connect(wanted, stream).await;
        let stream = stream.map_err(|source| RemoteError::Handshake { host: host.clone(), source })?;
        let broken = |source| RemoteError::Http { host: host.clone(), source };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        if let Ok(value) = HeaderValue::try_from(host.as_str()) {
            request.headers_mut().insert(HOST, value);
        }
        // HTTP/1.1 wants the path alone.
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| address())?;
        let answered = async {
            let (head, body) = sender.send_request(request.map(Full::new)).await.map_err(broken)?.into_parts();
            let whole = Limited::new(body, bound).collect().await.map_err(|source| match source.is::<LengthLimitError>() {
                true => RemoteError::TooLarge { host: host.clone(), bound },
                false => RemoteError::Body { host: host.clone(), source },
            })?;
            Ok((head.status, whole.to_bytes()))
        };
        // The connection lives as long as the answer is awaited, and no longer.
        let mut answered = pin!(answered);
        tokio::select! {
            biased;
            answer = answered.as_mut() => return answer,
            _ = connection => {}
        }
        // Who answers and closes ends both at once: the answer is there, or never will be.
        answered.await
    }
}

fn verified(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    if trust.authority.is_empty() {
        // What of the machine's cannot be read is not trusted; that is all there is to say of it.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        for certificate in CertificateDer::pem_slice_iter(trust.authority.as_bytes()) {
            roots.add(certificate.map_err(|_| ClientError::Authority)?).map_err(ClientError::Root)?;
        }
        if roots.is_empty() {
            return Err(ClientError::Authority);
        }
    }
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(ClientError::Tls)?;
    let builder = builder.with_root_certificates(roots);
    match &trust.identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
            let (chain, key) = chain
                .ok()
                .filter(|chain| !chain.is_empty())
                .zip(PrivateKeyDer::from_pem_slice(key).ok())
                .ok_or(ClientError::IdentityPem)?;
            builder.with_client_auth_cert(chain, key).map_err(ClientError::Identity)
        }
    }
}
