//! The metrics recorder and its scrape endpoint on the loopback interface.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use themis_actors::environment::Environment;
use themis_actors::telemetry;
use themis_messages::limits::METRICS_UPKEEP;
use tokio::sync::watch;

use crate::kernel::StartError;

/// Latency buckets in seconds: 250 ns to 5 s, about half a decade each.
const BUCKETS: [f64; 15] = [
    2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 2.5e-2, 1e-1, 5e-1, 5.0,
];

/// Ours as the process's recorder.
#[derive(Debug)]
pub(crate) struct Metrics {
    listen: SocketAddr,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder; a host that has its own does not configure an address.
    pub(crate) fn install(listen: SocketAddr) -> Result<Self, StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Metrics {
            listen: listen.to_string(),
            error: error.to_string(),
        };
        let builder =
            PrometheusBuilder::new().set_buckets(&BUCKETS).map_err(|error| failed(&error))?;
        let handle = builder.install_recorder().map_err(|error| failed(&error))?;
        Ok(Self { listen, handle })
    }

    /// Everything as text.
    pub(crate) fn render(&self, environment: &Environment) -> String {
        render(&self.handle, environment)
    }

    /// Answers `GET /metrics` until `stopped` ends, and folds samples meanwhile.
    pub(crate) async fn serve(
        &self,
        environment: Arc<Environment>,
        mut stopped: watch::Receiver<()>,
    ) -> Result<(), StartError> {
        let failed = |error: std::io::Error| StartError::Metrics {
            listen: self.listen.to_string(),
            error: error.to_string(),
        };
        let listener = tokio::net::TcpListener::bind(self.listen).await.map_err(failed)?;
        tracing::info!(listen = %listener.local_addr().map_err(failed)?, "metrics");
        tokio::spawn(upkeep(self.handle.clone(), stopped.clone()));
        let handle = self.handle.clone();
        let scrape = move || {
            let (environment, handle) = (Arc::clone(&environment), handle.clone());
            async move {
                let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
                (kind, render(&handle, &environment))
            }
        };
        let router = Router::new().route("/metrics", get(scrape));
        let ended = async move { drop(stopped.changed().await) };
        tokio::spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(ended).await;
            if let Err(error) = served {
                tracing::error!(%error, "metrics are no longer served");
            }
        });
        Ok(())
    }
}

fn render(handle: &PrometheusHandle, environment: &Environment) -> String {
    telemetry::refresh(environment);
    handle.render()
}

/// Without this histograms would keep every sample until somebody scrapes.
async fn upkeep(handle: PrometheusHandle, mut stopped: watch::Receiver<()>) {
    let mut tick = tokio::time::interval(METRICS_UPKEEP);
    loop {
        tokio::select! {
            _ = tick.tick() => handle.run_upkeep(),
            _ = stopped.changed() => return,
        }
    }
}
