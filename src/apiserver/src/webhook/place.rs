//! Where a webhook is: a `clientConfig` read once, with what its server must prove.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_pki::bundle::{self, TrustError};
use http::Uri;
use rustls::{ClientConfig, crypto::CryptoProvider, pki_types::ServerName};
use serde_json::Value;

/// Port when none is said.
const DEFAULT_PORT: u16 = 443;

/// Why a `clientConfig` leads nowhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    /// Neither or both of the two.
    #[error("webhook configuration must have either service or URL")]
    Neither,
    /// Not `https://host...`.
    #[error("the URL {0:?} cannot be called: it must be an https URL with a host")]
    Url(String),
    /// A service without a name.
    #[error("the service has no name or no namespace")]
    Service,
    /// Not a name that a certificate can have.
    #[error("{0:?} is no name that a server can prove")]
    Name(String),
    /// The bundle is not what JSON carries bytes as.
    #[error("caBundle: it is not base64")]
    Base64,
    /// The server could not be told from another one.
    #[error("caBundle: {0}")]
    Trust(#[from] TrustError),
}

/// What is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The URL without a query: what errors name.
    pub url: String,
    /// The name or address to connect to, or the Service.
    pub host: Host,
    /// Of the URL, or of the Service.
    pub port: u16,
}

/// Where to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// As it stands.
    Direct(String),
    /// To an endpoint of it.
    Service {
        /// Of the Service.
        namespace: String,
        /// Of the Service.
        name: String,
    },
}

/// A server and how it is trusted.
#[derive(Clone)]
pub(super) struct Place {
    pub address: Address,
    pub server_name: ServerName<'static>,
    pub tls: Arc<ClientConfig>,
}

impl Place {
    /// Of a `clientConfig`, as the object has it.
    pub fn read(config: &Value, provider: &Arc<CryptoProvider>) -> Result<Self, PlaceError> {
        let (address, name) = address(config)?;
        let server_name = ServerName::try_from(name.clone()).map_err(|_| PlaceError::Name(name))?;
        let pem = STANDARD.decode(config["caBundle"].as_str().unwrap_or_default()).map_err(|_| PlaceError::Base64)?;
        Ok(Self { address, server_name, tls: Arc::new(bundle::client_config(&pem, provider)?) })
    }
}

/// What is called, and the name that its server must have.
fn address(config: &Value) -> Result<(Address, String), PlaceError> {
    let service = &config["service"];
    match (config["url"].as_str(), service.is_object()) {
        (Some(url), false) => {
            let wrong = || PlaceError::Url(url.to_owned());
            let uri: Uri = url.parse().map_err(|_| wrong())?;
            if uri.scheme_str() != Some("https") || uri.query().is_some() {
                return Err(wrong());
            }
            let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
            Ok((Address { url: url.to_owned(), host: Host::Direct(host.clone()), port }, host))
        }
        (None, true) => {
            let text = |field: &str| service[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            let (name, namespace) = text("name").zip(text("namespace")).ok_or(PlaceError::Service)?;
            let port = service["port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or(DEFAULT_PORT);
            let server_name = format!("{name}.{namespace}.svc");
            let path = text("path").unwrap_or_default();
            let path = if path.is_empty() || path.starts_with('/') { path } else { format!("/{path}") };
            let url = format!("https://{server_name}:{port}{path}");
            url.parse::<Uri>().map_err(|_| PlaceError::Url(url.clone()))?;
            Ok((Address { url, host: Host::Service { namespace, name }, port }, server_name))
        }
        _ => Err(PlaceError::Neither),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_place_is_a_url_or_a_service() {
        let direct = |host: &str| Host::Direct(host.to_owned());
        for (url, host, port) in
            [("https://h.test/a", "h.test", 443), ("https://[::1]:8443/a/b", "::1", 8443), ("https://10.0.0.1:1", "10.0.0.1", 1)]
        {
            let (address, name) = address(&json!({"url": url})).expect(url);
            assert_eq!((address.host, address.port, name.as_str()), (direct(host), port, host), "{url}");
        }
        let (address, name) = address(&json!({"service": {"name": "s", "namespace": "n", "path": "/p", "port": 8443}})).expect("a place");
        assert_eq!((address.url.as_str(), name.as_str()), ("https://s.n.svc:8443/p", "s.n.svc"));
        assert_eq!(address.host, Host::Service { namespace: "n".into(), name: "s".into() });
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        let both = json!({"url": "https://h", "service": {"name": "s", "namespace": "n"}});
        for config in [
            json!({}),
            both,
            json!({"url": "http://h"}),
            json!({"url": "https:///x"}),
            json!({"url": "https://h?q=1"}),
            json!({"service": {"name": "s"}}),
        ] {
            assert!(address(&config).is_err(), "{config}");
        }
    }
}
