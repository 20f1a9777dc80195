//! Whom a client certificate speaks for: the common name is the user, the organisations are the groups.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use rustls_pki_types::CertificateDer;

/// Why a certificate names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not to be read.
    #[error("it cannot be read")]
    Form,
    /// No common name.
    #[error("its subject has no common name")]
    Nameless,
}

/// What a certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user.
    pub name: String,
    /// The user's groups.
    pub groups: Vec<String>,
    /// When the certificate ends, in seconds since 1970.
    pub ends_s: i64,
}

impl Subject {
    /// Of a certificate; whether anybody vouches for it is not asked here.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, SubjectError> {
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| SubjectError::Form)?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().last().and_then(|name| name.as_str().ok()).filter(|name| !name.is_empty());
        Ok(Self {
            name: name.ok_or(SubjectError::Nameless)?.to_owned(),
            groups: subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect(),
            ends_s: certificate.validity().not_after.timestamp(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;

    #[test]
    fn names_and_groups() {
        let dir = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(dir.path()).expect("authorities");
        let pair = authority.issue_client("alice", &["dev".to_owned(), "ops".to_owned()]).expect("a certificate");
        let subject = Subject { name: "alice".into(), groups: vec!["dev".into(), "ops".into()], ends_s: pair.expires.as_second() };
        assert_eq!(Subject::of(&pair.certificate), Ok(subject));
        let nobody = authority.issue_client("", &[]).expect("a certificate");
        assert_eq!(Subject::of(&nobody.certificate), Err(SubjectError::Nameless));
        assert_eq!(Subject::of(&CertificateDer::from(vec![1, 2, 3])), Err(SubjectError::Form));
    }
}
