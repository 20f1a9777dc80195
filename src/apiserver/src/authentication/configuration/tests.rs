//! Files as operators write them, good and bad.

use super::*;

const OWN: &str = "https://kubernetes.default.svc";

fn file(jwt: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n{jwt}")
}

const GOOD: &str = "
- issuer: {url: 'https://i.test', audiences: [a]}
  claimMappings: {username: {claim: sub, prefix: ''}}
";

/// What is wrong with a document: the fields alone.
fn wrong(jwt: &str) -> Vec<String> {
    match parse(&file(jwt), OWN) {
        Err(ConfigurationError::Invalid(all)) => all.iter().map(|one| one.split(": ").next().unwrap_or_default().to_owned()).collect(),
        Err(other) => panic!("{other}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn a_whole_configuration_is_taken() {
    let text = "
- issuer:
    url: https://i.test/realm
    discoveryURL: https://elsewhere.test/.well-known/openid-configuration
    audiences: [a, b]
    audienceMatchPolicy: MatchAny
  claimValidationRules:
  - claim: hd
    requiredValue: corp
  - expression: claims.exp - claims.nbf <= 86400.0
    message: too long a life
  claimMappings:
    username: {expression: \"'corp:' + claims.sub\"}
    groups: {claim: roles, prefix: 'corp:'}
    uid: {claim: sub}
    extra:
    - {key: example.org/team, valueExpression: claims.team}
  userValidationRules:
  - expression: \"!user.username.startsWith('system:')\"
    message: reserved
";
    let checked = parse(&file(text), OWN).expect("it holds");
    assert_eq!(checked.document.jwt[0].issuer.audiences, ["a", "b"]);
    assert_eq!(wrong(GOOD), Vec::<String>::new());
    let anonymous = format!("{}\nanonymous: {{enabled: true, conditions: [{{path: /livez}}]}}", file(GOOD));
    assert_eq!(parse(&anonymous, OWN).expect("it holds").document.anonymous.expect("there").conditions[0].path, "/livez");
    assert!(
        parse("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: AuthenticationConfiguration\n", OWN).is_ok(),
        "no issuer is no mistake"
    );
}

#[test]
fn each_mistake_is_named_by_its_field() {
    let with =
        |issuer: &str, rest: &str| format!("\n- issuer: {issuer}\n  claimMappings: {{username: {{claim: sub, prefix: ''}}}}\n{rest}");
    let mapped = |mappings: &str| format!("\n- issuer: {{url: 'https://i.test', audiences: [a]}}\n  claimMappings: {mappings}\n");
    let at = |field: &str| vec![format!("jwt[0].{field}")];
    for (text, expected) in [
        (with("{url: '', audiences: [a]}", ""), at("issuer.url")),
        (with("{url: 'http://i.test', audiences: [a]}", ""), at("issuer.url")),
        (with("{url: 'https://u:p@i.test', audiences: [a]}", ""), at("issuer.url")),
        (with("{url: 'https://i.test?a=b', audiences: [a]}", ""), at("issuer.url")),
        (with("{url: 'https://i.test#a', audiences: [a]}", ""), at("issuer.url")),
        (with(&format!("{{url: '{OWN}', audiences: [a]}}"), ""), at("issuer.url")),
        (with("{url: 'https://i.test', discoveryURL: 'https://i.test/', audiences: [a]}", ""), at("issuer.discoveryURL")),
        (with("{url: 'https://i.test', audiences: []}", ""), at("issuer.audiences")),
        (with("{url: 'https://i.test', audiences: ['']}", ""), at("issuer.audiences[0]")),
        (with("{url: 'https://i.test', audiences: [a, a], audienceMatchPolicy: MatchAny}", ""), at("issuer.audiences[1]")),
        (with("{url: 'https://i.test', audiences: [a, b]}", ""), at("issuer.audienceMatchPolicy")),
        (with("{url: 'https://i.test', audiences: [a], audienceMatchPolicy: All}", ""), at("issuer.audienceMatchPolicy")),
        (with("{url: 'https://i.test', audiences: [a], certificateAuthority: x}", ""), at("issuer.certificateAuthority")),
        (with("{url: 'https://i.test', audiences: [a], egressSelectorType: cluster}", ""), at("issuer.egressSelectorType")),
        (mapped("{}"), at("claimMappings.username")),
        (mapped("{username: {claim: sub}}"), at("claimMappings.username.prefix")),
        (mapped("{username: {claim: sub, prefix: '', expression: claims.sub}}"), at("claimMappings.username")),
        (mapped("{username: {expression: 'claims.'}}"), at("claimMappings.username.expression")),
        (mapped("{username: {expression: '1 + 1'}}"), at("claimMappings.username.expression")),
        (mapped("{username: {expression: claims.email}}"), at("claimMappings.username.expression")),
        (mapped("{username: {claim: sub, prefix: ''}, uid: {claim: a, expression: claims.b}}"), at("claimMappings.uid")),
        (mapped("{username: {claim: sub, prefix: ''}, groups: {claim: g}}"), at("claimMappings.groups.prefix")),
        (mapped("{username: {claim: sub, prefix: ''}, extra: [{key: team, valueExpression: claims.a}]}"), at("claimMappings.extra[0].key")),
        (
            mapped("{username: {claim: sub, prefix: ''}, extra: [{key: a.k8s.io/x, valueExpression: claims.a}]}"),
            at("claimMappings.extra[0].key"),
        ),
        (
            mapped("{username: {claim: sub, prefix: ''}, extra: [{key: a.test/X, valueExpression: claims.a}]}"),
            at("claimMappings.extra[0].key"),
        ),
        (mapped("{username: {claim: sub, prefix: ''}, extra: [{key: a.test/x}]}"), at("claimMappings.extra[0].valueExpression")),
        (with("{url: 'https://i.test', audiences: [a]}", "  claimValidationRules: [{}]"), at("claimValidationRules[0]")),
        (
            with("{url: 'https://i.test', audiences: [a]}", "  claimValidationRules: [{claim: a}, {claim: a}]"),
            at("claimValidationRules[1].claim"),
        ),
        (
            with("{url: 'https://i.test', audiences: [a]}", "  claimValidationRules: [{expression: '1'}]"),
            at("claimValidationRules[0].expression"),
        ),
        (
            with("{url: 'https://i.test', audiences: [a]}", "  userValidationRules: [{expression: user.name == ''}]"),
            at("userValidationRules[0].expression"),
        ),
        (format!("{GOOD}{GOOD}"), vec!["jwt[1].issuer.url".to_owned()]),
    ] {
        assert_eq!(wrong(&text), expected, "{text}");
    }
}

#[test]
fn what_is_no_configuration_is_said() {
    let why = |text: &str| parse(text, OWN).expect_err("refused").to_string();
    assert!(why("a: [").starts_with("it is no AuthenticationConfiguration"));
    assert!(why(&format!("{}  unknown: 1\n", file(GOOD))).starts_with("it is no AuthenticationConfiguration"));
    assert!(why("apiVersion: v1\nkind: Pod\n").contains("\"Pod\""));
    let many: String = (0..=MAX_ISSUERS).map(|n| GOOD.replace("i.test", &format!("i{n}.test"))).collect();
    assert!(why(&file(&many)).starts_with("jwt: Too many"));
    assert!(
        why(&format!("{}anonymous: {{enabled: false, conditions: [{{path: /livez}}]}}", file(GOOD))).starts_with("anonymous.conditions")
    );
    assert!(matches!(read(Path::new("/nowhere/at/all"), OWN), Err(ConfigurationError::Read(_))));
}
