//! Maps an admitted plugin where it is to run: in this process, or in a worker.

use std::sync::Arc;

use parking_lot::Mutex;
use themis_messages::ids::{Digest, Tier};
use themis_messages::instance::{HookError, Instance};
use themis_messages::lifecycle::{LoadError, MapError};
use themis_messages::limits::MAP_DEADLINE;
use themis_messages::sandbox::SandboxError;
use themis_sandbox::admission::AdmittedPlugin;
use themis_sandbox::native::{self, HostServices};

use super::host;
use crate::environment::Environment;
use crate::generation::{Again, patience};
use crate::work::{self, WorkError};

/// What was mapped.
pub(super) struct Mapped {
    pub(super) again: Again,
    /// Of an image that stays mapped: its digest, and its memory in bytes.
    pub(super) for_good: Option<(Digest, u64)>,
}

/// Maps it; its constructors run.
pub(super) async fn map(
    admitted: Arc<AdmittedPlugin>,
    environment: &Environment,
) -> Result<Mapped, LoadError> {
    match admitted.tier {
        Tier::InProcess => in_this_process(admitted, environment).await,
        Tier::Process => in_worker(admitted, environment).await,
        Tier::Wasm => in_engine(admitted, environment).await,
    }
}

async fn in_this_process(
    admitted: Arc<AdmittedPlugin>,
    environment: &Environment,
) -> Result<Mapped, LoadError> {
    let plugin = admitted.manifest.name.clone();
    let services = host::services(&admitted);
    let config = host::config(&admitted.manifest, &environment.settings);
    let name = format!("map-{plugin}");
    let mapped = work::run(&name, MAP_DEADLINE, move || native::map(&admitted)).await;
    let mapped = match mapped {
        Ok(mapped) => mapped,
        Err(WorkError::Deadline { limit }) => Err(MapError::Deadline { limit }),
        Err(error @ (WorkError::Spawn { .. } | WorkError::Panicked { .. })) => {
            Err(MapError::Thread { what: error.to_string() })
        }
    };
    let image = mapped.map_err(|error| LoadError::Map { plugin, error })?;
    let for_good = Some((image.evidence().digest, image.evidence().resident_bytes));
    let again = Again::new(move || image.init(services.clone(), config.as_bytes()));
    Ok(Mapped { again, for_good })
}

/// Takes a worker and maps the plugin there. A restart takes another, and maps the same sealed bytes again.
async fn in_worker(
    admitted: Arc<AdmittedPlugin>,
    environment: &Environment,
) -> Result<Mapped, LoadError> {
    let plugin = admitted.manifest.name.clone();
    let failed = |error| LoadError::Sandbox { plugin: plugin.clone(), error };
    let settings = &environment.settings;
    let limits = settings.workers.limits_of(&admitted.manifest, settings.hook_deadline);
    let limits = limits.map_err(failed)?;
    let require = settings.workers.require_of(&plugin);
    let workers = settings.workers.workers.clone().map_err(failed)?;
    let config = host::config(&admitted.manifest, settings);
    let services = host::services(&admitted);
    let load = move |services: HostServices| {
        let sandbox = workers.sandbox(&admitted.manifest.name, &limits, require)?;
        sandbox.load(&admitted, services)
    };
    let load = Arc::new(load);
    let (first, own) = (Arc::clone(&load), services.clone());
    let name = format!("map-{plugin}");
    let limit = patience(Tier::Process, MAP_DEADLINE);
    let loaded = work::run(&name, limit, move || first(own)).await;
    let loaded = match loaded {
        Ok(loaded) => loaded.map_err(failed)?,
        Err(WorkError::Deadline { limit }) => {
            let error = MapError::Deadline { limit };
            return Err(failed(SandboxError::Map(error)));
        }
        Err(error @ (WorkError::Spawn { .. } | WorkError::Panicked { .. })) => {
            let error = MapError::Thread { what: error.to_string() };
            return Err(failed(SandboxError::Map(error)));
        }
    };
    host::tell_isolation(&plugin, loaded.isolation());
    let loaded = Mutex::new(Some(loaded));
    let again = move || -> Result<Arc<dyn Instance>, HookError> {
        let first = loaded.lock().take();
        let loaded = match first {
            Some(loaded) => loaded,
            None => load(services.clone()).map_err(hook_error)?,
        };
        loaded.init(config.as_bytes())
    };
    Ok(Mapped { again: Again::new(again), for_good: None })
}

/// Compiles a module. A restart makes new instances of what was compiled.
async fn in_engine(
    admitted: Arc<AdmittedPlugin>,
    environment: &Environment,
) -> Result<Mapped, LoadError> {
    let plugin = admitted.manifest.name.clone();
    let settings = &environment.settings;
    let limits = settings.wasm.limits_of(&admitted.manifest, settings.hook_deadline);
    let limits = limits.map_err(|error| LoadError::Sandbox { plugin: plugin.clone(), error })?;
    let services = host::services(&admitted);
    let config = host::config(&admitted.manifest, settings);
    let engine = settings.wasm.engine();
    let name = format!("compile-{plugin}");
    let mapped = work::run(&name, MAP_DEADLINE, move || engine()?.map(&admitted, services, limits));
    let mapped = match mapped.await {
        Ok(mapped) => mapped,
        Err(WorkError::Deadline { limit }) => Err(MapError::Deadline { limit }),
        Err(error @ (WorkError::Spawn { .. } | WorkError::Panicked { .. })) => {
            Err(MapError::Thread { what: error.to_string() })
        }
    };
    let image = mapped.map_err(|error| LoadError::Map { plugin, error })?;
    Ok(Mapped { again: Again::new(move || image.init(config.as_bytes())), for_good: None })
}

/// A restart has no worker: told as its init.
fn hook_error(error: SandboxError) -> HookError {
    match error {
        SandboxError::Ended(verdict) => HookError::Ended { verdict: Arc::new(verdict) },
        error @ (SandboxError::NoProgram
        | SandboxError::Limit { .. }
        | SandboxError::Isolation { .. }
        | SandboxError::Map(_)
        | SandboxError::State { .. }) => HookError::Thread { what: error.to_string() },
    }
}
