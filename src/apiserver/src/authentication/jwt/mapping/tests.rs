//! Claims in, users out.

use super::*;

fn authenticator(yaml: &str) -> JwtAuthenticator {
    serde_saphyr::from_str(yaml).expect("YAML")
}

fn user(yaml: &str, claims: &Value) -> Result<User, MappingError> {
    let mut wrong = Vec::new();
    let mapping = compile(&authenticator(yaml), "jwt[0]", &mut wrong);
    assert_eq!(wrong, Vec::<String>::new(), "{yaml}");
    mapping.user(claims.as_object().expect("an object"))
}

#[test]
fn claims_become_a_user() {
    let yaml = "{claimMappings: {username: {claim: sub, prefix: 'corp:'}, groups: {claim: roles, prefix: 'g:'}, uid: {claim: id}}}";
    let found = user(yaml, &json!({"sub": "alice", "roles": ["dev", "ops"], "id": "7", "jti": "t"})).expect("a user");
    assert_eq!((found.name.as_str(), found.uid.as_str()), ("corp:alice", "7"));
    assert_eq!(found.groups, ["g:dev", "g:ops"]);
    assert_eq!(found.extra["authentication.kubernetes.io/credential-id"], ["JTI=t"]);
    assert_eq!(user(yaml, &json!({"sub": "alice", "roles": "dev", "id": "7"})).expect("a user").groups, ["g:dev"]);
    assert!(user(yaml, &json!({"sub": "alice", "id": "7"})).expect("a user").groups.is_empty());
}

#[test]
fn expressions_become_a_user() {
    let yaml = r#"{claimMappings: {
        username: {expression: "claims.user.name + '@' + claims.user['realm']"},
        groups: {expression: "claims.roles.split(',')"},
        uid: {expression: "claims.?id.orValue('none')"},
        extra: [{key: a.test/admin, valueExpression: "has(claims.admin) && claims.admin ? 'true' : ''"},
                {key: a.test/teams, valueExpression: "claims.teams.filter(t, t != 'x')"}]}}"#;
    let claims = json!({"user": {"name": "alice", "realm": "r"}, "roles": "a,,b", "admin": true, "teams": ["t", "x"]});
    let found = user(yaml, &claims).expect("a user");
    assert_eq!((found.name.as_str(), found.uid.as_str(), &found.groups[..]), ("alice@r", "none", &["a".to_owned(), "b".to_owned()][..]));
    assert_eq!(found.extra["a.test/admin"], ["true"]);
    assert_eq!(found.extra["a.test/teams"], ["t"]);
    let plain = json!({"user": {"name": "alice", "realm": "r"}, "roles": "", "teams": []});
    assert!(user(yaml, &plain).expect("a user").extra.is_empty(), "what is empty is left out");
}

#[test]
fn rules_keep_users_out() {
    let name = "claimMappings: {username: {claim: sub, prefix: ''}}";
    let claims = json!({"sub": "alice", "hd": "corp", "nbf": 100, "exp": 200, "n": 7});
    let rule = |expression: &str, message: &str| MappingError::Rule { expression: expression.into(), message: message.into() };
    for (rules, expected) in [
        ("claimValidationRules: [{claim: hd, requiredValue: corp}]", None),
        ("claimValidationRules: [{claim: hd, requiredValue: other}]", Some(MappingError::Required("hd".into()))),
        ("claimValidationRules: [{claim: none, requiredValue: x}]", Some(MappingError::Missing("none".into()))),
        ("claimValidationRules: [{claim: n, requiredValue: x}]", Some(MappingError::Kind("n".into(), "a string"))),
        ("claimValidationRules: [{expression: 'claims.exp - claims.nbf <= 100'}]", None),
        ("claimValidationRules: [{expression: 'claims.exp < 100.0', message: short}]", Some(rule("claims.exp < 100.0", "short"))),
        ("userValidationRules: [{expression: \"user.username == 'alice' && user.groups.size() == 0\"}]", None),
        (
            "userValidationRules: [{expression: \"user.username.startsWith('b')\", message: b}]",
            Some(rule("user.username.startsWith('b')", "b")),
        ),
    ] {
        assert_eq!(user(&format!("{{{name}, {rules}}}"), &claims).err(), expected, "{rules}");
    }
    let failed = user(&format!("{{{name}, claimValidationRules: [{{expression: 'claims.none == 1'}}]}}"), &claims);
    assert!(matches!(failed, Err(MappingError::Expression(..))), "{failed:?}");
}

#[test]
fn a_name_is_text_and_verified() {
    let email = "{claimMappings: {username: {claim: email, prefix: ''}}}";
    let name = |claims: Value| user(email, &claims).map(|user| user.name);
    assert_eq!(name(json!({"email": "a@b.test"})).as_deref(), Ok("a@b.test"));
    assert_eq!(name(json!({"email": "a@b.test", "email_verified": true})).as_deref(), Ok("a@b.test"));
    assert_eq!(name(json!({"email": "a@b.test", "email_verified": false})), Err(MappingError::EmailNotVerified));
    assert_eq!(name(json!({"email": "a@b.test", "email_verified": "true"})), Err(MappingError::Kind("email_verified".into(), "a boolean")));
    assert_eq!(name(json!({})), Err(MappingError::Missing("email".into())));
    assert_eq!(name(json!({"email": 7})), Err(MappingError::Kind("email".into(), "a string")));
    let expression = "{claimMappings: {username: {expression: claims.sub}}}";
    assert_eq!(user(expression, &json!({"sub": ""})).err(), Some(MappingError::Nameless));
    assert_eq!(user(expression, &json!({"sub": 7})).err(), Some(MappingError::Result("username", "a string")));
}

#[test]
fn an_expression_reads_a_claim_by_its_name() {
    for (source, expected) in [
        ("claims.email", true),
        ("claims . email + 'x'", true),
        ("claims.?email.orValue('')", true),
        ("has(claims.email)", true),
        ("claims.email_verified", false),
        ("'claims.email'", false),
        ("myclaims.email", false),
        ("x.claims.email", false),
        ("'it\\'s' + claims.email", true),
    ] {
        assert_eq!(reads(source, "email"), expected, "{source}");
    }
}
