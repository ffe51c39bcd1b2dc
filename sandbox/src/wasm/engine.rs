//! The engine: one for all plugins of a host, with room for their instances set aside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use themis_messages::ids::Digest;
use themis_messages::instance::ImageEvidence;
use themis_messages::lifecycle::MapError;
use themis_messages::limits::{
    WASM_INSTANCES_TOTAL, WASM_MEMORY_BYTES_MAX, WASM_STACK_BYTES, WASM_TABLE_ELEMENTS_MAX,
    WASM_TABLES_MAX,
};
use themis_messages::wasm::WasmFault;
use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel,
    PoolingAllocationConfig,
};

use super::cache::Cache;
use super::host::{State, link};
use super::image::{WasmImage, WasmLimits};
use super::meter;
use crate::admission::AdmittedPlugin;
use crate::native::HostServices;

/// What the engine needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The most linear memory that any instance may have, in bytes: address space is set aside for it.
    pub memory_bytes_max: u64,
    /// Where compiled modules are kept; nowhere without.
    pub cache: Option<PathBuf>,
}

/// The engine of one host. Cheap to clone.
#[derive(Clone)]
pub struct Wasm(Arc<Inner>);

struct Inner {
    engine: Engine,
    linker: Linker<State>,
    cache: Option<Cache>,
    /// Modules that are in use, by digest: loading one again compiles nothing.
    compiled: Mutex<BTreeMap<Digest, Arc<Mutex<Weak<Compiled>>>>>,
}

pub(super) struct Compiled {
    pub(super) module: InstancePre<State>,
    /// Bytes of machine code.
    code_bytes: u64,
}

impl std::fmt::Debug for Wasm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wasm").finish_non_exhaustive()
    }
}

fn refused(error: &wasmtime::Error) -> MapError {
    MapError::Compile { what: format!("{error:#}") }
}

impl Wasm {
    /// Sets the engine up.
    ///
    /// # Errors
    /// The system does not give as much address space as is set aside.
    pub fn start(options: &Options) -> Result<Self, MapError> {
        let engine = Engine::new(&config(options)).map_err(|error| refused(&error))?;
        let mut linker = Linker::new(&engine);
        link(&mut linker).map_err(|error| refused(&error))?;
        let cache = options.cache.as_deref().and_then(|dir| match Cache::open(dir, &engine) {
            Ok(cache) => Some(cache),
            Err(error) => {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "compiled code cannot be kept: each start compiles anew");
                None
            }
        });
        Ok(Self(Arc::new(Inner { engine, linker, cache, compiled: Mutex::default() })))
    }

    /// Meters and compiles an admitted module, unless that was done.
    ///
    /// # Errors
    /// [`MapError::Compile`] when the engine refuses what was admitted.
    pub fn map(
        &self,
        plugin: &AdmittedPlugin,
        services: HostServices,
        limits: WasmLimits,
    ) -> Result<Arc<WasmImage>, MapError> {
        let not_examined =
            || MapError::Compile { what: "it was admitted as native code".to_owned() };
        let examined = plugin.wasm.clone().ok_or_else(not_examined)?;
        let bytes = plugin.image.bytes();
        let place = Arc::clone(self.0.compiled.lock().entry(plugin.image.digest()).or_default());
        // Whoever comes second waits for the first.
        let mut known = place.lock();
        let (compiled, reused) = match known.upgrade() {
            Some(compiled) => (compiled, true),
            None => (Arc::new(self.compile(plugin.image.digest(), bytes)?), false),
        };
        *known = Arc::downgrade(&compiled);
        drop(known);
        Ok(Arc::new(WasmImage {
            evidence: ImageEvidence {
                digest: plugin.image.digest(),
                build_id: None,
                inode: plugin.image.inode(),
                reused,
                bytes: plugin.image.len(),
                resident_bytes: compiled.code_bytes,
            },
            compiled,
            examined,
            services: Arc::new(services),
            limits,
        }))
    }

    fn compile(&self, digest: Digest, bytes: &[u8]) -> Result<Compiled, MapError> {
        let Inner { engine, cache, linker, .. } = &*self.0;
        let kept = cache.as_ref().and_then(|cache| cache.load(engine, digest));
        let module = match kept {
            Some(module) => module,
            None => {
                let module = self.compile_anew(bytes)?;
                if let Some(cache) = cache {
                    cache.store(digest, &module);
                }
                module
            }
        };
        let range = module.image_range();
        let code_bytes = (range.end as u64).saturating_sub(range.start as u64);
        let module = linker.instantiate_pre(&module).map_err(|error| refused(&error))?;
        Ok(Compiled { module, code_bytes })
    }

    fn compile_anew(&self, bytes: &[u8]) -> Result<Module, MapError> {
        let metered = meter::instrument(bytes, &meter::Options::default());
        let metered = metered.map_err(|error| {
            let fault = WasmFault::Unmetered { why: error.to_string() };
            MapError::Compile { what: fault.to_string() }
        })?;
        Module::from_binary(&self.0.engine, &metered.module).map_err(|error| refused(&error))
    }
}

/// What is compiled, and how: the validator has accepted no more than is switched on here.
fn config(options: &Options) -> Config {
    let memory = usize::try_from(options.memory_bytes_max).unwrap_or(usize::MAX);
    let tables = u32::try_from(WASM_TABLES_MAX).unwrap_or(u32::MAX);
    let elements = usize::try_from(WASM_TABLE_ELEMENTS_MAX).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(WASM_INSTANCES_TOTAL)
        .total_memories(WASM_INSTANCES_TOTAL)
        .total_tables(WASM_INSTANCES_TOTAL * tables)
        .max_memories_per_module(1)
        .max_tables_per_module(tables)
        .table_elements(elements)
        .max_memory_size(memory);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_reference_types(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(false)
        .wasm_tail_call(true)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        .wasm_extended_const(false)
        .wasm_branch_hinting(true);
    config
}

/// Whether this machine lets the engine be set up, with the most memory that instances may have.
///
/// # Errors
/// [`MapError::Compile`] with the engine's words.
pub fn probe() -> Result<(), MapError> {
    let options = Options { memory_bytes_max: WASM_MEMORY_BYTES_MAX, cache: None };
    Wasm::start(&options).map(drop)
}

/// Sets up what a thread needs before its first call of a wasm plugin: some hundred microseconds (a stack for signals among
/// it) that a caller would pay otherwise. The kernel's own threads have it; a host calls it in those that it calls from.
pub fn prepare_thread() {
    Engine::tls_eager_initialize();
}
