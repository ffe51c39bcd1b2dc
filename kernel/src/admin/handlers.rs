//! One function per request of the admin API: parse, ask the kernel, answer.

use std::path::PathBuf;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::{Value, json};
use themis_messages::ids::{Digest, Tier};
use themis_messages::lifecycle::{
    BudgetTotals, LoadRequest, PluginInfo, Quarantine, ReloadReceipt,
};

use crate::admin::error::ApiError;
use crate::admin::listener::Peer;
use crate::refs::{Control, HotReloadManager, PluginRef};

/// What to load, as a client says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadBody {
    path: PathBuf,
    tier: Option<Tier>,
}

impl LoadBody {
    fn parse(bytes: &Bytes) -> Result<LoadRequest, ApiError> {
        let body: Self = read(bytes)?;
        Ok(LoadRequest { tier: body.tier, ..LoadRequest::at(body.path) })
    }
}

/// What to load together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetBody {
    paths: Vec<PathBuf>,
}

/// What goes back together.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NamesBody {
    plugins: Vec<String>,
}

/// What to release: everything, when no digest is given.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReleaseBody {
    digest: Option<Digest>,
}

/// The body is read by hand, so that a fault in it has the API's own form.
pub(super) fn read<T: serde::de::DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "request.body", error))
}

/// Which records to read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AuditQuery {
    #[serde(default)]
    from: u64,
    #[serde(default = "default_limit")]
    limit: usize,
}

/// Most records one answer holds.
const AUDIT_PAGE_MAX: usize = 1_000;

fn default_limit() -> usize {
    AUDIT_PAGE_MAX
}

/// The kernel as this peer: its uid goes into the audit log.
pub(super) fn on_behalf(control: Control, peer: Peer) -> Control {
    Control { actor: format!("admin uid {}", peer.uid).into(), ..control }
}

/// Names come out of the URL: anything that is no name belongs to no plugin.
fn find(control: &Control, name: &str) -> Result<PluginRef, ApiError> {
    match control.environment.directory.find(name) {
        Some(slot) => Ok(PluginRef::new(slot)),
        None => {
            let shown: String = name.chars().take(80).collect();
            let message = format!("plugin {shown:?} is not known: see `themis plugin list`");
            Err(ApiError::new(StatusCode::NOT_FOUND, "plugin.not_found", message))
        }
    }
}

pub(crate) async fn list(State(control): State<Control>) -> Json<Vec<PluginInfo>> {
    Json(control.list())
}

pub(crate) async fn info(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<PluginInfo>, ApiError> {
    Ok(Json(find(&control, &name)?.info()))
}

pub(crate) async fn load(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<ReloadReceipt>, ApiError> {
    let request = LoadBody::parse(&body)?;
    Ok(Json(on_behalf(control, peer).replace(None, request).await?))
}

pub(crate) async fn reload(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<ReloadReceipt>, ApiError> {
    let request = LoadBody::parse(&body)?;
    let reloads = HotReloadManager(on_behalf(control, peer));
    Ok(Json(reloads.reload_request(&name, request).await?))
}

pub(crate) async fn rollback(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
) -> Result<Json<ReloadReceipt>, ApiError> {
    Ok(Json(on_behalf(control, peer).rollback(&name).await?))
}

pub(crate) async fn settled(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<Option<ReloadReceipt>>, ApiError> {
    Ok(Json(control.settled(&name).await?))
}

pub(crate) async fn reload_set(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Vec<ReloadReceipt>>, ApiError> {
    let loads = read::<SetBody>(&body)?.paths.into_iter().map(LoadRequest::at).collect();
    Ok(Json(on_behalf(control, peer).replace_set(loads).await?))
}

pub(crate) async fn rollback_set(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    body: Bytes,
) -> Result<Json<Vec<ReloadReceipt>>, ApiError> {
    let names = read::<NamesBody>(&body)?.plugins;
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    Ok(Json(on_behalf(control, peer).rollback_set(&names).await?))
}

pub(crate) async fn graph(State(control): State<Control>) -> Json<Value> {
    let graph = control.graph();
    Json(json!({"graph": graph, "dot": graph.to_dot(), "tree": graph.to_tree()}))
}

pub(crate) async fn budget(State(control): State<Control>) -> Json<BudgetTotals> {
    Json(control.budget())
}

pub(crate) async fn quarantine(State(control): State<Control>) -> Json<Vec<Quarantine>> {
    Json(control.quarantined())
}

pub(crate) async fn release(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<Vec<Quarantine>>, ApiError> {
    let digest = if body.is_empty() { None } else { read::<ReleaseBody>(&body)?.digest };
    Ok(Json(on_behalf(control, peer).release(&name, digest).await?))
}

pub(crate) async fn unload(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    on_behalf(control, peer).unload(&name).await?;
    Ok(Json(json!({"unloaded": name})))
}

/// A method is named or numbered.
pub(crate) async fn call(
    State(control): State<Control>,
    Path((name, method)): Path<(String, String)>,
    body: Bytes,
) -> Result<impl IntoResponse, ApiError> {
    let plugin = find(&control, &name)?;
    let request = body.to_vec();
    let answer = match method.parse::<u32>() {
        Ok(id) => plugin.call_async(id, request).await?,
        Err(_a_name) => plugin.call_async(method.as_str(), request).await?,
    };
    let headers = [
        (HeaderName::from_static("x-themis-version"), answer.served_by.version.to_string()),
        (HeaderName::from_static("x-themis-generation"), answer.served_by.generation.to_string()),
    ];
    Ok((headers, answer.bytes))
}

pub(crate) async fn discover(
    State(control): State<Control>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<Value>, ApiError> {
    let found = on_behalf(control, peer).discover().await?;
    let rows = found.into_iter().map(|found| match found.result {
        Ok(plugin) => json!({
            "path": found.path, "name": plugin.manifest.name, "version": plugin.manifest.version,
            "key_id": plugin.key_id, "ok": true,
        }),
        Err(error) => json!({
            "path": found.path, "ok": false,
            "error": {"code": error.code(), "message": error.to_string()},
        }),
    });
    Ok(Json(rows.collect()))
}

pub(crate) async fn audit(
    State(control): State<Control>,
    Query(query): Query<AuditQuery>,
) -> Result<Json<Value>, ApiError> {
    let limit = query.limit.min(AUDIT_PAGE_MAX);
    let records = control.audit_records(query.from, limit).await?;
    Ok(Json(json!(records)))
}

pub(crate) async fn audit_verify(State(control): State<Control>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!(control.audit_verify().await?)))
}

pub(crate) async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "request.not_found", "there is no such resource")
}
