//! Providers that are shell scripts.

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use super::*;

const PROTOCOL: &str = "credentialprovider.kubelet.k8s.io/v1";

/// A provider that counts how often it is asked, keeps the last question, and says `answer`.
fn provider(dir: &Path, answer: &str, token: Option<&str>) -> Asked {
    let program = dir.join("provider");
    let text = format!("#!/bin/sh\ncat > {0}/question\necho >> {0}/times\n{answer}\n", dir.display());
    // By a child: what this process writes, a child of another test that is born meanwhile holds open, and it cannot be run.
    let mut writer =
        Command::new("sh").args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&program).stdin(Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    let token = token.map(|cache_type| config::Token {
        service_account_token_audience: "registry".into(),
        cache_type: cache_type.into(),
        require_service_account: Some(true),
        required_service_account_annotation_keys: Vec::new(),
        optional_service_account_annotation_keys: Vec::new(),
    });
    let provider = Provider {
        name: "provider".into(),
        program,
        protocol: PROTOCOL.into(),
        match_images: vec!["r.example".into()],
        cache: Duration::from_secs(3600),
        args: Vec::new(),
        env: vec![("PASSWORD".into(), "secret".into())],
        token,
    };
    Asked { provider, kept: Mutex::default(), open: Mutex::default() }
}

fn says(more: &str) -> String {
    format!(
        "echo '{{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"{PROTOCOL}\",\
         \"auth\":{{\"r.example\":{{\"username\":\"u\",\"password\":\"'$PASSWORD'\"}}}}{more}}}'"
    )
}

fn times(dir: &Path) -> usize {
    fs::read_to_string(dir.join("times")).map_or(0, |text| text.lines().count())
}

fn account(token: &str) -> Speaker {
    let owner = Owner { namespace: "a".into(), name: "x".into(), uid: "u".into() };
    Speaker { account: Some(owner), token: token.into(), annotations: BTreeMap::from([("k".into(), "v".into())]) }
}

#[tokio::test]
async fn an_answer_counts_for_what_it_says_and_as_long() {
    for (more, asked_again) in [
        (r#","cacheKeyType":"Image""#, [false, true, true]),
        (r#","cacheKeyType":"Registry""#, [false, false, true]),
        (r#","cacheKeyType":"Global""#, [false, false, false]),
        (r#","cacheKeyType":"Global","cacheDuration":"0s""#, [true, true, true]),
        (r#","cacheKeyType":"Global","cacheDuration":"1h""#, [false, false, false]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let asked = provider(dir.path(), &says(more), None);
        let nobody = Speaker::default();
        let answer = asked.answer("r.example/a", &nobody).await.unwrap();
        assert_eq!((&*answer[0].0, &*answer[0].1.username, &*answer[0].1.password), ("r.example", "u", "secret"));
        let mut before = times(dir.path());
        for (image, again) in ["r.example/a", "r.example/b", "q.example/a"].into_iter().zip(asked_again) {
            asked.answer(image, &nobody).await.unwrap();
            assert_eq!(times(dir.path()) - before, usize::from(again), "{more} {image}");
            before = times(dir.path());
        }
    }
}

#[tokio::test]
async fn the_same_question_is_asked_once_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let asked = provider(dir.path(), &says(r#","cacheKeyType":"Image","cacheDuration":"0s""#), None);
    let nobody = Speaker::default();
    let answers = join_all((0..8).map(|_| asked.answer("r.example/a", &nobody))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(times(dir.path()), 1);
    assert!(asked.open.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_account_is_spoken_for_with_its_token() {
    for (cache_type, other_token_asks) in [("ServiceAccount", 0), ("Token", 1)] {
        let dir = tempfile::tempdir().unwrap();
        let asked = provider(dir.path(), &says(r#","cacheKeyType":"Registry""#), Some(cache_type));
        asked.answer("r.example/a", &account("one")).await.unwrap();
        let question: serde_json::Value = serde_json::from_slice(&fs::read(dir.path().join("question")).unwrap()).unwrap();
        assert_eq!(
            question,
            json!({"kind": "CredentialProviderRequest", "apiVersion": PROTOCOL, "image": "r.example/a",
                "serviceAccountToken": "one", "serviceAccountAnnotations": {"k": "v"}})
        );
        asked.answer("r.example/a", &account("two")).await.unwrap();
        assert_eq!(times(dir.path()), 1 + other_token_asks, "{cache_type}");
        let mut other = account("one");
        other.annotations.clear();
        asked.answer("r.example/a", &other).await.unwrap();
        assert_eq!(times(dir.path()), 2 + other_token_asks, "{cache_type}: another account has its own answers");
    }
    let dir = tempfile::tempdir().unwrap();
    let echo = provider(dir.path(), &says(r#","cacheKeyType":"Registry""#), Some("ServiceAccount"));
    assert!(matches!(echo.answer("r.example/a", &account("secret")).await, Err(ProviderError::Echo)));
}

#[tokio::test]
async fn what_is_no_answer_is_told_without_what_it_says() {
    for (answer, want) in [
        ("echo secret-text".to_owned(), "no CredentialProviderResponse"),
        ("echo '{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"v0\"}'".to_owned(), "no CredentialProviderResponse"),
        (says(""), "cacheKeyType"),
        (says(r#","cacheKeyType":"Image","cacheDuration":"long""#), "cacheDuration"),
        ("echo it is locked >&2; exit 7".to_owned(), "it is locked"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let asked = provider(dir.path(), &answer, None);
        let error = chain(&asked.answer("r.example/a", &Speaker::default()).await.expect_err(&answer));
        assert!(error.contains(want) && !error.contains("secret"), "{answer}: {error}");
        assert!(asked.kept.lock().unwrap().is_empty() && asked.open.lock().unwrap().is_empty());
    }
}
