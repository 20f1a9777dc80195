//! Whether a pod may use an image that is here already (KEP 2535): its node may have pulled it with the credentials of another pod. Pure.

use super::{
    keys::Owner,
    records::{Access, SecretUse},
};

/// Secrets up to which one that is known by other signs is written down, too.
const LEARNED: usize = 100;

/// `imagePullCredentialsVerificationPolicy` of the kubelet's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Whoever is on the node may use what is on it.
    NeverVerify,
    /// What the node did not pull itself is everybody's.
    #[default]
    NeverVerifyPreloadedImages,
    /// What is listed is everybody's.
    NeverVerifyAllowlistedImages(Allowlist),
    /// Nothing is everybody's, unless it was pulled without credentials.
    AlwaysVerify,
}

/// Names of images without tag; one that ends with `/*` is the beginning of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist(Vec<String>);

impl Policy {
    /// By its name; the list belongs to one of them only.
    pub fn named(name: &str, allowlist: &[String]) -> Result<Self, String> {
        let policy = match name {
            "NeverVerify" => Self::NeverVerify,
            "" | "NeverVerifyPreloadedImages" => Self::NeverVerifyPreloadedImages,
            "NeverVerifyAllowlistedImages" => return Ok(Self::NeverVerifyAllowlistedImages(Allowlist::new(allowlist)?)),
            "AlwaysVerify" => Self::AlwaysVerify,
            other => {
                return Err(format!(
                    "{other:?} is none of NeverVerify, NeverVerifyPreloadedImages, NeverVerifyAllowlistedImages, AlwaysVerify"
                ));
            }
        };
        if allowlist.is_empty() { Ok(policy) } else { Err(format!("{name:?} has no list of images")) }
    }

    /// Whether a pod must show what opens this image (`name` as its pod spells it), which the node pulled itself or did not.
    pub fn asks(&self, name: &str, pulled_here: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => pulled_here,
            Self::NeverVerifyAllowlistedImages(list) => !list.has(without_version(name)),
            Self::AlwaysVerify => true,
        }
    }
}

impl Allowlist {
    fn new(patterns: &[String]) -> Result<Self, String> {
        for pattern in patterns {
            let name = pattern.strip_suffix("/*").unwrap_or(pattern);
            if name.is_empty() || name.contains(['*', ' ']) || without_version(name) != name || name.trim() != name {
                return Err(format!(
                    "{pattern:?} is neither the name of an image without tag and digest nor the beginning of some with /* at its end"
                ));
            }
        }
        Ok(Self(patterns.to_vec()))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => pattern == name,
        })
    }
}

/// An image's name without tag and digest, as it is spelled.
pub fn without_version(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let after_slash = name.rfind('/').map_or(0, |at| at + 1);
    name[after_slash..].rfind(':').map_or(name, |at| &name[..after_slash + at])
}

/// What a pod shows of itself.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// What its image pull Secrets give for the image.
    pub secrets: Vec<SecretUse>,
    /// Its ServiceAccount, where a credential provider speaks for it.
    pub account: Option<Owner>,
}

/// The verdict on a pod's use of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allowed,
    /// It may, by a Secret that is to be remembered: the same credentials under another name, or a Secret whose credentials are others now.
    Learned(SecretUse),
    /// The registry is to be asked.
    Unknown,
}

/// Judges by what is on record.
pub fn judge(known: Option<&Access>, shown: &Shown) -> Verdict {
    let Some(known) = known else { return Verdict::Unknown };
    if known.node_pods_accessible {
        return Verdict::Allowed;
    }
    let room = known.kubernetes_secrets.len() < LEARNED;
    for secret in &shown.secrets {
        for recorded in &known.kubernetes_secrets {
            let same_key = !recorded.credential_hash.is_empty() && recorded.credential_hash == secret.credential_hash;
            let same_secret = recorded.owner == secret.owner;
            match (same_key, same_secret) {
                (true, true) => return Verdict::Allowed,
                (true, false) if room => return Verdict::Learned(secret.clone()),
                (true, false) => return Verdict::Allowed,
                (false, true) if room => return Verdict::Learned(secret.clone()),
                (false, _) => {}
            }
        }
    }
    let by_account = shown.account.as_ref().is_some_and(|account| known.kubernetes_service_accounts.contains(account));
    if by_account { Verdict::Allowed } else { Verdict::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(name: &str) -> Owner {
        Owner { namespace: "a".into(), name: name.into(), uid: format!("{name}-uid") }
    }

    fn secret(name: &str, hash: &str) -> SecretUse {
        SecretUse { owner: owner(name), credential_hash: hash.into() }
    }

    #[test]
    fn policies_ask_of_whom_upstreams_ask() {
        let list = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let allow = Policy::named("NeverVerifyAllowlistedImages", &list(&["r.example/one", "r.example/team/*"])).unwrap();
        for (policy, name, here, want) in [
            (&Policy::NeverVerify, "x", true, false),
            (&Policy::default(), "x", true, true),
            (&Policy::default(), "x", false, false),
            (&Policy::AlwaysVerify, "x", false, true),
            (&allow, "r.example/one:1", true, false),
            (&allow, "r.example/one@sha256:0", true, false),
            (&allow, "r.example/one/more", true, true),
            (&allow, "r.example/team/a:2", true, false),
            (&allow, "r.example/teams", true, true),
        ] {
            assert_eq!(policy.asks(name, here), want, "{policy:?} {name} {here}");
        }
        for (name, patterns) in [
            ("Sometimes", &[][..]),
            ("NeverVerify", &["a"]),
            ("NeverVerifyAllowlistedImages", &["a:1"]),
            ("NeverVerifyAllowlistedImages", &["*"]),
            ("NeverVerifyAllowlistedImages", &["/*"]),
            ("NeverVerifyAllowlistedImages", &["a/*/b"]),
            ("NeverVerifyAllowlistedImages", &[" a"]),
            ("NeverVerifyAllowlistedImages", &[""]),
        ] {
            assert!(Policy::named(name, &list(patterns)).is_err(), "{name} {patterns:?}");
        }
        assert_eq!(without_version("r.example:5000/a"), "r.example:5000/a");
    }

    #[test]
    fn who_shows_what_is_on_record_may() {
        let recorded = |secrets: &[SecretUse], accounts: &[Owner]| Access {
            kubernetes_secrets: secrets.to_vec(),
            kubernetes_service_accounts: accounts.to_vec(),
            node_pods_accessible: false,
        };
        let shows = |secrets: &[SecretUse], account: Option<Owner>| Shown { secrets: secrets.to_vec(), account };
        let everybody = Access { node_pods_accessible: true, ..Access::default() };
        let one = recorded(&[secret("s", "h")], &[]);
        let full = recorded(&(0..LEARNED).map(|n| secret(&format!("s{n}"), "h")).collect::<Vec<_>>(), &[]);
        for (known, shown, want) in [
            (None, shows(&[secret("s", "h")], None), Verdict::Unknown),
            (Some(&everybody), shows(&[], None), Verdict::Allowed),
            (Some(&Access::default()), shows(&[secret("s", "h")], None), Verdict::Unknown),
            (Some(&one), shows(&[], None), Verdict::Unknown),
            (Some(&one), shows(&[secret("s", "h")], None), Verdict::Allowed),
            (Some(&one), shows(&[secret("other", "g"), secret("s", "h")], None), Verdict::Allowed),
            (Some(&one), shows(&[secret("other", "h")], None), Verdict::Learned(secret("other", "h"))),
            (Some(&one), shows(&[secret("s", "new")], None), Verdict::Learned(secret("s", "new"))),
            (Some(&one), shows(&[secret("other", "g")], None), Verdict::Unknown),
            (Some(&recorded(&[secret("s", "")], &[])), shows(&[secret("other", "")], None), Verdict::Unknown),
            (Some(&full), shows(&[secret("other", "h")], None), Verdict::Allowed),
            (Some(&full), shows(&[secret("s0", "new")], None), Verdict::Unknown),
            (Some(&recorded(&[], &[owner("x")])), shows(&[], Some(owner("x"))), Verdict::Allowed),
            (Some(&recorded(&[], &[owner("x")])), shows(&[], Some(owner("y"))), Verdict::Unknown),
        ] {
            assert_eq!(judge(known, &shown), want, "{known:?} {shown:?}");
        }
    }
}
