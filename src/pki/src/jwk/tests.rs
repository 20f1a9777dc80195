//! Tokens of other issuers, good and forged.

use proptest::prelude::*;
use ring::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::json;

use super::*;
use crate::tokens::Signer;

/// Made for these tests by `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`.
const RSA_KEY: &str = include_str!("rsa-2048.pem");

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn rsa() -> RsaKeyPair {
    let der = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY.as_bytes()).expect("PEM");
    RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key")
}

fn rsa_set(more: &Value) -> KeySet {
    let key: RsaPublicKeyComponents<Vec<u8>> = rsa().public().into();
    let mut key = json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode(key.n), "e": URL_SAFE_NO_PAD.encode(key.e)});
    for (name, value) in more.as_object().expect("an object") {
        key[name] = value.clone();
    }
    KeySet::read(&json!({"keys": [key]})).expect("keys")
}

fn rsa_token(algorithm: &str, kid: Option<&str>) -> String {
    let mut header = json!({"alg": algorithm});
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    let signed = format!("{}.{}", encode(&header), encode(&json!({"iss": "https://i", "sub": "alice"})));
    let key = rsa();
    let mut signature = vec![0; key.public().modulus_len()];
    let padding: &dyn ring::signature::RsaEncoding = match algorithm {
        "RS512" => &RSA_PKCS1_SHA512,
        "PS256" => &RSA_PSS_SHA256,
        _ => &RSA_PKCS1_SHA256,
    };
    key.sign(padding, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("signed");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn verdict(keys: &KeySet, token: &str) -> Result<(), JwtError> {
    keys.verify(&Token::read(token)?)
}

#[test]
fn rsa_tokens_hold_by_the_key_that_they_name_or_by_any() {
    let keys = rsa_set(&json!({}));
    for (algorithm, kid, expected) in [
        ("RS256", Some("r"), Ok(())),
        ("RS512", Some("r"), Ok(())),
        ("PS256", Some("r"), Ok(())),
        ("RS256", None, Ok(())),
        ("RS256", Some("another"), Err(JwtError::Signature)),
    ] {
        assert_eq!(verdict(&keys, &rsa_token(algorithm, kid)), expected, "{algorithm} {kid:?}");
    }
    assert_eq!(verdict(&rsa_set(&json!({"alg": "RS256"})), &rsa_token("RS256", Some("r"))), Ok(()));
    assert_eq!(verdict(&rsa_set(&json!({"alg": "RS256"})), &rsa_token("RS512", Some("r"))), Err(JwtError::Signature));
    assert!(rsa_set(&json!({"use": "enc"})).is_empty());
}

#[test]
fn elliptic_tokens_hold_on_their_curve() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = crate::authority::Authority::open(dir.path()).expect("authorities");
    let signer: &Signer = authority.signer();
    let token = signer.sign(&json!({"iss": "https://i"})).expect("signed");
    let keys = KeySet::read(&signer.verifier().key_set()).expect("keys");
    assert_eq!((keys.len(), verdict(&keys, &token)), (1, Ok(())));
    assert_eq!(verdict(&rsa_set(&json!({"kid": ""})), &token), Err(JwtError::Signature));

    let random = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random).expect("a key");
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der.as_ref(), &random).expect("a key");
    let (x, y) = key.public_key().as_ref()[1..].split_at(48);
    let set = json!({"keys": [{"kty": "EC", "crv": "P-384", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)}]});
    let signed = format!("{}.{}", encode(&json!({"alg": "ES384"})), encode(&json!({})));
    let signature = key.sign(&random, signed.as_bytes()).expect("signed");
    let keys = KeySet::read(&set).expect("keys");
    assert_eq!(verdict(&keys, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))), Ok(()));
}

/// Made for these tests by OpenSSL; its s is in the upper half, which some libraries refuse and JSON Web Signatures allow.
const ES512_TOKEN: &str = "eyJhbGciOiJFUzUxMiIsImtpZCI6ImUifQ.eyJpc3MiOiJodHRwczovL2kiLCJzdWIiOiJhbGljZSJ9.AVA5mU8Q-yKwBTg0jkT0\
                           uV4zV_RP_KWs___sh75612n-xX9CIswnMAWv1QRHx7htoIVgm74NuVGakfwip4LpavVnAUI6MBiLIOjCLvh_mnBaP7duKuq0J0N9yqTwHfOI6B-iVGgm3ogQ5T4drAAz5lQTfkR8h1CPpU_-xvlMo2j0nCls";
const ES512_X: &str = "AW8offG97PsZdOfKx3oyRJUBt9_0zJAH_qq6n_UrMV4v1IoGEQGkn8kDKObzyK5R2Qk2Z7DB7JiMxIvqHCggW64u";
const ES512_Y: &str = "ANGnYOXaYyqTR-Jjl9tEDZ9qdQqZL8cZmITbBeT1EwN-pL84mtcsnIbmMjvvPF2WBnw0dIiauvkmdX4_7XmE7rol";

#[test]
fn tokens_of_the_longest_curve_hold_and_break() {
    let set =
        |crv: &str, x: &str| KeySet::read(&json!({"keys": [{"kty": "EC", "crv": crv, "kid": "e", "x": x, "y": ES512_Y}]})).expect("keys");
    let keys = set("P-521", ES512_X);
    assert_eq!((keys.len(), verdict(&keys, ES512_TOKEN)), (1, Ok(())));
    let (signed, signature) = ES512_TOKEN.rsplit_once('.').expect("three parts");
    let claims = encode(&json!({"iss": "https://i", "sub": "mallory"}));
    let head = signed.split_once('.').expect("two parts").0;
    let forged = [
        format!("{head}.{claims}.{signature}"),
        format!("{signed}.{}", &signature[..signature.len() - 4]),
        format!("{signed}."),
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 132])),
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0xff; 132])),
    ];
    for token in forged {
        assert_eq!(verdict(&keys, &token), Err(JwtError::Signature), "{token}");
    }
    assert_eq!(verdict(&rsa_set(&json!({"kid": "e"})), ES512_TOKEN), Err(JwtError::Signature), "a key of another kind");
    // Not on the curve: the point is looked at when it is used.
    assert_eq!(verdict(&set("P-521", ES512_Y), ES512_TOKEN), Err(JwtError::Signature));
    assert!(set("P-384", ES512_X).is_empty(), "a point too long for its curve");
    let only = json!({"keys": [{"kty": "EC", "crv": "P-521", "alg": "ES256", "x": ES512_X, "y": ES512_Y}]});
    assert_eq!(verdict(&KeySet::read(&only).expect("keys"), ES512_TOKEN), Err(JwtError::Signature), "a key that is for something else");
}

#[test]
fn forged_tokens_are_refused() {
    let keys = rsa_set(&json!({}));
    let good = rsa_token("RS256", Some("r"));
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let claims = encode(&json!({"sub": "admin"}));
    let head = |header: Value| format!("{}.{claims}.{signature}", encode(&header));
    for (token, why) in [
        (head(json!({"alg": "none"})), JwtError::Algorithm),
        (format!("{}.{claims}.", encode(&json!({"alg": "none"}))), JwtError::Algorithm),
        (head(json!({"alg": "HS256", "kid": "r"})), JwtError::Algorithm),
        (head(json!({"alg": "EdDSA"})), JwtError::Algorithm),
        (head(json!({"kid": "r"})), JwtError::Algorithm),
        (head(json!({"alg": "RS256", "crit": ["b64"], "b64": false})), JwtError::Critical),
        (head(json!({"alg": "RS256", "kid": "r"})), JwtError::Signature),
        (head(json!({"alg": "ES256", "kid": "r"})), JwtError::Signature),
        (signed.to_owned(), JwtError::Malformed),
        (format!("{good}.x"), JwtError::Malformed),
        ("{}".to_owned(), JwtError::Malformed),
        ("a".repeat(TOKEN_BOUND + 1), JwtError::Malformed),
    ] {
        assert_eq!(verdict(&keys, &token), Err(why), "{token}");
    }
}

#[test]
fn who_is_said_to_have_issued_a_token() {
    assert_eq!(issuer(&rsa_token("RS256", None)).as_deref(), Some("https://i"));
    assert_eq!(issuer("abc.def"), None);
    assert_eq!(issuer("opaque"), None);
}

#[test]
fn sets_are_bounded_and_unknown_keys_passed_over() {
    assert_eq!(KeySet::read(&json!({})).map(|_| ()), Err(KeySetError::Form));
    let many = vec![json!({"kty": "oct"}); MAX_KEYS + 1];
    assert_eq!(KeySet::read(&json!({"keys": many})).map(|_| ()), Err(KeySetError::TooMany));
    let odd =
        json!({"keys": [{"kty": "oct", "k": "AA"}, {"kty": "EC", "crv": "P-521"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, 7]});
    assert!(KeySet::read(&odd).expect("a set").is_empty());
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "[A-Za-z0-9_.{}-]{0,80}", key in "[A-Za-z0-9_-]{0,60}") {
        let _ = Token::read(&text);
        let _ = issuer(&text);
        let keys = KeySet::read(&json!({"keys": [{"kty": "RSA", "n": key, "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": key, "y": key}]})).expect("a set");
        prop_assert_eq!(verdict(&keys, &rsa_token("RS256", None)), Err(JwtError::Signature));
    }
}
