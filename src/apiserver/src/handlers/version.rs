//! `/version`: which Kubernetes this is.

use http::{Response, StatusCode};
use serde_json::json;

use crate::{answer, body::Body};

/// The release whose contract is kept, and our own mark: `kubectl` compares the first two numbers.
pub const GIT_VERSION: &str = "v1.36.3+coracle1";

/// The answer.
pub fn answer() -> Response<Body> {
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
