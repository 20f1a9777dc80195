//! ServiceAccount tokens: JSON Web Tokens signed with ES256 (RFC 7515, 7518), and the key set that others verify them by (RFC 7517).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest, hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};

/// Longest token that is looked at, in bytes: ours have about 1,000.
pub const TOKEN_BOUND: usize = 16 * 1024;
/// The algorithm's name in a token's header.
const ALGORITHM: &str = "ES256";
/// Length of a coordinate of a P-256 point, in bytes.
const COORDINATE: usize = 32;

/// Why a key cannot sign tokens.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PEM.
    #[error("no PKCS #8 private key in PEM found")]
    Pem,
    /// Not P-256.
    #[error("not an ECDSA P-256 key: {0}")]
    Kind(ring::error::KeyRejected),
}

/// Why no token was signed.
#[derive(Debug, thiserror::Error)]
#[error("the system has no randomness to sign a token with")]
pub struct SignError;

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not three parts of base64url and JSON.
    #[error("not a JSON Web Token")]
    Malformed,
    /// By another key or with another algorithm.
    #[error("not signed by a key of this cluster")]
    Foreign,
    /// The signature does not fit the content.
    #[error("the signature is wrong")]
    Signature,
}

/// Signs tokens.
pub struct Signer {
    key: EcdsaKeyPair,
    id: String,
    random: SystemRandom,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Signer {
    /// From a PKCS #8 key.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::Pem)?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random).map_err(KeyError::Kind)?;
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, key.public_key().as_ref()));
        Ok(Self { key, id, random })
    }

    /// The token that says `claims`.
    pub fn sign(&self, claims: &Value) -> Result<String, SignError> {
        let header = json!({"alg": ALGORITHM, "kid": self.id});
        let mut token = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, token.as_bytes()).map_err(|_| SignError)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }

    /// What verifies the tokens of this signer.
    pub fn verifier(&self) -> Verifier {
        Verifier { keys: vec![PublicKey { id: self.id.clone(), point: self.key.public_key().as_ref().to_vec() }] }
    }
}

#[derive(Clone, Debug)]
struct PublicKey {
    id: String,
    /// Uncompressed: 4, x, y.
    point: Vec<u8>,
}

/// Verifies tokens: their signature, not what they claim.
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<PublicKey>,
}

impl Verifier {
    /// The claims of a token that one of the keys signed. Life, issuer, audience and the objects it is bound to are the caller's to check.
    pub fn verify(&self, token: &str) -> Result<Value, VerifyError> {
        if token.len() > TOKEN_BOUND {
            return Err(VerifyError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(VerifyError::Malformed)?;
        let header = part(header)?;
        if header["alg"] != ALGORITHM {
            return Err(VerifyError::Foreign);
        }
        let key = self.keys.iter().find(|key| header["kid"] == key.id.as_str()).ok_or(VerifyError::Foreign)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| VerifyError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| VerifyError::Signature)?;
        part(claims)
    }

    /// The key set at `/openid/v1/jwks`.
    pub fn key_set(&self) -> Value {
        let key = |key: &PublicKey| {
            let (x, y) = key.point[1..].split_at(COORDINATE);
            json!({"use": "sig", "kty": "EC", "kid": key.id, "crv": "P-256", "alg": ALGORITHM, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
        };
        json!({"keys": self.keys.iter().map(key).collect::<Vec<_>>()})
    }
}

/// The signature of a text that is not part of the answer (HS256, RFC 7515 appendix F): how a bootstrap token vouches for `cluster-info`.
pub fn detached(content: &str, key_id: &str, secret: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": key_id}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
}

fn part(text: &str) -> Result<Value, VerifyError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| VerifyError::Malformed)?;
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(VerifyError::Malformed),
    }
}

#[cfg(test)]
mod tests;
