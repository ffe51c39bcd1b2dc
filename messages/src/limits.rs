//! Every deadline, bound and budget of the kernel, each with the sentence it comes from.

use std::time::Duration;

// === Hooks and calls ===

/// A lifecycle hook (init, reload, shutdown, save_state, health) that has not returned by then is
/// written off: "lifecycle hook: ≤ 5 s or killed".
pub const HOOK_DEADLINE: Duration = Duration::from_secs(5);
/// Largest request or reply of one call: part of the plugin ABI.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Longest text a plugin may give for the failure of a hook; the rest is cut.
pub const HOOK_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Longest line a plugin may log; the rest is cut.
pub const LOG_LINE_BYTES_MAX: usize = 4 << 10;
/// Log lines one instance may write in a second, and at once; the rest is dropped and counted.
pub const LOG_LINES_PER_SECOND: u32 = 1_000;
/// Distinct counter names one plugin may create: they become metric labels.
pub const PLUGIN_COUNTERS_MAX: usize = 64;

/// How long a call in a process or wasm plugin may take, unless configured otherwise.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// The longest call deadline that may be configured.
pub const CALL_DEADLINE_MAX: Duration = Duration::from_secs(3_600);

// === Worker processes ===

/// Memory of a worker process, unless configured otherwise: "default 256 MiB".
pub const MEMORY_BYTES: u64 = 256 << 20;
/// The most memory a worker may be given: "configurable to 2 GiB, more refused".
pub const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// The least: the worker's own libraries, stacks and heap take about half of it.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// CPU of a worker in percent of one core, unless configured otherwise.
pub const CPU_PERCENT: u32 = 100;
/// The most that may be configured: 64 cores.
pub const CPU_PERCENT_MAX: u32 = 6_400;
/// Processes and threads of a worker, its own included, unless configured otherwise.
pub const WORKER_PIDS: u32 = 16;
/// The most that may be configured.
pub const WORKER_PIDS_MAX: u32 = 1_024;
/// Calls that run at once in one worker, unless configured otherwise.
pub const WORKER_CALLS: u32 = 4;
/// The most that may be configured: each has 128 MiB of address space for its messages.
pub const WORKER_CALLS_MAX: u32 = 16;
/// Workers kept ready: "warm pool, default 2".
pub const WORKER_POOL: usize = 2;
/// Setting up a worker, from the request to where it waits for a plugin.
pub const WORKER_SETUP_DEADLINE: Duration = Duration::from_secs(5);

/// For the spawner to answer; one that takes longer is replaced. It answers in a millisecond or two, and a load has to fit
/// two tries.
pub const SPAWNER_DEADLINE: Duration = Duration::from_secs(2);
/// How long somebody who waits for a hook of another process waits beyond the hook's own deadline: whoever is killed at
/// the deadline is to be told so, not given up on.
pub const HOOK_KILL_GRACE: Duration = Duration::from_millis(250);
/// How often workers are looked at whose memory no cgroup caps.
pub const MEMORY_WATCH_PERIOD: Duration = Duration::from_millis(10);

// === Admission ===
/// Largest `manifest.json`, checked before it is read.
pub const MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// A signature is exactly this long (RFC 8032).
pub const SIGNATURE_BYTES: u64 = 64;
/// Largest OpenPGP signature, in bytes: one packet of some hundred, with room for armor and long hash algorithms.
pub const OPENPGP_BYTES_MAX: u64 = 64 << 10;
/// Largest single file of a plugin: "size cap, default 128 MiB".
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Most files one manifest may list.
pub const FILES_MAX: usize = 256;
/// All files of one plugin together: what is kept of them is kept in memory.
pub const PLUGIN_BYTES_MAX: u64 = 512 << 20;
/// Deepest nesting of a manifest's JSON.
pub const JSON_DEPTH_MAX: usize = 32;
/// Longest path of a file inside a plugin, in bytes.
pub const PATH_BYTES_MAX: usize = 512;
/// Longest single path component, in bytes (NAME_MAX of Linux file systems).
pub const PATH_COMPONENT_BYTES_MAX: usize = 255;
/// Most methods, dependencies, self-tests, authors a manifest may list, each.
pub const MANIFEST_LIST_MAX: usize = 256;
/// Longest free text in a manifest (description, license, author), in bytes.
pub const MANIFEST_TEXT_BYTES_MAX: usize = 4 << 10;
/// Name of a plugin: the ABI's `char name[64]` keeps one byte for NUL.
pub const NAME_BYTES_MAX: usize = 63;
/// Version of a plugin: the ABI's `char version[32]` keeps one byte for NUL.
pub const VERSION_BYTES_MAX: usize = 31;
/// Most plugin versions discovery looks at below one root.
pub const DISCOVERY_VERSIONS_MAX: usize = 100_000;
/// Largest PEM file of a key.
pub const KEY_FILE_BYTES_MAX: u64 = 8 << 10;
/// Largest `themis.toml`.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

// === Images and generations ===

/// Most distinct images mapped in one process: an image takes about four mappings and
/// `vm.max_map_count` (65,530) ends loading near 16,000; the rest is the host's.
pub const IMAGES_MAX: usize = 12_000;
/// Most address space one image may span: the loader reserves it all before it maps the first byte.
pub const IMAGE_SPAN_BYTES_MAX: u64 = 1 << 30;
/// Most distinct plugin names one kernel ever serves: their slots are interned for good.
pub const CATALOG_NAMES_MAX: usize = 4_096;
/// How long a replaced generation is waited for before it is reported as outlived by a lease. It
/// then stays mapped and initialised until that lease ends.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(30);

// === Lifecycle operations ===

/// Reading, verifying and pre-flighting one plugin.
pub const ADMIT_DEADLINE: Duration = Duration::from_secs(30);
/// Mapping an image, its constructors included.
pub const MAP_DEADLINE: Duration = HOOK_DEADLINE;
/// After this a constructor counts as hung and nothing else is given to the system's loader. A little before
/// [`MAP_DEADLINE`], so that whoever was answered at the deadline finds the loader marked already.
pub const LOADER_STUCK_AFTER: Duration = Duration::from_millis(4_900);
const _: () = assert!(LOADER_STUCK_AFTER.as_millis() < MAP_DEADLINE.as_millis());
/// All self-test calls of one candidate together.
pub const PROBE_DEADLINE: Duration = HOOK_DEADLINE;
/// An audit record that must be durable before the operation goes on.
pub const AUDIT_DEADLINE: Duration = Duration::from_secs(10);
/// Whole load or reload as its caller sees it: the stages plus room for the hand-overs.
pub const OPERATION_DEADLINE: Duration = Duration::from_secs(60);
/// "rollback ≤ 500 ms": the ask for the swap itself.
pub const ROLLBACK_DEADLINE: Duration = Duration::from_millis(500);
/// An ask that only reads or changes an actor's own state.
pub const ASK_DEADLINE: Duration = Duration::from_secs(2);
/// Orderly end of the whole kernel: drain, shutdown hooks, flush.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(20);
const _: () = assert!(SHUTDOWN_DEADLINE.as_secs() > 2 * HOOK_DEADLINE.as_secs());
const _: () = assert!(
    OPERATION_DEADLINE.as_secs()
        >= ADMIT_DEADLINE.as_secs()
            + MAP_DEADLINE.as_secs()
            + HOOK_DEADLINE.as_secs()
            + PROBE_DEADLINE.as_secs()
            + AUDIT_DEADLINE.as_secs()
);

// === Supervision ===

/// Restarts an actor may need within [`RESTART_PERIOD`] before its supervisor gives up.
pub const RESTARTS_MAX: usize = 5;
/// The window [`RESTARTS_MAX`] counts in.
pub const RESTART_PERIOD: Duration = Duration::from_secs(60);

/// Wait before an actor's second restart within [`RESTART_PERIOD`]; each further one waits twice as long.
pub const RESTART_WAIT_FIRST: Duration = Duration::from_millis(50);
/// The longest wait before an actor's restart.
pub const RESTART_WAIT_LONGEST: Duration = Duration::from_secs(5);
/// How often each actor is asked for a sign of life.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// An actor without a sign of life for so long is ended by force. Longer than the longest thing a handler waits for.
pub const HEARTBEAT_LIMIT: Duration = Duration::from_secs(30);
const _: () = assert!(HEARTBEAT_LIMIT.as_secs() > 2 * AUDIT_DEADLINE.as_secs());

// === Plugins that fail ===

/// How often a plugin is asked whether it is well, unless configured otherwise: "default every 30 s".
pub const HEALTH_PERIOD: Duration = Duration::from_secs(30);
/// The window that a plugin's restarts are counted in: "in 10 minutes".
pub const PLUGIN_RESTART_PERIOD: Duration = Duration::from_secs(600);
/// Restarts a plugin may need within [`PLUGIN_RESTART_PERIOD`] before it is quarantined: "at most 5 restarts".
pub const PLUGIN_RESTARTS_MAX: usize = 5;
/// Wait before a plugin's first restart; each further one waits twice as long: "back-off 5 s × 2".
pub const PLUGIN_RESTART_WAIT_FIRST: Duration = Duration::from_secs(5);
/// The longest wait before a plugin's restart: "to 300 s".
pub const PLUGIN_RESTART_WAIT_LONGEST: Duration = Duration::from_secs(300);
/// Loads of one image that may fail one after the other before it is quarantined.
pub const FAILED_LOADS_MAX: u32 = 3;

// === State and probation ===

/// Largest state one generation may hand to the next.
pub const STATE_BYTES_MAX: usize = 64 << 20;
/// For how long new leases on a stateful plugin are held, from `save_state` to the swap: "default 100 ms".
pub const HOLD_LIMIT: Duration = Duration::from_millis(100);
/// The longest hold that may be configured: a rollback that holds must still end within its budget.
pub const HOLD_LIMIT_MAX: Duration = Duration::from_millis(400);
const _: () = assert!(HOLD_LIMIT_MAX.as_millis() < ROLLBACK_DEADLINE.as_millis());
/// How long a new version is watched, unless configured otherwise.
pub const PROBATION_WINDOW: Duration = Duration::from_secs(10);
/// The longest window that makes sense: a version is settled within the hour.
pub const PROBATION_WINDOW_MAX: Duration = Duration::from_secs(3_600);
/// How often a version on probation is judged; errors are told at once. "Within 50 calls or 100 ms".
pub const PROBATION_TICK: Duration = Duration::from_millis(20);
/// Errors of a version on probation before their rate counts: few enough to be told within 50 calls.
pub const PROBATION_ERRORS_MIN: u64 = 10;
/// Percentage points by which the error rate may rise.
pub const PROBATION_ERROR_PERCENT: u64 = 5;
/// How many times slower a version may be than the one before.
pub const PROBATION_LATENCY_FACTOR: u64 = 4;
/// Latency that grew by less than this does not count: below it is the noise of a busy machine.
pub const PROBATION_LATENCY_FLOOR: Duration = Duration::from_millis(1);
/// Timed calls of each version before latency counts.
pub const PROBATION_SAMPLES_MIN: u64 = 50;

/// When calls of a version on probation are inside, and none has ended for so long, it hangs.
pub const PROBATION_STALL: Duration = Duration::from_secs(1);

// === Generation budget ===

/// Generations of one plugin that may be initialised at once, leased old ones included.
pub const BUDGET_GENERATIONS_MAX: u64 = 64;
/// Memory of all images mapped for good, in bytes, unless configured otherwise.
pub const BUDGET_IMAGE_BYTES_MAX: u64 = 4 << 30;
/// Plugins that may be reloaded together.
pub const SET_MAX: usize = 64;

// === Queues: messages a role holds before it answers `Overloaded` ===

/// Lifecycle requests waiting for the coordinator.
pub const COORDINATOR_QUEUE: usize = 256;
/// Questions and changes waiting for the catalog.
pub const CATALOG_QUEUE: usize = 1_024;
/// Requests waiting for one plugin's actor.
pub const PLUGIN_QUEUE: usize = 256;
/// Questions waiting for the watchdog.
pub const WATCHDOG_QUEUE: usize = 256;
/// Events a subscriber may be behind before it misses some.
pub const EVENTS_QUEUE: usize = 1_024;
/// Records waiting for the audit log.
pub const AUDIT_QUEUE: usize = 4_096;

// === Audit ===

/// Largest encoded audit record; longer reasons are cut, visibly.
pub const AUDIT_RECORD_BYTES_MAX: usize = 4 << 10;
/// Longest reason text inside an audit record.
pub const AUDIT_REASON_BYTES_MAX: usize = 1 << 10;
/// Most records one group commit takes.
pub const AUDIT_BATCH_MAX: usize = 512;

// === Admin API ===

/// Largest body the admin API reads: a call's request, plus room for its envelope.
pub const ADMIN_BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (1 << 20);
/// Connections the admin socket serves at once.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// One in this many calls is timed for the latency histogram: a clock read costs 30–65 ns.
pub const LATENCY_SAMPLE: u32 = 64;
/// How often the metrics recorder folds its samples: without it histograms keep every one.
pub const METRICS_UPKEEP: Duration = Duration::from_secs(5);

// === Wasm ===

/// Linear memory of a wasm plugin that asks for nothing, in bytes.
pub const WASM_MEMORY_BYTES: u64 = 64 << 20;
/// The most linear memory any wasm plugin may ask for: all that 32 bits can address.
pub const WASM_MEMORY_BYTES_MAX: u64 = 4 << 30;
/// Bytes of a module: compiling takes a multiple of them.
pub const WASM_MODULE_BYTES_MAX: u64 = 32 << 20;
/// Instances of one plugin at once, each for one call.
pub const WASM_INSTANCES_MAX: usize = 64;
/// Of these, how many are kept when nobody calls.
pub const WASM_INSTANCES_IDLE: usize = 8;
/// Instances of all plugins: address space for their memories is set aside.
pub const WASM_INSTANCES_TOTAL: u32 = 1_000;
/// Stack of a guest, in bytes: calls deeper than it holds trap.
pub const WASM_STACK_BYTES: usize = 512 << 10;
/// Tables of a module.
pub const WASM_TABLES_MAX: u64 = 4;
/// Elements of a table, as declared and as grown.
pub const WASM_TABLE_ELEMENTS_MAX: u64 = 100_000;
/// The custom section that names the plugin.
pub const WASM_SECTION_BYTES_MAX: usize = 4 << 10;
/// Fuel of a call whose plugin asks for none, in units of about one machine instruction: some seconds of work.
pub const WASM_FUEL_PER_CALL: u64 = 10_000_000_000;
/// The most fuel that can be written down: more is the same as no limit.
pub const WASM_FUEL_MAX: u64 = 1 << 60;
/// Bytes of one compiled module in the cache.
pub const WASM_ARTEFACT_BYTES_MAX: u64 = 512 << 20;
/// Compiled modules in the cache; the oldest go.
pub const WASM_ARTEFACTS_MAX: usize = 256;

// === Bundles ===

/// Most entries: as many files as a manifest may list, the manifest and its signatures.
pub const BUNDLE_ENTRIES_MAX: usize = FILES_MAX + 3;
/// All entries together, unpacked, in bytes.
pub const BUNDLE_UNPACKED_BYTES_MAX: u64 =
    PLUGIN_BYTES_MAX + MANIFEST_BYTES_MAX + SIGNATURE_BYTES + OPENPGP_BYTES_MAX;
/// How many times its packed size an entry may have when unpacked. Machine code shrinks to a third, text to
/// a tenth; deflate's own limit is 1,032. The packer stores what shrinks further.
pub const BUNDLE_RATIO_MAX: u64 = 100;
/// Up to this size, in bytes, an entry may shrink as far as it does: all of them together stay below 17 MiB.
pub const BUNDLE_RATIO_FREE_BYTES: u64 = 64 << 10;
/// Largest bundle, in bytes: everything stored, with the longest names. Whoever reads a bundle's file into
/// memory stops here.
pub const BUNDLE_BYTES_MAX: u64 =
    BUNDLE_UNPACKED_BYTES_MAX + (BUNDLE_ENTRIES_MAX * HEADERS_BYTES_MAX + 22) as u64;

/// Local and central header of one entry, each with its name.
const HEADERS_BYTES_MAX: usize = 30 + 46 + 2 * PATH_BYTES_MAX;

// Every size and offset fits the 32 bits a plain zip has for it, so a bundle never needs zip64.
const _: () = assert!(BUNDLE_BYTES_MAX < u32::MAX as u64);
const _: () = assert!(BUNDLE_ENTRIES_MAX < u16::MAX as usize);

// === The registry ===

/// How long one operation may try, attempts and pauses included, unless the operator says otherwise.
/// "≤ 30 s total, caller never blocked."
pub const REGISTRY_RETRY_LIMIT: Duration = Duration::from_secs(30);
/// The first pause between two attempts; each further one is twice as long, and up to as much again by chance.
pub const REGISTRY_PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause, what chance adds not counted.
pub const REGISTRY_PAUSE_MAX: Duration = Duration::from_secs(8);
/// How long a connection may take to open.
pub const REGISTRY_CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long nothing may arrive on one.
pub const REGISTRY_SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a request may be sent on to another address.
pub const REGISTRY_REDIRECTS_MAX: usize = 5;
/// Bytes of one file of metadata: 50,000 versions at two hundred bytes each.
pub const REGISTRY_METADATA_BYTES_MAX: u64 = 10 << 20;
/// How far ahead of the last one a version of metadata may be: a registry that publishes every second for a month
/// comes that far. A stolen key could otherwise use up all numbers there are.
pub const REGISTRY_VERSION_STEP_MAX: u64 = 2_600_000;
/// Versions that a registry may publish.
pub const REGISTRY_RELEASES_MAX: usize = 50_000;
/// How long versions are looked for that fit together.
pub const RESOLVE_DEADLINE: Duration = Duration::from_secs(2);
/// Requests that wait for the registry's client at most; each further one is refused.
pub const REGISTRY_QUEUE: usize = 4_096;
/// Requests about experiments that wait at most; each further one is refused.
pub const EXPERIMENTS_QUEUE: usize = 256;
/// Experiments that are kept, ended ones included; further ones are refused.
pub const EXPERIMENTS_MAX: usize = 10_000;
/// How often what was counted is looked at.
pub const EXPERIMENTS_TICK: Duration = Duration::from_secs(1);
/// Metrics of an experiment besides its own, latency and errors; events of further ones are dropped and counted.
pub const EXPERIMENT_METRICS_MAX: usize = 16;
/// Bundles that stay after they were installed, for installing without a network; the oldest go.
pub const REGISTRY_BUNDLES_KEPT: usize = 64;
/// How long hashing one bundle may take: 2 GiB at a tenth of what a slow disk reads.
pub const REGISTRY_HASH_DEADLINE: Duration = Duration::from_secs(120);
