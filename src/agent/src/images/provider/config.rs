//! CredentialProviderConfig (kubelet.config.k8s.io): which programs give credentials for which images. A file, or a directory of them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::images::pattern;

/// Bytes of one file.
const MAX_BYTES: u64 = 1 << 20;
/// Versions of the configuration that are read alike.
const VERSIONS: [&str; 3] = ["kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"];
/// The version of the protocol that knows tokens of service accounts.
const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";
/// Versions of the protocol; their documents have the same shape.
const PROTOCOLS: [&str; 3] = [PROTOCOL, "credentialprovider.kubelet.k8s.io/v1beta1", "credentialprovider.kubelet.k8s.io/v1alpha1"];

/// Why credential providers cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// a file cannot be read
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// what it says cannot be
    #[error("{}: {what}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// The field, and what is wrong with it.
        what: String,
    },
}

/// One provider, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Version of the protocol that it speaks.
    pub protocol: String,
    /// Patterns of the images that it knows.
    pub match_images: Vec<String>,
    /// How long its answers count that do not say it.
    pub cache: Duration,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Variables of the program.
    pub env: Vec<(String, String)>,
    /// It speaks for the pod's service account.
    pub token: Option<Token>,
}

/// `tokenAttributes`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Token {
    /// Whom the token is for.
    #[serde(default)]
    pub service_account_token_audience: String,
    /// `Token` or `ServiceAccount`: whose the answers are.
    #[serde(default)]
    pub cache_type: String,
    /// Without an account it is not asked.
    #[serde(default)]
    pub require_service_account: Option<bool>,
    /// Annotations of the account that it needs.
    #[serde(default)]
    pub required_service_account_annotation_keys: Vec<String>,
    /// Annotations that it takes.
    #[serde(default)]
    pub optional_service_account_annotation_keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    providers: Option<Vec<Raw>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    name: String,
    #[serde(default)]
    match_images: Option<Vec<String>>,
    #[serde(default)]
    default_cache_duration: Option<String>,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: Option<Vec<Variable>>,
    #[serde(default)]
    token_attributes: Option<Token>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

/// Reads the configuration; each program must be in `bin_dir`, and executable.
pub fn read(path: &Path, bin_dir: &Path) -> Result<Vec<Provider>, ConfigError> {
    let invalid = |path: &Path, what: String| ConfigError::Invalid { path: path.to_owned(), what };
    let mut out = Vec::new();
    let mut names = BTreeSet::new();
    for file in files(path)? {
        let text = text(&file).map_err(|source| ConfigError::Read { path: file.clone(), source })?;
        for provider in parse(&text, bin_dir).map_err(|what| invalid(&file, what))? {
            let meta = fs::metadata(&provider.program).map_err(|source| ConfigError::Read { path: provider.program.clone(), source })?;
            if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
                return Err(invalid(&file, format!("provider {:?}: {} is not executable", provider.name, provider.program.display())));
            }
            if !names.insert(provider.name.clone()) {
                return Err(invalid(&file, format!("provider {:?} is there twice", provider.name)));
            }
            out.push(provider);
        }
    }
    if out.is_empty() { Err(invalid(path, "providers: at least one is needed".to_owned())) } else { Ok(out) }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unread = |source| ConfigError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(unread)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut out = Vec::new();
    for entry in fs::read_dir(path).map_err(unread)? {
        let file = entry.map_err(unread)?.path();
        if file.extension().and_then(|e| e.to_str()).is_some_and(|e| matches!(e, "json" | "yaml" | "yml")) && !file.is_dir() {
            out.push(file);
        }
    }
    out.sort();
    Ok(out)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES { Err(io::Error::other("it is larger than a megabyte")) } else { Ok(text) }
}

fn parse(text: &str, bin_dir: &Path) -> Result<Vec<Provider>, String> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    if !VERSIONS.contains(&&*document.api_version) {
        return Err(format!("apiVersion: {:?} is none of {}", document.api_version, VERSIONS.join(", ")));
    }
    if document.kind != "CredentialProviderConfig" {
        return Err(format!("kind: {:?} is not CredentialProviderConfig", document.kind));
    }
    let providers = document.providers.unwrap_or_default().into_iter().enumerate();
    providers.map(|(n, raw)| provider(raw, bin_dir).map_err(|what| format!("providers[{n}].{what}"))).collect()
}

fn provider(raw: Raw, bin_dir: &Path) -> Result<Provider, String> {
    if raw.name.is_empty() || raw.name.contains(['/', ' ']) || matches!(&*raw.name, "." | "..") {
        return Err(format!("name: {:?} is not the name of a program in the directory of providers", raw.name));
    }
    if !PROTOCOLS.contains(&&*raw.api_version) {
        return Err(format!("apiVersion: {:?} is none of {}", raw.api_version, PROTOCOLS.join(", ")));
    }
    let match_images = raw.match_images.unwrap_or_default();
    if match_images.is_empty() {
        return Err("matchImages: at least one is needed".to_owned());
    }
    for text in &match_images {
        pattern::check(text).map_err(|why| format!("matchImages: {text:?} {why}"))?;
    }
    let cache = raw.default_cache_duration.ok_or("defaultCacheDuration: it is needed")?;
    let cache = duration(&cache).ok_or_else(|| format!("defaultCacheDuration: {cache:?} is not a duration such as 12h or 0s"))?;
    if let Some(token) = &raw.token_attributes {
        check_token(token, &raw.api_version).map_err(|what| format!("tokenAttributes.{what}"))?;
    }
    Ok(Provider {
        program: bin_dir.join(&raw.name),
        name: raw.name,
        protocol: raw.api_version,
        match_images,
        cache,
        args: raw.args.unwrap_or_default(),
        env: raw.env.unwrap_or_default().into_iter().map(|v| (v.name, v.value)).collect(),
        token: raw.token_attributes,
    })
}

fn check_token(token: &Token, protocol: &str) -> Result<(), String> {
    if protocol != PROTOCOL {
        return Err(format!("serviceAccountTokenAudience: only {PROTOCOL} knows tokens of service accounts"));
    }
    if token.service_account_token_audience.is_empty() {
        return Err("serviceAccountTokenAudience: it is needed".to_owned());
    }
    if !matches!(&*token.cache_type, "Token" | "ServiceAccount") {
        return Err(format!("cacheType: {:?} is neither Token nor ServiceAccount", token.cache_type));
    }
    let Some(required) = token.require_service_account else { return Err("requireServiceAccount: it is needed".to_owned()) };
    let mut seen = BTreeSet::new();
    for (field, keys) in [
        ("requiredServiceAccountAnnotationKeys", &token.required_service_account_annotation_keys),
        ("optionalServiceAccountAnnotationKeys", &token.optional_service_account_annotation_keys),
    ] {
        for key in keys {
            if coracle_api::names::qualified(&key.to_lowercase()).is_err() {
                return Err(format!("{field}: {key:?} is not the key of an annotation"));
            }
            if !seen.insert(key) {
                return Err(format!("{field}: {key:?} is there twice"));
            }
        }
    }
    if !required && !token.required_service_account_annotation_keys.is_empty() {
        return Err("requiredServiceAccountAnnotationKeys: there is nobody to have them while requireServiceAccount is false".to_owned());
    }
    Ok(())
}

/// A length of time as Go writes it; none is below zero.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    text.parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: ecr
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages: ["*.dkr.ecr.*.amazonaws.com", "r.example:5000/team"]
    defaultCacheDuration: "12h"
    args: [get-credentials]
    env: [{name: AWS_PROFILE, value: one}]
    tokenAttributes:
      serviceAccountTokenAudience: registry
      cacheType: ServiceAccount
      requireServiceAccount: true
      requiredServiceAccountAnnotationKeys: [domain.io/Role]
"#;

    #[test]
    fn a_configuration_as_upstream_documents_it() {
        let found = parse(GOOD, Path::new("/bin")).unwrap().remove(0);
        assert_eq!((found.program.to_str(), found.cache.as_secs(), found.env.len()), (Some("/bin/ecr"), 43200, 1));
        assert_eq!(found.token.unwrap().required_service_account_annotation_keys, ["domain.io/Role"]);
    }

    #[test]
    fn an_error_says_which_field() {
        for (from, to, want) in [
            ("config.k8s.io/v1", "config.k8s.io/v2", "apiVersion"),
            ("CredentialProviderConfig", "Config", "kind"),
            ("name: ecr", "name: ../ecr", "providers[0].name"),
            ("name: ecr", "name: ''", "providers[0].name"),
            ("credentialprovider.kubelet.k8s.io/v1", "v1", "providers[0].apiVersion"),
            ("credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1beta1", "tokenAttributes"),
            ("\"12h\"", "soon", "providers[0].defaultCacheDuration"),
            ("\"12h\"", "\"-1s\"", "providers[0].defaultCacheDuration"),
            ("*.dkr.ecr", "https://*.dkr.ecr", "providers[0].matchImages"),
            ("cacheType: ServiceAccount", "cacheType: Pod", "cacheType"),
            ("requireServiceAccount: true", "requireServiceAccount: false", "requiredServiceAccountAnnotationKeys"),
            ("domain.io/Role", "'not a key'", "requiredServiceAccountAnnotationKeys"),
            ("    args:", "    arguments:", "arguments"),
        ] {
            let error = parse(&GOOD.replacen(from, to, 1), Path::new("/bin")).expect_err(to);
            assert!(error.contains(want), "{to}: {error}");
        }
    }

    #[test]
    fn programs_must_be_there_and_names_differ() {
        let dir = tempfile::tempdir().unwrap();
        let (bin, conf) = (dir.path().join("bin"), dir.path().join("conf"));
        fs::create_dir(&bin).unwrap();
        fs::create_dir(&conf).unwrap();
        let refused = |want: &str| {
            let error = crate::context::chain(&read(&conf, &bin).expect_err(want));
            assert!(error.contains(want), "{want}: {error}");
        };
        refused("at least one");
        fs::write(conf.join("one.yaml"), GOOD).unwrap();
        refused("bin/ecr");
        fs::write(bin.join("ecr"), "").unwrap();
        refused("not executable");
        fs::set_permissions(bin.join("ecr"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(read(&conf, &bin).unwrap().len(), 1);
        fs::write(conf.join("two.yaml"), GOOD).unwrap();
        refused("twice");
        assert!(matches!(read(Path::new("/none"), &bin), Err(ConfigError::Read { .. })));
    }
}
