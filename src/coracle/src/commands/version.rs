//! `coracle version`.

use serde_json::json;

use crate::cli::Output;

/// Prints it.
pub fn version(output: Output) {
    let (ours, kubernetes) = (env!("CARGO_PKG_VERSION"), coracle_apiserver::GIT_VERSION);
    match output {
        Output::Text => println!("coracle {ours} (Kubernetes {kubernetes})"),
        Output::Json => {
            println!("{:#}", json!({"version": ours, "kubernetes": kubernetes, "os": std::env::consts::OS, "arch": std::env::consts::ARCH}))
        }
    }
}
