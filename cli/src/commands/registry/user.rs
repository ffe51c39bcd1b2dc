//! The user's commands: through the running kernel, or through one that loads nothing.

use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};
use themis_kernel::market::{
    InstallReport, InstallRequest, Progress, RegistryError, Resolved, Wanted,
};
use themis_kernel::registry::mirror::Mirrored;
use themis_kernel::{Config, Kernel};
use tokio::sync::mpsc;

use super::Place;
use super::progress::Steps;
use crate::client::Client;
use crate::output::{Failure, Printer, table};

/// Steps that wait to be shown.
const STEPS_MAX: usize = 64;

/// A kernel for one command: it has the store and the marketplace, and loads nothing.
fn start(config: &Path) -> Result<Kernel, Failure> {
    let mut config = Config::from_file(config)?;
    (config.admin_socket, config.metrics_listen) = (None, None);
    config.plugins.values_mut().for_each(|plugin| plugin.autoload = false);
    config.workers.pool = 0;
    Ok(Kernel::start_blocking(config)?)
}

pub(super) fn resolve(
    wanted: &Wanted,
    place: &Place,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    let found: Resolved = match &place.config {
        Some(config) => {
            let kernel = start(config)?;
            let market = kernel.marketplace();
            let found = market.resolve_blocking(&wanted.plugin, wanted.version.clone());
            kernel.shutdown_blocking();
            found?
        }
        None => {
            let client = Client::find(socket)?;
            let found = client.json(Method::POST, "/v1/registry/resolve", Some(&json!(wanted)))?;
            read(found)?
        }
    };
    printer.show(&found, shown)
}

fn shown(found: &Resolved) -> String {
    let release = &found.release;
    let mut lines = vec![
        format!("{} {} at {}", release.plugin, release.version, found.url),
        format!("sha256 {}, {} bytes", release.sha256, release.bytes),
        format!("manifest {}, signed by key {}", release.manifest_sha256, release.key_id),
        format!("signature {}", release.signature),
    ];
    let needed = found.plan.iter().filter(|step| step.plugin != release.plugin);
    for step in needed {
        let by: Vec<_> = step.needed_by.iter().map(ToString::to_string).collect();
        lines.push(format!("with {} {}, needed by {}", step.plugin, step.version, by.join(", ")));
    }
    lines.join("\n")
}

pub(super) fn install(
    request: &InstallRequest,
    place: &Place,
    socket: Option<&Path>,
    printer: Printer,
) -> Result<(), Failure> {
    let steps = Steps::new(printer.json);
    let report = match &place.config {
        Some(config) => {
            if request.offline {
                // Not only meant but enforced, by the system.
                themis_kernel::forbid_sockets()?;
            }
            let kernel = start(config)?;
            let installed = install_alone(&kernel, request, &steps);
            kernel.shutdown_blocking();
            installed?
        }
        None => install_there(&Client::find(socket)?, request, &steps)?,
    };
    drop(steps);
    printer.show(&report, told)
}

fn install_alone(
    kernel: &Kernel,
    request: &InstallRequest,
    steps: &Steps,
) -> Result<InstallReport, Failure> {
    let market = kernel.marketplace();
    showing(steps, |told| async move { market.install(request.clone(), Some(told)).await })
}

/// Does something, and shows how far it is.
fn showing<T, F>(
    steps: &Steps,
    work: impl FnOnce(mpsc::Sender<Progress>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, RegistryError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("registry.runtime", error))?;
    runtime.block_on(async {
        let (told, mut heard) = mpsc::channel(STEPS_MAX);
        let showing = async {
            while let Some(step) = heard.recv().await {
                steps.show(&step);
            }
        };
        let (done, ()) = tokio::join!(work(told), showing);
        Ok(done?)
    })
}

pub(super) fn mirror(dir: &Path, config: &Path, printer: Printer) -> Result<(), Failure> {
    let config = Config::from_file(config)?;
    let steps = Steps::new(printer.json);
    let mirrored: Mirrored =
        showing(&steps, |told| async { themis_kernel::mirror(&config, dir, Some(told)).await })?;
    drop(steps);
    for refused in &mirrored.refused {
        eprintln!("themis: passed over: {}", crate::output::clean(refused));
    }
    printer.show(&mirrored, |it| {
        format!(
            "publication {} with {} versions, {} of them new ({} bytes): serve {} over HTTPS, and bring it up to \
             date before {}",
            it.version,
            it.releases,
            it.fetched,
            it.bytes,
            it.public.display(),
            it.expires.strftime("%Y-%m-%d")
        )
    })
}

fn install_there(
    client: &Client,
    request: &InstallRequest,
    steps: &Steps,
) -> Result<InstallReport, Failure> {
    let mut outcome = None;
    client.lines("/v1/registry/install", &json!(request), |line| {
        if let Ok(step) = serde_json::from_value::<Progress>(line["progress"].clone()) {
            steps.show(&step);
        } else {
            outcome = Some(line);
        }
    })?;
    let mut outcome = outcome.unwrap_or_default();
    let told = |key: &str| outcome["error"][key].as_str().map(str::to_owned);
    if let (Some(code), Some(message)) = (told("code"), told("message")) {
        return Err(Failure { code, message });
    }
    read(outcome["result"].take())
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value)
        .map_err(|error| Failure::new("socket.answer", format!("not what was asked for: {error}")))
}

fn told(report: &InstallReport) -> String {
    let rows = report.installed.iter().map(|it| {
        let before = it.replaced.as_ref().map_or_else(|| "new".to_owned(), ToString::to_string);
        let serves = if it.serves { "serves" } else { "installed" };
        [it.plugin.to_string(), it.version.to_string(), before, serves.to_owned(), it.path.clone()]
    });
    let kept = report.unchanged.iter().map(|it| {
        let (plugin, version) = (it.plugin.to_string(), it.version.to_string());
        [plugin, version.clone(), version, "unchanged".to_owned(), String::new()]
    });
    table(["plugin", "version", "before", "now", "path"], rows.chain(kept))
}
