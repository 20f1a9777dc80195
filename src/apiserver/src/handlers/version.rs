//! `/version`: which Kubernetes this is.

use std::sync::Arc;

use axum::{Router, response::Response};
use http::StatusCode;
use serde_json::json;

use super::route::read_only;
use crate::{answer, server::Shared};

/// The release whose contract is kept, and our own mark: `kubectl` compares the first two numbers.
pub const GIT_VERSION: &str = "v1.36.3+coracle1";

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    read_only("/version", answer)
}

async fn answer() -> Response {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    answer::json(
        StatusCode::OK,
        &json!({
            "major": "1",
            "minor": "36",
            "emulationMajor": "1",
            "emulationMinor": "36",
            "minCompatibilityMajor": "1",
            "minCompatibilityMinor": "35",
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "",
            "goVersion": "",
            "compiler": "rustc",
            "platform": format!("linux/{architecture}"),
        }),
    )
}
