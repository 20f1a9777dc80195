//! The cluster's certificate authorities, made at first start and kept in one directory.
//!
//! There are three, as kubeadm and k3s have them: what signs serving certificates must not be able to make somebody an administrator,
//! and what vouches for an aggregation proxy (`X-Remote-User`) must do neither.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use crate::{
    files, issue,
    issue::Usage,
    request::SigningRequest,
    sign::{self, SignRequestError},
    tokens::{KeyError, Signer},
};

/// Ten years, as kubeadm and k3s: replacing an authority needs every node's hand.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// One year, as kubeadm and k3s.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// A certificate, its key and its life.
pub struct Pair {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The certificate in DER.
    pub certificate: CertificateDer<'static>,
    /// The private key in PEM (PKCS #8).
    pub key_pem: String,
    /// The private key in DER (PKCS #8).
    pub key: PrivateKeyDer<'static>,
    /// When it was made.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("issued", &self.issued).field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Why the authorities could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it.
    #[error("{path}: cannot {what}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The operating system's word.
        #[source]
        source: io::Error,
    },
    /// A file that this program did not write so.
    #[error("{path}: {what}; restore it from a backup, or remove it to have a new one made (clients must then be given the new one)")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A new authority could not be made.
    #[error("cannot make the authority {name}")]
    Make {
        /// Which.
        name: &'static str,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The key that signs tokens.
    #[error("{path}: the key that signs ServiceAccount tokens cannot be used")]
    TokenKey {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyError,
    },
}

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A name that cannot stand in a certificate.
    #[error("{name:?} cannot be a DNS name of a certificate")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// More groups than fit.
    #[error("a client certificate holds at most {bound} organisations, not {given}")]
    Organisations {
        /// How many were asked for.
        given: usize,
        /// How many fit.
        bound: usize,
    },
    /// No key.
    #[error("cannot make a key")]
    Key(#[source] rcgen::Error),
    /// No signature.
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

/// Which authority signs the request of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signatory {
    /// The one that the API server knows its clients by.
    Client,
    /// The one that clients know servers by.
    Server,
}

/// One certificate authority.
struct Ca {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// The cluster's authorities and the key that signs ServiceAccount tokens.
pub struct Authority {
    server: Ca,
    client: Ca,
    front_proxy: Ca,
    signer: Signer,
    leaf_life: Duration,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("leaf_life", &self.leaf_life).finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads the authorities in `dir`; makes those that are missing.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_at(dir, LEAF_LIFE, Timestamp::now())
    }

    /// As [`Authority::open`], with the life of what it will issue and the time.
    pub fn open_at(dir: &Path, leaf_life: Duration, now: Timestamp) -> Result<Self, OpenError> {
        let io = |what| move |source| OpenError::Io { path: dir.to_owned(), what, source };
        files::make_directory(dir).map_err(io("make the directory"))?;
        let mut wrote = false;
        let authority = Self {
            server: open_ca(dir, "server-ca", now, &mut wrote)?,
            client: open_ca(dir, "client-ca", now, &mut wrote)?,
            front_proxy: open_ca(dir, "front-proxy-ca", now, &mut wrote)?,
            signer: open_signer(dir, &mut wrote)?,
            leaf_life,
        };
        if wrote {
            files::sync_directory(dir).map_err(io("sync the directory"))?;
        }
        Ok(authority)
    }

    /// A serving certificate under these names and addresses.
    pub fn issue_server(&self, names: &[String], ips: &[IpAddr]) -> Result<Pair, IssueError> {
        self.issue_server_at(names, ips, Timestamp::now())
    }

    /// As [`Authority::issue_server`], at a given time.
    pub fn issue_server_at(&self, names: &[String], ips: &[IpAddr], now: Timestamp) -> Result<Pair, IssueError> {
        self.issue_server_for(names, ips, self.leaf_life, now)
    }

    /// As [`Authority::issue_server_at`], for so long.
    pub fn issue_server_for(&self, names: &[String], ips: &[IpAddr], life: Duration, now: Timestamp) -> Result<Pair, IssueError> {
        let common_name = names.first().cloned().or_else(|| ips.first().map(IpAddr::to_string)).unwrap_or_default();
        issue::leaf(&self.server.issuer, &common_name, &Usage::Server { names: names.to_vec(), ips: ips.to_vec() }, now, life)
    }

    /// A client certificate: the user's name and groups.
    pub fn issue_client(&self, common_name: &str, organisations: &[String]) -> Result<Pair, IssueError> {
        self.issue_client_at(common_name, organisations, Timestamp::now())
    }

    /// As [`Authority::issue_client`], at a given time.
    pub fn issue_client_at(&self, common_name: &str, organisations: &[String], now: Timestamp) -> Result<Pair, IssueError> {
        issue::leaf(&self.client.issuer, common_name, &Usage::Client { organisations: organisations.to_vec() }, now, self.leaf_life)
    }

    /// A certificate in PEM for the request of another, for these usages and at most this long.
    pub fn sign_request(
        &self,
        by: Signatory,
        request: &SigningRequest,
        usages: &[&str],
        life: Duration,
        now: Timestamp,
    ) -> Result<String, SignRequestError> {
        let ca = match by {
            Signatory::Client => &self.client,
            Signatory::Server => &self.server,
        };
        let der = sign::request((&ca.der, ca.issuer.key()), request, usages, life, now)?;
        Ok(pem("CERTIFICATE", &der))
    }

    /// The certificate by which extension API servers know the aggregating proxy, at a given time.
    pub fn issue_front_proxy_at(&self, common_name: &str, now: Timestamp) -> Result<Pair, IssueError> {
        issue::leaf(&self.front_proxy.issuer, common_name, &Usage::Client { organisations: Vec::new() }, now, self.leaf_life)
    }

    /// What clients trust the cluster's servers by (`certificate-authority-data`, `kube-root-ca.crt`).
    pub fn server_ca_pem(&self) -> &str {
        &self.server.pem
    }

    /// What servers trust clients by (`client-ca-file`).
    pub fn client_ca_pem(&self) -> &str {
        &self.client.pem
    }

    /// What extension API servers trust the aggregating proxy by (`requestheader-client-ca-file`).
    pub fn front_proxy_ca_pem(&self) -> &str {
        &self.front_proxy.pem
    }

    /// See [`Authority::server_ca_pem`].
    pub fn server_ca(&self) -> &CertificateDer<'static> {
        &self.server.der
    }

    /// See [`Authority::client_ca_pem`].
    pub fn client_ca(&self) -> &CertificateDer<'static> {
        &self.client.der
    }

    /// See [`Authority::front_proxy_ca_pem`].
    pub fn front_proxy_ca(&self) -> &CertificateDer<'static> {
        &self.front_proxy.der
    }

    /// Signs ServiceAccount tokens.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(LINE));
        out.push_str(line);
        out.push('\n');
        rest = next;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// Certificate and key stand in one file: a crash cannot part them.
fn open_ca(dir: &Path, name: &'static str, now: Timestamp, wrote: &mut bool) -> Result<Ca, OpenError> {
    let path = dir.join(format!("{name}.pem"));
    let io = |what| {
        let path = path.clone();
        move |source| OpenError::Io { path, what, source }
    };
    let text = match files::read(&path).map_err(io("read it"))? {
        Some(text) => text,
        None => {
            let make = |source| OpenError::Make { name, source };
            let key = KeyPair::generate().map_err(make)?;
            let common_name = format!("coracle-{name}@{}", now.as_second());
            let certificate = issue::authority(&common_name, now, AUTHORITY_LIFE).self_signed(&key).map_err(make)?;
            let text = format!("{}{}", certificate.pem(), key.serialize_pem());
            files::write_secret(&path, text.as_bytes()).map_err(io("write it"))?;
            *wrote = true;
            text
        }
    };
    let content = |what| OpenError::Content { path: path.clone(), what };
    let der = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| content("holds no certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| content("holds no private key"))?;
    let key = KeyPair::try_from(&key).map_err(|_| content("its private key is of a kind that this program does not sign with"))?;
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|_| content("its certificate is not that of an authority"))?;
    let end = text.find("-----END CERTIFICATE-----").map_or(0, |at| at + "-----END CERTIFICATE-----".len());
    Ok(Ca { pem: format!("{}\n", text[..end].trim_start()), der, issuer })
}

fn open_signer(dir: &Path, wrote: &mut bool) -> Result<Signer, OpenError> {
    let path = dir.join("service-account.key");
    let io = |what| {
        let path = path.clone();
        move |source| OpenError::Io { path, what, source }
    };
    if let Some(text) = files::read(&path).map_err(io("read it"))? {
        return Signer::from_pem(&text).map_err(|source| OpenError::TokenKey { path, source });
    }
    let key = KeyPair::generate().map_err(|source| OpenError::Make { name: "service-account", source })?;
    let text = key.serialize_pem();
    files::write_secret(&path, text.as_bytes()).map_err(io("write it"))?;
    *wrote = true;
    Signer::from_pem(&text).map_err(|source| OpenError::TokenKey { path, source })
}

#[cfg(test)]
mod tests;
