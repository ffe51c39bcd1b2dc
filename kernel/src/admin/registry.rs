//! The marketplace over the admin API. An installation answers as it goes: one JSON object a line.
//!
//! ```text
//! {"progress": {"step": "fetching", "plugin": "geo", "version": "1.2.0", "bytes": 131072, "of": 1048576}}
//! {"result": {…}}          or          {"error": {"code", "message"}}
//! ```

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use futures_util::stream;
use serde_json::{Value, json};
use themis_messages::registry::{
    InstallReport, InstallRequest, Progress, RegistryError, RequestStats, Resolved, Wanted,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::admin::error::ApiError;
use crate::admin::handlers::{on_behalf, read};
use crate::admin::listener::Peer;
use crate::marketplace::MarketplaceClient;
use crate::refs::Control;

/// Steps that wait for a slow reader; what comes then is left out.
const STEPS_MAX: usize = 64;

pub(super) async fn resolve(
    State(control): State<Control>,
    body: Bytes,
) -> Result<Json<Resolved>, ApiError> {
    let wanted: Wanted = read(&body)?;
    let client = MarketplaceClient(control);
    Ok(Json(client.resolve_telling(wanted, None).await?))
}

pub(super) async fn stats(
    State(control): State<Control>,
) -> Result<Json<Option<RequestStats>>, ApiError> {
    Ok(Json(MarketplaceClient(control).last_request_stats().await?))
}

pub(super) async fn install(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<impl IntoResponse, ApiError> {
    let request: InstallRequest = read(&body)?;
    let client = MarketplaceClient(on_behalf(control, peer));
    let (told, steps) = mpsc::channel(STEPS_MAX);
    let installing = tokio::spawn(async move { client.install(request, Some(told)).await });
    let lines = stream::unfold(Telling::Steps(steps, installing), next);
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)))
}

/// An installation that is being told of.
enum Telling {
    Steps(mpsc::Receiver<Progress>, JoinHandle<Result<InstallReport, RegistryError>>),
    Over,
}

/// The next line. The installation goes on when nobody listens any more: it ends as a whole.
async fn next(telling: Telling) -> Option<(Result<Bytes, std::convert::Infallible>, Telling)> {
    let Telling::Steps(mut steps, installing) = telling else { return None };
    let (value, telling) = match steps.recv().await {
        Some(step) => (json!({ "progress": step }), Telling::Steps(steps, installing)),
        None => (outcome(installing.await), Telling::Over),
    };
    Some((Ok(Bytes::from(format!("{value}\n"))), telling))
}

fn outcome(ended: Result<Result<InstallReport, RegistryError>, tokio::task::JoinError>) -> Value {
    let error = |code: &str, message: String| json!({"error": {"code": code, "message": message}});
    match ended {
        Ok(Ok(report)) => json!({ "result": report }),
        Ok(Err(refused)) => error(refused.code(), refused.to_string()),
        Err(failed) => error("kernel.stopped", format!("the installation was ended: {failed}")),
    }
}
