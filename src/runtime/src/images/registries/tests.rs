//! `registries.yaml` as k3s users write it.

use super::*;

fn parsed(text: &str) -> Result<Registries, String> {
    Registries::parse(text, &|path| match path.to_str() {
        Some("/ca.pem") => Ok(rcgen::generate_simple_self_signed(["r".to_owned()]).unwrap().cert.pem().into_bytes()),
        Some("/text") => Ok(b"text".to_vec()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    })
}

fn places(registries: &Registries, image: &str) -> Vec<String> {
    let image = Reference::parse(image).unwrap();
    registries.endpoints(&image).iter().map(|e| format!("{}/{}", e.base, e.repository)).collect()
}

#[test]
fn an_image_is_asked_for_at_its_mirrors_and_then_at_home() {
    let text = r#"
mirrors:
  docker.io:
    endpoint:
      - "https://one.example:5000"
      - two.example/v2/proxy/
      - http://127.0.0.1:5001/
    rewrite:
      "^library/(.*)": "mirrored/$1"
  plain.example:
    endpoint: ["https://plain.example"]
  none.example:
  "*":
    endpoint: [any.example]
"#;
    let mut registries = parsed(text).unwrap();
    assert_eq!(
        places(&registries, "busybox"),
        [
            "https://one.example:5000/v2/mirrored/busybox",
            "https://two.example/v2/proxy/mirrored/busybox",
            "http://127.0.0.1:5001/v2/mirrored/busybox",
            "https://registry-1.docker.io/v2/library/busybox",
        ]
    );
    assert_eq!(places(&registries, "team/app")[0], "https://one.example:5000/v2/team/app");
    assert_eq!(places(&registries, "plain.example/a"), ["https://plain.example/v2/a"], "it is not asked twice");
    assert_eq!(places(&registries, "none.example/a"), ["https://none.example/v2/a"]);
    assert_eq!(places(&registries, "other.example/a"), ["https://any.example/v2/a", "https://other.example/v2/a"]);
    registries.mirrors_only = true;
    assert_eq!(places(&registries, "other.example/a"), ["https://any.example/v2/a"]);
    assert_eq!(places(&registries, "none.example/a"), ["https://none.example/v2/a"], "it has no mirror to be asked instead");
    assert_eq!(places(&Registries::default(), "localhost:5000/a"), ["http://localhost:5000/v2/a"]);
}

#[test]
fn a_host_is_opened_by_what_its_configuration_says() {
    let text = r#"
configs:
  "one.example:5000":
    auth: {username: me, password: secret}
  two.example:
    auth: {auth: dTpwOnE=}
  docker.io:
    auth: {identity_token: token}
  localhost:
    tls: {insecure_skip_verify: true}
  "*":
    tls: {ca_file: /ca.pem}
auths:
  https://old.example/: {username: old, password: p}
mirrors:
"#;
    let registries = parsed(text).unwrap();
    let key = |image: &str| {
        let endpoint = registries.endpoints(&Reference::parse(image).unwrap()).remove(0);
        (endpoint.host.credentials.map(|c| (c.username, c.password)), endpoint.host.authorities.len())
    };
    let pair = |name: &str, password: &str| Some((name.to_owned(), password.to_owned()));
    assert_eq!(key("one.example:5000/a"), (pair("me", "secret"), 0));
    assert_eq!(key("two.example/a"), (pair("u", "p:q"), 0));
    assert_eq!(key("busybox"), (pair("", "token"), 0), "an identity token is nobody's password");
    assert_eq!(key("old.example/a").0, pair("old", "p"));
    assert_eq!(key("three.example/a"), (None, 1));
    let local = registries.endpoints(&Reference::parse("localhost/a").unwrap()).remove(0);
    assert_eq!(local.base.scheme(), "https", "who is to be checked by TLS, or not, speaks TLS");
}

#[test]
fn an_error_says_which_field() {
    for (text, wants) in [
        ("mirror:\n  a: {}", &["mirror", "unknown"][..]),
        ("mirrors:\n  a:\n    endpoints: [x]", &["endpoints", "unknown"]),
        ("mirrors:\n  a:\n    endpoint: x: y", &["line 3"]),
        ("mirrors: {a: {endpoint: ['ftp://x']}}", &["mirrors.\"a\".endpoint[0]", "ftp://x"]),
        ("mirrors: {a: {endpoint: ['https://']}}", &["mirrors.\"a\".endpoint[0]"]),
        ("mirrors: {a: {endpoint: ['https://x?y=z']}}", &["mirrors.\"a\".endpoint[0]"]),
        ("mirrors: {a: {rewrite: {'(': x}}}", &["mirrors.\"a\".rewrite", "\"(\""]),
        ("configs: {a: {auth: {auth: '!'}}}", &["configs.\"a\".auth.auth"]),
        ("configs: {a: {tls: {ca_file: /none}}}", &["configs.\"a\".tls.ca_file", "/none"]),
        ("configs: {a: {tls: {ca_file: /text}}}", &["configs.\"a\".tls.ca_file", "/text"]),
        ("configs: {a: {tls: {cert_file: /ca.pem}}}", &["configs.\"a\".tls.key_file"]),
        ("configs: {a: {tls: {cert_file: /ca.pem, key_file: /text}}}", &["configs.\"a\".tls", "/text"]),
        ("[]", &[]),
    ] {
        let error = parsed(text).expect_err(text);
        assert!(wants.iter().all(|want| error.contains(want)), "{text}: {error}");
        assert!(!error.contains('\n'), "{text}: {error}");
    }
    for nothing in ["", "# none\n", "---\n", "mirrors:\nconfigs:\n"] {
        assert_eq!(places(&parsed(nothing).unwrap(), "busybox").len(), 1, "{nothing:?}");
    }
}
