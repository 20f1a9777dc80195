//! Certificate signing requests (PKCS #10, RFC 2986): read from PEM, their signature checked.

use std::net::IpAddr;

use x509_parser::{
    certification_request::X509CertificationRequest,
    extensions::{GeneralName, ParsedExtension},
    pem::Pem,
    prelude::FromDer as _,
    x509::X509Name,
};

/// Longest request that is looked at, in bytes: with a large RSA key and many names one has some 20 KiB.
pub const REQUEST_BOUND: usize = 256 * 1024;
const LABEL: &str = "CERTIFICATE REQUEST";

/// Why a request cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No PEM, or PEM of something else.
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    /// Larger than anybody's.
    #[error("longer than {REQUEST_BOUND} bytes")]
    TooLong,
    /// Not PKCS #10.
    #[error("not a PKCS #10 certificate request")]
    Form,
    /// Its subject holds text of a kind that Kubernetes does not read.
    #[error("the subject's common name and organisations must be UTF-8, printable or IA5 strings")]
    Subject,
    /// A name that no certificate can carry.
    #[error("a subject alternative name is malformed")]
    Name,
    /// Signed with an algorithm that this program does not know, or with a key that is too weak.
    #[error("its signature is of a kind that is not supported: RSA from 2048 bits, ECDSA P-256 or P-384, or Ed25519")]
    Algorithm,
    /// Not signed by the key that it asks a certificate for.
    #[error("its signature does not fit its key")]
    Signature,
}

/// A request whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// Common name of the subject; the last, if there are several; empty for none.
    pub common_name: String,
    /// Organisations of the subject.
    pub organisations: Vec<String>,
    /// DNS names it is to hold for.
    pub dns_names: Vec<String>,
    /// Mail addresses it is to hold for.
    pub emails: Vec<String>,
    /// Addresses it is to hold for.
    pub ips: Vec<IpAddr>,
    /// URIs it is to hold for.
    pub uris: Vec<String>,
    /// The subject in DER.
    pub(crate) subject: Vec<u8>,
    /// The public key in DER (SubjectPublicKeyInfo).
    pub(crate) key: Vec<u8>,
}

impl SigningRequest {
    /// From PEM, as the first block.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RequestError> {
        if pem.len() > REQUEST_BOUND {
            return Err(RequestError::TooLong);
        }
        let block = Pem::iter_from_buffer(pem).next().and_then(Result::ok).filter(|block| block.label == LABEL);
        Self::from_der(&block.ok_or(RequestError::Pem)?.contents)
    }

    fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Form)?;
        if !rest.is_empty() {
            return Err(RequestError::Form);
        }
        request.verify_signature().map_err(|error| match error {
            x509_parser::error::X509Error::SignatureUnsupportedAlgorithm => RequestError::Algorithm,
            _ => RequestError::Signature,
        })?;
        let info = &request.certification_request_info;
        let (common_name, organisations) = subject(&info.subject)?;
        let mut out = Self {
            common_name,
            organisations,
            dns_names: Vec::new(),
            emails: Vec::new(),
            ips: Vec::new(),
            uris: Vec::new(),
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    names.general_names.iter().try_for_each(|name| out.add(name))?;
                }
                ParsedExtension::ParseError { .. } => return Err(RequestError::Form),
                _ => {}
            }
        }
        Ok(out)
    }

    fn add(&mut self, name: &GeneralName<'_>) -> Result<(), RequestError> {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push(ascii(name)?),
            GeneralName::RFC822Name(name) => self.emails.push(ascii(name)?),
            GeneralName::URI(name) => self.uris.push(ascii(name)?),
            GeneralName::IPAddress(bytes) => self.ips.push(match bytes {
                [a, b, c, d] => IpAddr::from([*a, *b, *c, *d]),
                longer => IpAddr::from(<[u8; 16]>::try_from(*longer).map_err(|_| RequestError::Name)?),
            }),
            GeneralName::Invalid(..) => return Err(RequestError::Name),
            // Kinds of names that Kubernetes gives nobody.
            _ => {}
        }
        Ok(())
    }
}

fn subject(name: &X509Name<'_>) -> Result<(String, Vec<String>), RequestError> {
    let names = name.iter_common_name().map(|part| part.as_str().map(str::to_owned)).collect::<Result<Vec<_>, _>>();
    let organisations = name.iter_organization().map(|part| part.as_str().map(str::to_owned)).collect::<Result<Vec<_>, _>>();
    let mut names = names.map_err(|_| RequestError::Subject)?;
    Ok((names.pop().unwrap_or_default(), organisations.map_err(|_| RequestError::Subject)?))
}

/// Names in certificates are IA5 strings.
fn ascii(name: &str) -> Result<String, RequestError> {
    if name.is_ascii() { Ok(name.to_owned()) } else { Err(RequestError::Name) }
}

/// What is wrong with a chain in PEM: anything but certificates in it, or none.
pub fn check_chain(pem: &[u8]) -> Result<(), ChainError> {
    let mut found = false;
    for block in Pem::iter_from_buffer(pem) {
        let block = block.map_err(|_| ChainError::Block)?;
        if block.label != "CERTIFICATE" {
            return Err(ChainError::Label(block.label));
        }
        let certificate = block.parse_x509();
        if certificate.is_err() {
            return Err(ChainError::Certificate);
        }
        found = true;
    }
    if found { Ok(()) } else { Err(ChainError::None) }
}

/// Why a text is no chain of certificates.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not PEM.
    #[error("a PEM block is malformed")]
    Block,
    /// PEM of something else.
    #[error("only CERTIFICATE PEM blocks are allowed, found {0:?}")]
    Label(String),
    /// PEM that holds no certificate.
    #[error("a CERTIFICATE PEM block does not hold a certificate")]
    Certificate,
    /// Nothing at all.
    #[error("must contain at least one CERTIFICATE PEM block")]
    None,
}

/// When the first certificate of a chain in PEM ends, in seconds since 1970.
pub fn chain_ends_s(pem: &[u8]) -> Option<i64> {
    let block = Pem::iter_from_buffer(pem).next()?.ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests;
