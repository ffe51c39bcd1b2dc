//! `run`: the kernel as a daemon, until SIGINT or SIGTERM.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use serde_json::json;
use themis_kernel::{Config, Health, Kernel};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::output::{Failure, Printer};

/// Run the kernel as a daemon.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Its configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What to log to stderr: a level, or levels by module
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

pub(crate) fn run(arguments: &Arguments, printer: Printer) -> Result<(), Failure> {
    start_log(&arguments.log, printer)?;
    let config = Config::from_file(&arguments.config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .on_thread_start(themis_kernel::prepare_thread)
        .enable_all()
        .build()
        .map_err(|error| Failure::new("run.runtime", error))?;
    let ended = runtime.block_on(serve(config, printer));
    // A thread that hangs inside a plugin must not keep the program alive.
    runtime.shutdown_background();
    ended
}

/// Logs to stderr, as JSON for programs.
pub(crate) fn start_log(filter: &str, printer: Printer) -> Result<(), Failure> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| Failure::new("run.log_filter", error))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = if printer.json { log.json().try_init() } else { log.try_init() };
    started.map_err(|error| Failure::new("run.log", error))
}

async fn serve(config: Config, printer: Printer) -> Result<(), Failure> {
    let told = |error: std::io::Error| Failure::new("run.signal", error);
    let mut interrupted = signal(SignalKind::interrupt()).map_err(told)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(told)?;
    let (socket, listen) = (config.admin_socket.clone(), config.metrics_listen);
    let kernel = Kernel::start(config).await?;
    let running =
        json!({"socket": socket, "metrics": listen.map(|it| format!("http://{it}/metrics"))});
    printer.show(&running, |_| {
        let socket = socket.as_ref().map_or("none".to_owned(), |it| it.display().to_string());
        let metrics = listen.map_or("none".to_owned(), |it| format!("http://{it}/metrics"));
        format!("themis is running; admin socket: {socket}; metrics: {metrics}")
    })?;
    let mut health = kernel.health();
    let failed = tokio::select! {
        _ = interrupted.recv() => false,
        _ = terminated.recv() => false,
        _ = health.wait_for(|health| *health == Health::Failed) => true,
    };
    kernel.shutdown().await;
    if failed {
        return Err(Failure::new(
            "kernel.failed",
            "the kernel's actors failed too often: see the log",
        ));
    }
    Ok(())
}
