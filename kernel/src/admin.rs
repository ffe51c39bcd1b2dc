//! The admin API: HTTP/1.1 and JSON on a unix socket that only the kernel's own user can use.
//!
//! | request | does |
//! |---|---|
//! | `GET /v1/plugins` | every plugin |
//! | `GET /v1/plugins/{name}` | one |
//! | `POST /v1/plugins` `{"path", "tier"}` | load |
//! | `POST /v1/plugins/{name}/reload` `{"path", "tier"}` | replace |
//! | `POST /v1/plugins/{name}/rollback` | go back |
//! | `GET /v1/plugins/{name}/settled` | wait until its version has passed its probation or was swapped back |
//! | `POST /v1/plugins/{name}/release` `{"digest"}` | release what is quarantined of it |
//! | `DELETE /v1/plugins/{name}` | unload |
//! | `POST /v1/sets/reload` `{"paths"}` | replace several together, or none |
//! | `POST /v1/sets/rollback` `{"plugins"}` | go back together, or not at all |
//! | `GET /v1/graph` | what serving plugins need of each other, also for Graphviz and as a tree |
//! | `GET /v1/budget` | what is kept of replaced versions, in all |
//! | `GET /v1/quarantine` | images that are not loaded |
//! | `POST /v1/plugins/{name}/call/{method}` | call: body in, body out |
//! | `GET /v1/discover` | what lies below the plugin root |
//! | `GET /v1/audit?from=&limit=` | records |
//! | `GET /v1/audit/verify` | replay the log |
//! | `POST /v1/registry/resolve` `{"plugin", "version"}` | where a plugin is |
//! | `POST /v1/registry/install` `{"wanted", "update", …}` | install: a line of JSON for each step |
//! | `GET /v1/registry/stats` | what the last request of the registry took |
//!
//! Errors are `{"error": {"code", "message"}}` with a 4xx or 5xx status.

use std::path::Path;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use themis_messages::limits::ADMIN_BODY_BYTES_MAX;
use tokio::sync::watch;

use crate::refs::Control;

mod error;
mod experiments;
mod handlers;
mod listener;
mod registry;

use listener::{AdminListener, Peer};

/// Serves until `stopped` ends.
///
/// # Errors
/// When the socket cannot be made, or a living kernel has it.
pub(crate) fn serve(
    path: &Path,
    control: Control,
    mut stopped: watch::Receiver<()>,
) -> Result<(), std::io::Error> {
    let listener = AdminListener::bind(path)?;
    let service = router(control).into_make_service_with_connect_info::<Peer>();
    let ended = async move { drop(stopped.changed().await) };
    tracing::info!(socket = %path.display(), "admin API");
    tokio::spawn(async move {
        let served = axum::serve(listener, service).with_graceful_shutdown(ended).await;
        if let Err(error) = served {
            tracing::error!(%error, "the admin API is no longer served");
        }
    });
    Ok(())
}

fn router(control: Control) -> Router {
    Router::new()
        .route("/v1/plugins", get(handlers::list).post(handlers::load))
        .route("/v1/plugins/{name}", get(handlers::info).delete(handlers::unload))
        .route("/v1/plugins/{name}/reload", post(handlers::reload))
        .route("/v1/plugins/{name}/rollback", post(handlers::rollback))
        .route("/v1/plugins/{name}/call/{method}", post(handlers::call))
        .route("/v1/plugins/{name}/settled", get(handlers::settled))
        .route("/v1/plugins/{name}/release", post(handlers::release))
        .route("/v1/sets/reload", post(handlers::reload_set))
        .route("/v1/sets/rollback", post(handlers::rollback_set))
        .route("/v1/graph", get(handlers::graph))
        .route("/v1/budget", get(handlers::budget))
        .route("/v1/quarantine", get(handlers::quarantine))
        .route("/v1/discover", get(handlers::discover))
        .route("/v1/audit", get(handlers::audit))
        .route("/v1/audit/verify", get(handlers::audit_verify))
        .route("/v1/ab", get(experiments::list).post(experiments::create))
        .route("/v1/ab/{id}", get(experiments::show))
        .route("/v1/ab/{id}/stop", post(experiments::stop))
        .route("/v1/ab/{id}/promote", post(experiments::promote))
        .route("/v1/registry/resolve", post(registry::resolve))
        .route("/v1/registry/install", post(registry::install))
        .route("/v1/registry/stats", get(registry::stats))
        .fallback(handlers::not_found)
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .with_state(control)
}
