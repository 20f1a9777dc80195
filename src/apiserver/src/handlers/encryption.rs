//! `/coracle/v1/secrets-encrypt`: under which keys Secrets lie in the store, and a new key. For administrators: RBAC knows the path.

use std::sync::Arc;

use axum::{Router, extract::State, response::Response, routing::get};
use coracle_api::status::Status;
use coracle_store::encryption::{Census, Encrypted};
use http::StatusCode;
use serde_json::json;

use crate::{answer, server::Shared};

/// The routes.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/coracle/v1/secrets-encrypt", get(status).post(rotate))
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    let Some(encryption) = shared.store.encryption() else { return none() };
    told(encryption.census().await)
}

async fn rotate(State(shared): State<Arc<Shared>>) -> Response {
    let Some(encryption) = shared.store.encryption().cloned() else { return none() };
    // It goes on when nobody waits for it any more: half a rotation leaves two keys.
    match tokio::spawn(async move { Encrypted::rotate(&encryption).await }).await {
        Ok(done) => told(done),
        Err(error) => answer::status(&Status::internal(format!("the rotation ended early: {error}"))),
    }
}

fn told<E: std::error::Error>(done: Result<Census, E>) -> Response {
    match done {
        Ok(census) => answer::json(StatusCode::OK, &json!(census)),
        Err(error) => {
            let mut why = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                why = format!("{why}: {inner}");
                cause = inner.source();
            }
            answer::status(&Status::internal(why))
        }
    }
}

fn none() -> Response {
    answer::status(&Status::new(404, "NotFound", "this server's store encrypts nothing"))
}
