//! Reading logs on real files.

use std::io::Write as _;

use tokio::sync::oneshot;

use super::*;

fn raw(second: u32, tag: &str, text: &str) -> String {
    format!("2026-01-01T00:00:{second:02}.5Z stdout {tag} {text}\n")
}

async fn collect(path: PathBuf, request: LogRequest) -> String {
    let (out, mut chunks) = mpsc::channel(QUEUE_CHUNKS);
    let sender = tokio::spawn(async move { send(path, request, out, std::future::pending()).await });
    let mut text = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        text.extend_from_slice(&chunk);
    }
    sender.await.expect("joined").expect("sent");
    String::from_utf8(text).expect("utf8")
}

#[tokio::test]
async fn tail_since_limit_and_rotated_files() {
    let dir = tempfile::tempdir().expect("a directory");
    let current = dir.path().join("0.log");
    std::fs::write(dir.path().join("0.log.20260101-000000"), raw(1, "F", "one") + &raw(2, "F", "two")).expect("written");
    std::fs::write(&current, raw(3, "F", "three") + &raw(4, "P", "fo") + &raw(4, "F", "ur") + "half").expect("written");
    let cases = [
        (LogRequest::default(), "one\ntwo\nthree\nfour\n"),
        (LogRequest { tail_lines: Some(1), ..Default::default() }, ""),
        (LogRequest { tail_lines: Some(2), ..Default::default() }, "ur\n"),
        (LogRequest { tail_lines: Some(5), ..Default::default() }, "two\nthree\nfour\n"),
        (LogRequest { tail_lines: Some(0), ..Default::default() }, ""),
        (LogRequest { tail_lines: Some(99), ..Default::default() }, "one\ntwo\nthree\nfour\n"),
        (LogRequest { since: "2026-01-01T00:00:03Z".parse().ok(), ..Default::default() }, "three\nfour\n"),
        (LogRequest { limit_bytes: Some(6), ..Default::default() }, "one\ntw"),
        (LogRequest { stderr: Some(true), ..Default::default() }, ""),
        (
            LogRequest { timestamps: true, since: "2026-01-01T00:00:03Z".parse().ok(), ..Default::default() },
            "2026-01-01T00:00:03.5Z three\n2026-01-01T00:00:04.5Z four\n",
        ),
    ];
    for (request, want) in cases {
        assert_eq!(collect(current.clone(), request.clone()).await, want, "{request:?}");
    }
}

#[tokio::test]
async fn follows_through_a_rotation_to_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let current = dir.path().join("0.log");
    std::fs::write(&current, raw(1, "F", "one")).expect("written");
    let (out, mut chunks) = mpsc::channel(QUEUE_CHUNKS);
    let (over, told) = oneshot::channel::<()>();
    let path = current.clone();
    let request = LogRequest { follow: true, ..Default::default() };
    let sender = tokio::spawn(async move {
        send(path, request, out, async {
            let _ = told.await;
        })
        .await
    });
    assert_eq!(chunks.recv().await.as_deref(), Some(&b"one\n"[..]));
    let mut file = std::fs::OpenOptions::new().append(true).open(&current).expect("opened");
    file.write_all(raw(2, "F", "two").as_bytes()).expect("written");
    assert_eq!(chunks.recv().await.as_deref(), Some(&b"two\n"[..]));
    std::fs::rename(&current, dir.path().join("0.log.20260101-000003")).expect("renamed");
    std::fs::write(&current, raw(3, "F", "three")).expect("written");
    assert_eq!(chunks.recv().await.as_deref(), Some(&b"three\n"[..]));
    over.send(()).expect("told");
    assert_eq!(chunks.recv().await, None, "it ends with the container");
    sender.await.expect("joined").expect("sent");
}
