//! Sandboxes on their own: for hosts that want a worker process and nothing else of the kernel.

use std::sync::Arc;
use std::time::Duration;

use themis_messages::ids::PluginName;
use themis_messages::instance::{CallStatus, HookError, Instance, ReplyBuffer};
use themis_messages::sandbox::{Isolation, Limits, Require, SandboxError, Usage, Verdict};
use themis_sandbox::admission::AdmittedPlugin;
use themis_sandbox::native::HostServices;
use themis_sandbox::process::{self, Options, Workers};

use crate::config::WorkersConfig;

/// Makes sandboxes: worker processes that have given up everything a plugin could do harm with.
///
/// A [`Kernel`](crate::Kernel) with plugins in the process tier has its own; this is for hosts without one.
///
/// ```no_run
/// use themis_kernel::PluginSandbox;
/// use themis_kernel::config::WorkersConfig;
/// use themis_kernel::sandbox::Limits;
///
/// # fn admitted() -> themis_kernel::admission::AdmittedPlugin { unimplemented!() }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let sandboxes = PluginSandbox::start(&WorkersConfig::default())?;
/// let limits = Limits { memory_bytes: 64 << 20, ..Limits::default() };
/// let sandbox = sandboxes.create_sandbox(&"geo".parse()?, limits)?;
/// println!("confined at level {}", sandbox.isolation().level);
/// let plugin = sandbox.load(&admitted(), "{}")?;
/// let reply = plugin.call(1, b"request")?;
/// # let _ = reply;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct PluginSandbox {
    workers: Workers,
    require: Require,
}

/// A worker process that waits for a plugin. It ends when this is dropped.
#[derive(Debug)]
pub struct Sandbox(process::Sandbox);

/// A plugin that runs in a sandbox. Its process ends when this is dropped.
#[derive(Debug)]
pub struct Sandboxed(Arc<dyn Instance>);

/// Why a call in a sandbox has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxCallError {
    /// The plugin answered with an error of its own.
    #[error("the plugin refused the call: {text}")]
    Plugin {
        /// Its text, with invalid UTF-8 replaced.
        text: String,
    },
    /// The plugin has no such method, cannot read the request, wrote too much or is asked too much, or returned a code
    /// outside the ABI.
    #[error("the call failed: {status:?}")]
    Failed {
        /// How it ended.
        status: CallStatus,
    },
    /// The worker ended, before or during the call.
    #[error("{verdict}")]
    Ended {
        /// How.
        verdict: Arc<Verdict>,
    },
}

/// Why a plugin does not run in its sandbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SandboxLoadError {
    /// It was not mapped.
    #[error("{0}")]
    Sandbox(SandboxError),
    /// Its init hook failed.
    #[error("init: {0}")]
    Init(HookError),
}

impl PluginSandbox {
    /// Starts what sandboxes are made with.
    ///
    /// # Errors
    /// [`SandboxError`]: no worker program, or the system gives no thread.
    pub fn start(config: &WorkersConfig) -> Result<Self, SandboxError> {
        let (program, pool) = (config.program.clone(), config.pool);
        let pooled = Limits { calls: config.calls, ..Limits::default() };
        let workers = Workers::start(Options { program, pool, pooled })?;
        Ok(Self { workers, require: Require::default() })
    }

    /// Sandboxes of a kernel's own workers.
    pub(crate) fn of(workers: Workers) -> Self {
        Self { workers, require: Require::default() }
    }

    /// How well sandboxes have to be confined from now on; [`Require::Degraded`] unless said otherwise.
    #[must_use]
    pub fn requiring(self, require: Require) -> Self {
        Self { require, ..self }
    }

    /// Waits until as many workers are ready as are kept, at most `limit`; whether they are.
    #[must_use]
    pub fn wait_for_pool(&self, limit: Duration) -> bool {
        self.workers.wait_for_pool(limit)
    }

    /// A worker process for one plugin, confined and with these limits, that waits for it.
    ///
    /// # Errors
    /// [`SandboxError`]: a limit out of range, a step of the set-up that failed, or a machine that does not confine it
    /// as well as is required.
    pub fn create_sandbox(&self, id: &PluginName, limits: Limits) -> Result<Sandbox, SandboxError> {
        self.workers.sandbox(id, &limits, self.require).map(Sandbox)
    }
}

impl Sandbox {
    /// How it is confined.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        self.0.isolation()
    }

    /// Maps an admitted plugin and runs its init with this configuration. It has no host services but the clock, as
    /// far as its manifest asks for that, and its data files.
    ///
    /// # Errors
    /// [`SandboxLoadError`]; the worker is gone then.
    pub fn load(
        self,
        plugin: &AdmittedPlugin,
        config_json: &str,
    ) -> Result<Sandboxed, SandboxLoadError> {
        let services = HostServices {
            plugin: plugin.manifest.name.clone(),
            capabilities: plugin.manifest.capabilities.clone(),
            log: Arc::new(|_level, _line| {}),
            counter: Arc::new(|_name, _delta| {}),
            data: Arc::clone(&plugin.data),
        };
        let loaded = self.0.load(plugin, services).map_err(SandboxLoadError::Sandbox)?;
        let instance = loaded.init(config_json.as_bytes()).map_err(SandboxLoadError::Init)?;
        Ok(Sandboxed(instance))
    }
}

impl Sandboxed {
    /// Calls a method; blocks at most for the call deadline of its limits.
    ///
    /// # Errors
    /// [`SandboxCallError`].
    pub fn call(&self, method: u32, request: &[u8]) -> Result<Vec<u8>, SandboxCallError> {
        let mut reply = Vec::new();
        match self.0.call(method, request, &mut ReplyBuffer::new(&mut reply)) {
            CallStatus::Ok => Ok(reply),
            CallStatus::PluginError => {
                let text = String::from_utf8_lossy(&reply).into_owned();
                Err(SandboxCallError::Plugin { text })
            }
            CallStatus::Ended(verdict) => Err(SandboxCallError::Ended { verdict }),
            status @ (CallStatus::UnknownMethod
            | CallStatus::BadRequest
            | CallStatus::RequestTooLarge
            | CallStatus::Busy(_)
            | CallStatus::ReplyTooLarge
            | CallStatus::Fault(_)) => Err(SandboxCallError::Failed { status }),
        }
    }

    /// What it has used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }

    /// Runs its shutdown hook and ends its process.
    ///
    /// # Errors
    /// [`HookError`]; the process is gone all the same.
    pub fn shutdown(self) -> Result<(), HookError> {
        self.0.shutdown()
    }
}
