//! `/logs/`: the files of the machine's log directory, as a plain file server shows them.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use axum::{body::Body, extract::Request, response::Response};
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use tokio_util::io::ReaderStream;

use super::answer;

/// Where programs of the machine log.
const ROOT: &str = "/var/log";
/// Names of a listing: a directory with more is not looked through in a browser.
const NAMES: usize = 10_000;

/// What was found.
enum Found {
    File(fs::File),
    /// Names, those of directories with `/` at their end.
    Directory(Vec<String>),
}

/// Answers a path below `/logs`.
pub async fn answer(request: Request) -> Response {
    let path = request.uri().path().strip_prefix("/logs").unwrap_or_default().to_owned();
    let found = tokio::task::spawn_blocking(move || {
        let path = percent_decode_str(&path).decode_utf8().map_err(|_| io::ErrorKind::NotFound)?;
        find(Path::new(ROOT), path.trim_matches('/'))
    });
    match found.await.map_err(io::Error::other).flatten() {
        Ok(Found::File(file)) => answer::streamed(Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file)))),
        Ok(Found::Directory(names)) => listing(&names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => answer::text(StatusCode::NOT_FOUND, "404 page not found\n"),
        Err(_) => answer::text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
    }
}

/// Every link on the way is followed inside of the root.
fn find(root: &Path, path: &str) -> io::Result<Found> {
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let path = if path.is_empty() { "." } else { path };
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty(), inside)?;
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
        FileType::RegularFile => Ok(Found::File(found.into())),
        FileType::Directory => Ok(Found::Directory(names(found)?)),
        _ => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

fn names(directory: OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(directory)?.take(NAMES) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if !matches!(&*name, "." | "..") {
            names.push(if entry.file_type() == FileType::Directory { format!("{name}/") } else { name.into_owned() });
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn listing(names: &[String]) -> Response {
    let escaped = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
    let line = |name: &String| {
        let (plain, end) = name.strip_suffix('/').map_or((name.as_str(), ""), |plain| (plain, "/"));
        format!("<a href=\"{}{end}\">{}</a>\n", utf8_percent_encode(plain, NON_ALPHANUMERIC), escaped(name))
    };
    let mut page = answer::text(StatusCode::OK, format!("<!doctype html>\n<pre>\n{}</pre>\n", names.iter().map(line).collect::<String>()));
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("log");
        fs::create_dir_all(root.join("pods/a b")).expect("made");
        fs::write(root.join("syslog"), "x").expect("written");
        std::os::unix::fs::symlink("/etc/passwd", root.join("out")).expect("linked");
        std::os::unix::fs::symlink("syslog", root.join("alias")).expect("linked");
        let kind = |path: &str| match find(&root, path) {
            Ok(Found::File(_)) => "file".to_owned(),
            Ok(Found::Directory(names)) => names.join(" "),
            Err(error) => format!("{:?}", error.kind()),
        };
        for (path, expected) in [
            ("", "alias out pods/ syslog"),
            ("pods", "a b/"),
            ("syslog", "file"),
            ("alias", "file"),
            ("out", "NotFound"),
            ("../../etc/passwd", "NotFound"),
            ("none", "NotFound"),
        ] {
            assert_eq!(kind(path), expected, "{path}");
        }
    }
}
