//! The file `--authentication-config`: AuthenticationConfiguration of `apiserver.config.k8s.io`, read and checked.

use std::{fs, io, path::Path};

use serde::Deserialize;

use super::jwt::mapping::{self, Mapping};

/// Longer files are refused: authorities of 64 issuers have a fraction.
const MAX_BYTES: u64 = 4 << 20;
/// Issuers in one file. Upstream's bound.
const MAX_ISSUERS: usize = 64;
const GROUP: &str = "apiserver.config.k8s.io/";
const VERSIONS: [&str; 3] = ["v1", "v1beta1", "v1alpha1"];
const KIND: &str = "AuthenticationConfiguration";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not there, or not for us.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// Too long.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not YAML, or with fields that there are not.
    #[error("it is no {KIND}: {0}")]
    Form(String),
    /// Something else.
    #[error("it holds {kind:?} of {api_version:?}, not {KIND} of apiserver.config.k8s.io/v1")]
    Kind {
        /// As it says.
        api_version: String,
        /// As it says.
        kind: String,
    },
    /// Each with its field.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
}

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Configuration {
    api_version: String,
    kind: String,
    /// Issuers of tokens.
    pub jwt: Vec<JwtAuthenticator>,
    /// Who may go without proof.
    pub anonymous: Option<Anonymous>,
}

/// Who may go without proof.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Anonymous {
    /// Anybody at all.
    pub enabled: bool,
    /// On these paths alone; none means everywhere.
    pub conditions: Vec<Condition>,
}

/// Where anonymous requests are let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Condition {
    /// The whole path.
    pub path: String,
}

/// An issuer, and what is made of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct JwtAuthenticator {
    /// Who.
    pub issuer: Issuer,
    /// What must hold of the claims.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// What of the claims makes the user.
    pub claim_mappings: ClaimMappings,
    /// What must hold of the user.
    pub user_validation_rules: Vec<UserRule>,
}

/// Who issues tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Issuer {
    /// As tokens and discovery name it.
    pub url: String,
    /// Where discovery is, if not below the URL.
    #[serde(rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; empty: the machine's authorities.
    pub certificate_authority: String,
    /// One of these must be in a token.
    pub audiences: Vec<String>,
    /// `MatchAny`.
    pub audience_match_policy: String,
    /// Upstream's network proxies; there are none here.
    pub egress_selector_type: String,
}

/// What must hold of the claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ClaimRule {
    /// This claim has the value.
    pub claim: String,
    /// The value.
    pub required_value: String,
    /// Or this holds, in CEL.
    pub expression: String,
    /// What to say otherwise.
    pub message: String,
}

/// What of the claims makes the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimMappings {
    /// The name.
    pub username: PrefixedClaim,
    /// The groups.
    pub groups: PrefixedClaim,
    /// The uid.
    pub uid: Claim,
    /// The rest.
    pub extra: Vec<Extra>,
}

/// A claim with a prefix, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PrefixedClaim {
    /// Name of the claim.
    pub claim: String,
    /// Before its value; may be empty, but must be said.
    pub prefix: Option<String>,
    /// In CEL.
    pub expression: String,
}

/// A claim, or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Claim {
    /// Name of the claim.
    pub claim: String,
    /// In CEL.
    pub expression: String,
}

/// One entry of a user's extra.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Extra {
    /// Its key.
    pub key: String,
    /// Its values, in CEL.
    pub value_expression: String,
}

/// What must hold of the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserRule {
    /// In CEL.
    pub expression: String,
    /// What to say otherwise.
    pub message: String,
}

/// A document in which everything holds, with its expressions compiled: one mapping for each issuer.
#[derive(Debug, Default)]
pub struct Checked {
    /// The document.
    pub document: Configuration,
    /// In the order of its issuers.
    pub mappings: Vec<Mapping>,
}

/// Reads the file and checks it. Tokens of `own_issuer` are ours alone.
pub fn read(file: &Path, own_issuer: &str) -> Result<Checked, ConfigurationError> {
    let size = fs::metadata(file).map_err(ConfigurationError::Read)?.len();
    if size > MAX_BYTES {
        return Err(ConfigurationError::TooLarge);
    }
    parse(&fs::read_to_string(file).map_err(ConfigurationError::Read)?, own_issuer)
}

/// Checks the text of such a file.
pub fn parse(text: &str, own_issuer: &str) -> Result<Checked, ConfigurationError> {
    let document: Configuration = serde_saphyr::from_str(text)
        .map_err(|error| ConfigurationError::Form(error.to_string().lines().next().unwrap_or_default().to_owned()))?;
    let version = document.api_version.strip_prefix(GROUP).unwrap_or_default();
    if document.kind != KIND || !VERSIONS.contains(&version) {
        return Err(ConfigurationError::Kind { api_version: document.api_version, kind: document.kind });
    }
    let mut wrong = Vec::new();
    if document.jwt.len() > MAX_ISSUERS {
        wrong.push(format!("jwt: Too many: {}: must have at most {MAX_ISSUERS} items", document.jwt.len()));
        return Err(ConfigurationError::Invalid(wrong));
    }
    let mut mappings = Vec::new();
    for (index, authenticator) in document.jwt.iter().enumerate() {
        let at = format!("jwt[{index}]");
        issuer(&authenticator.issuer, &format!("{at}.issuer"), own_issuer, &mut wrong);
        let before = &document.jwt[..index];
        if before.iter().any(|other| other.issuer.url == authenticator.issuer.url) {
            wrong.push(format!("{at}.issuer.url: Duplicate value: {:?}", authenticator.issuer.url));
        }
        let discovery = &authenticator.issuer.discovery_url;
        if !discovery.is_empty() && before.iter().any(|other| other.issuer.discovery_url == *discovery) {
            wrong.push(format!("{at}.issuer.discoveryURL: Duplicate value: {discovery:?}"));
        }
        mappings.push(mapping::compile(authenticator, &at, &mut wrong));
    }
    if let Some(Anonymous { enabled: false, conditions }) = &document.anonymous
        && !conditions.is_empty()
    {
        wrong.push("anonymous.conditions: Invalid value: enabled should be set to true when conditions are defined".into());
    }
    if wrong.is_empty() { Ok(Checked { document, mappings }) } else { Err(ConfigurationError::Invalid(wrong)) }
}

fn issuer(issuer: &Issuer, at: &str, own_issuer: &str, wrong: &mut Vec<String>) {
    let Issuer { url, discovery_url, certificate_authority, audiences, audience_match_policy, egress_selector_type } = issuer;
    if url.is_empty() {
        wrong.push(format!("{at}.url: Required value"));
    } else {
        address(url, &format!("{at}.url"), wrong);
    }
    if url == own_issuer {
        wrong.push(format!("{at}.url: Invalid value: {url:?}: URL must not overlap with disallowed issuers: [{own_issuer}]"));
    }
    if !discovery_url.is_empty() {
        if discovery_url.trim_end_matches('/') == url.trim_end_matches('/') {
            wrong.push(format!("{at}.discoveryURL: Invalid value: {discovery_url:?}: discoveryURL must be different from URL"));
        }
        address(discovery_url, &format!("{at}.discoveryURL"), wrong);
    }
    if audiences.is_empty() {
        wrong.push(format!("{at}.audiences: Required value: at least one {at}.audiences is required"));
    }
    for (index, audience) in audiences.iter().enumerate() {
        if audience.is_empty() {
            wrong.push(format!("{at}.audiences[{index}]: Required value"));
        }
        if audiences[..index].contains(audience) {
            wrong.push(format!("{at}.audiences[{index}]: Duplicate value: {audience:?}"));
        }
    }
    let several = audiences.len() > 1;
    if audience_match_policy != "MatchAny" && (several || !audience_match_policy.is_empty()) {
        let rule = if several { "MatchAny for multiple audiences" } else { "empty or MatchAny for single audience" };
        wrong.push(format!("{at}.audienceMatchPolicy: Invalid value: {audience_match_policy:?}: audienceMatchPolicy must be {rule}"));
    }
    if !certificate_authority.is_empty() {
        let trust = super::remote::Trust { authority: certificate_authority.clone(), ..Default::default() };
        if let Err(error) = super::remote::Remote::new(&trust) {
            wrong.push(format!("{at}.certificateAuthority: Invalid value: <omitted>: {error}"));
        }
    }
    if !egress_selector_type.is_empty() {
        wrong.push(format!("{at}.egressSelectorType: Invalid value: {egress_selector_type:?}: there are no egress selectors here"));
    }
}

fn address(url: &str, at: &str, wrong: &mut Vec<String>) {
    let mut bad = |why: &str| wrong.push(format!("{at}: Invalid value: {url:?}: {why}"));
    if url.contains('#') {
        bad("URL must not contain a fragment");
    }
    match url.split('#').next().unwrap_or_default().parse::<http::Uri>() {
        Err(_) => bad("not a URL"),
        Ok(uri) => {
            if uri.scheme_str() != Some("https") {
                bad("URL scheme must be https");
            }
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                bad("URL must not contain a username or password");
            }
            if uri.query().is_some_and(|query| !query.is_empty()) {
                bad("URL must not contain a query");
            }
        }
    }
}

#[cfg(test)]
mod tests;
