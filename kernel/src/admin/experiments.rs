//! Experiments over the admin API: begin, list, show, stop, promote.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, State};
use serde::Deserialize;
use themis_actors::ab::report::Report;
use themis_actors::ab::spec::Spec;

use crate::admin::error::ApiError;
use crate::admin::handlers::{on_behalf, read};
use crate::admin::listener::Peer;
use crate::experiments::ExperimentManager;
use crate::refs::Control;

/// Which arm becomes the current version.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Promotion {
    arm: String,
}

pub(super) async fn list(State(control): State<Control>) -> Json<Vec<Report>> {
    Json(ExperimentManager(control).export_metrics_snapshot())
}

pub(super) async fn create(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Report>, ApiError> {
    let spec: Spec = read(&body)?;
    let id = spec.id.to_string();
    let experiments = ExperimentManager(on_behalf(control, peer));
    experiments.create(spec).await?;
    Ok(Json(experiments.report(&id)?))
}

pub(super) async fn show(
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<Report>, ApiError> {
    Ok(Json(ExperimentManager(control).report(&id)?))
}

pub(super) async fn stop(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
) -> Result<Json<Report>, ApiError> {
    let experiments = ExperimentManager(on_behalf(control, peer));
    experiments.stop(&id).await?;
    Ok(Json(experiments.report(&id)?))
}

pub(super) async fn promote(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Json<Report>, ApiError> {
    let Promotion { arm } = read(&body)?;
    let experiments = ExperimentManager(on_behalf(control, peer));
    experiments.promote(&id, &arm).await?;
    Ok(Json(experiments.report(&id)?))
}
