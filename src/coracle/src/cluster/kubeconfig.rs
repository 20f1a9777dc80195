//! The administrator's kubeconfig.

use std::{
    fs, io,
    io::Write as _,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use coracle_pki::authority::{Authority, IssueError};
use serde_json::json;

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// the administrator's certificate was not issued
    #[error("the administrator's certificate was not issued")]
    Issue(#[source] IssueError),
    /// cannot write {0}
    #[error("cannot write {0}")]
    Write(PathBuf, #[source] io::Error),
}

/// Writes a kubeconfig of a cluster administrator for the server at `address`. Unspecified addresses become loopback.
pub fn write(authority: &Authority, address: SocketAddr, path: &Path, mode: u32) -> Result<(), KubeconfigError> {
    let pair = authority.issue_client("system:admin", &["system:masters".to_owned()]).map_err(KubeconfigError::Issue)?;
    let host: IpAddr = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => [127, 0, 0, 1].into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "coracle", "cluster": {
            "server": format!("https://{}", SocketAddr::new(host, address.port())),
            "certificate-authority-data": base64(authority.server_ca_pem()),
        }}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": base64(&pair.certificate_pem),
            "client-key-data": base64(&pair.key_pem),
        }}],
        "contexts": [{"name": "coracle", "context": {"cluster": "coracle", "user": "admin"}}],
        "current-context": "coracle",
    });
    // YAML is a superset of JSON, but people read this file.
    let text = serde_saphyr::to_string(&config).unwrap_or_else(|_| config.to_string());
    replace(path, text.as_bytes(), mode).map_err(|e| KubeconfigError::Write(path.to_owned(), e))
}

/// Whole or not at all, and never readable by more than `mode` says.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    fs::rename(&fresh, path)
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
