//! JSON Web Keys of other issuers (RFC 7517) and the tokens that they sign (RFC 7515): signatures alone, not what tokens claim.
//!
//! RSA and ECDSA, as OpenID Connect has them. ES512 is not ring's, which has no P-521.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use p521::ecdsa::{Signature, VerifyingKey, signature::Verifier as _};
use ring::signature::{self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::Value;

use crate::tokens::TOKEN_BOUND;

/// Keys of one set that are looked at; issuers publish two or three.
const MAX_KEYS: usize = 128;
/// Longest RSA modulus, in bytes.
const MAX_MODULUS: usize = 1024;

/// Why a token is not to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// Not three parts of base64url and JSON, or much too long.
    #[error("not a JSON Web Token")]
    Malformed,
    /// `none`, a shared secret, or one that is not known.
    #[error("signed with an algorithm that is not allowed")]
    Algorithm,
    /// Its header has critical parts that nobody here understands.
    #[error("the header has critical parameters")]
    Critical,
    /// No key of the set has signed it.
    #[error("not signed by a key of the issuer")]
    Signature,
}

/// Why a document is no set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// No list.
    #[error("has no list of keys")]
    Form,
    /// A list without end.
    #[error("has more than {MAX_KEYS} keys")]
    TooMany,
}

/// A token by its parts; nothing in it is proven.
#[derive(Clone, Debug)]
pub struct Token<'t> {
    signed: &'t str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    key_id: Option<String>,
    /// What it claims.
    pub claims: Value,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Rsa(&'static RsaParameters),
    Ec(Curve, &'static EcdsaVerificationAlgorithm),
    Es512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Algorithm {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            "PS384" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            "PS512" => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            "ES256" => Self::Ec(Curve::P256, &signature::ECDSA_P256_SHA256_FIXED),
            "ES384" => Self::Ec(Curve::P384, &signature::ECDSA_P384_SHA384_FIXED),
            "ES512" => Self::Es512,
            _ => return None,
        })
    }
}

impl<'t> Token<'t> {
    /// Reads a compact token.
    pub fn read(text: &'t str) -> Result<Self, JwtError> {
        let (signed, signature) = split(text)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header = part(header)?;
        if header.get("crit").is_some() {
            return Err(JwtError::Critical);
        }
        let algorithm = header["alg"].as_str().and_then(Algorithm::of).ok_or(JwtError::Algorithm)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::Malformed)?;
        Ok(Self { signed, signature, algorithm, key_id: header["kid"].as_str().map(str::to_owned), claims: part(claims)? })
    }
}

/// The `iss` of a token, without any look at its signature; `None` when it is no token.
pub fn issuer(text: &str) -> Option<String> {
    let (signed, _) = split(text).ok()?;
    let (_, claims) = signed.split_once('.')?;
    part(claims).ok()?["iss"].as_str().map(str::to_owned)
}

fn split(text: &str) -> Result<(&str, &str), JwtError> {
    if text.len() > TOKEN_BOUND || text.split('.').count() != 3 {
        return Err(JwtError::Malformed);
    }
    text.rsplit_once('.').ok_or(JwtError::Malformed)
}

fn part(text: &str) -> Result<Value, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| JwtError::Malformed)?;
    match serde_json::from_slice(&bytes) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(JwtError::Malformed),
    }
}

/// The public keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

#[derive(Clone, Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, where it says so.
    algorithm: Option<String>,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed: 4, x, y.
    Ec(Curve, Vec<u8>),
}

impl KeySet {
    /// Reads a set. Keys of kinds that are not known here are passed over, as RFC 7517 wants it.
    pub fn read(document: &Value) -> Result<Self, KeySetError> {
        let keys = document["keys"].as_array().ok_or(KeySetError::Form)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        Ok(Self { keys: keys.iter().filter(|key| key["use"] != "enc").filter_map(Key::read).collect() })
    }

    /// How many keys there are that can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys signed the token.
    pub fn verify(&self, token: &Token<'_>) -> Result<(), JwtError> {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        if self.keys.iter().filter(named).any(|key| key.signed(token)) { Ok(()) } else { Err(JwtError::Signature) }
    }
}

impl Key {
    fn read(key: &Value) -> Option<Self> {
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str()?.trim_end_matches('=')).ok();
        let material = match key["kty"].as_str()? {
            "RSA" => {
                // ring refuses numbers with leading zeros.
                let number = |name: &str| bytes(name).map(|b| b.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>());
                let (modulus, exponent) = (number("n")?, number("e")?);
                (modulus.len() <= MAX_MODULUS && exponent.len() <= 8).then_some(Material::Rsa { modulus, exponent })?
            }
            "EC" => {
                let (curve, size) = match key["crv"].as_str()? {
                    "P-256" => (Curve::P256, 32),
                    "P-384" => (Curve::P384, 48),
                    "P-521" => (Curve::P521, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                (x.len() == size && y.len() == size).then(|| Material::Ec(curve, [&[4], &x[..], &y].concat()))?
            }
            _ => return None,
        };
        let text = |name: &str| key[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self { id: text("kid"), algorithm: text("alg"), material })
    }

    fn signed(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), &token.signature[..]);
        if let Some(only) = &self.algorithm
            && !Algorithm::of(only).is_some_and(|only| only.is(token.algorithm))
        {
            return false;
        }
        match (&self.material, token.algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rsa(algorithm)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }.verify(algorithm, message, signature).is_ok()
            }
            (Material::Ec(curve, point), Algorithm::Ec(wanted, algorithm)) if *curve == wanted => {
                let algorithm: &dyn VerificationAlgorithm = algorithm;
                UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
            }
            (Material::Ec(Curve::P521, point), Algorithm::Es512) => signed_with_p521(point, message, signature),
            _ => false,
        }
    }
}

/// SHA-512 and P-521 (RFC 7518, 3.4).
fn signed_with_p521(point: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let (Ok(key), Ok(signature)) = (VerifyingKey::from_sec1_bytes(point), Signature::from_slice(signature)) else { return false };
    key.verify(message, &signature).is_ok()
}

impl Algorithm {
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Rsa(a), Self::Rsa(b)) => std::ptr::eq(a, b),
            (Self::Ec(a, _), Self::Ec(b, _)) => a == b,
            (Self::Es512, Self::Es512) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
