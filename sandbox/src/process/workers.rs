//! All workers of one host: the spawner, the pool of ready workers, and the thread that watches them.
//!
//! ```text
//! start ──▶ watcher thread ──exec──▶ spawner          (again when it dies; workers go on)
//! take ──▶ from the pool, or a new one ──▶ owned by who took it      pool thread ──▶ fills the pool
//! watcher: worker ended ▶ its verdict · error output ▶ log · memory ▶ kill
//! ```
//!
//! Workers are children of the watcher thread, by which they die with the host: it lives until the last is gone. What it
//! does is short; what takes time is done by who asks for it, or by the pool's thread. A panic in what the host gave it to
//! call is told, and the thread goes on: all workers hang on it.
//!
//! The host must not wait for children it does not know (`waitpid(-1)`): how a worker ended would be lost.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use themis_messages::limits::{
    MEMORY_WATCH_PERIOD, SPAWNER_DEADLINE, WORKER_POOL, WORKER_SETUP_DEADLINE,
};
use themis_messages::sandbox::{Activity, Layer, Layers, Limits, SandboxError, SetupStep, Verdict};

use super::cgroup::{Controls, Group, GroupLimits, Subtree};
use super::handle::{Parts, Worker};
use super::layout::{Down, MAGIC, Op, Up, file_bytes};
use super::sandbox::filters_in;
use super::shared::{Region, make_file, reopened_read_only};
use super::wire::{self, Hello, Spawn, Spawned, Told};
use super::{SPAWNER_ROLE, entry_was_called};

/// Which program workers are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Program {
    /// The host's own: its `main` begins with [`process_entry`](super::process_entry).
    #[default]
    Own,
    /// Another one, such as `themis-worker`.
    At(PathBuf),
}

/// How workers are had.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which program they are.
    pub program: Program,
    /// How many are kept ready, with the default limits.
    pub pool: usize,
    /// Limits of those in the pool.
    pub pooled: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { program: Program::Own, pool: WORKER_POOL, pooled: Limits::default() }
    }
}

/// Zero of the clock that plugins see: one for all generations of a host.
pub(crate) static ORIGIN_NS: LazyLock<u64> = LazyLock::new(|| {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec.saturating_mul(1_000_000_000) + now.tv_nsec).unwrap_or(0)
});

/// Since the zero of the clock that plugins see.
pub(crate) fn origin_elapsed() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now = now.tv_sec.saturating_mul(1_000_000_000) + now.tv_nsec;
    Duration::from_nanos(u64::try_from(now).unwrap_or(0).saturating_sub(*ORIGIN_NS))
}

/// Tells apart hosts that see the same process numbers: containers have them each for themselves.
static NAMESPACE: LazyLock<u32> = LazyLock::new(|| {
    let own = rustix::fs::stat("/proc/self/ns/pid").map_or(0, |stat| stat.st_ino);
    // Neighbours differ in the lowest bits.
    u32::try_from(own & 0x7f).unwrap_or(0)
});

/// All workers of one host. When the last reference is dropped, those that nobody took end, and the spawner.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Owner>);

/// What the host's references share; the threads hold the rest.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Owner {
    /// Has everything end; nobody waits for it here.
    fn stop(&self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let ready = {
            let mut pool = self.shared.pool.state.lock();
            pool.stopping = true;
            std::mem::take(&mut pool.ready)
        };
        drop(ready);
        self.shared.pool.changed.notify_all();
        let workers: Vec<_> =
            self.shared.watch.workers.lock().values().map(|it| Arc::clone(&it.worker)).collect();
        workers.iter().for_each(|worker| worker.stop());
        // It ends by this.
        self.shared.spawner.lock().take();
        self.shared.watch.wake();
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
struct Shared {
    options: Options,
    groups: Mutex<Groups>,
    spawner: Mutex<Option<Spawner>>,
    pool: Pool,
    watch: Watch,
    numbers: AtomicU64,
    stopping: AtomicBool,
}

/// The kernel's part of the cgroup hierarchy, once somebody needed it.
#[derive(Debug)]
enum Groups {
    Unknown,
    Found(Subtree),
    None,
}

/// The way to the spawner.
#[derive(Debug)]
struct Spawner {
    socket: OwnedFd,
    process: OwnedFd,
    layers: Layers,
}

impl Drop for Spawner {
    /// One that still lives would take the end of its socket for the end of the host, and kill all workers.
    fn drop(&mut self) {
        let _gone_already = rustix::process::pidfd_send_signal(&self.process, Signal::KILL);
    }
}

#[derive(Debug, Default)]
struct Pool {
    state: Mutex<PoolState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PoolState {
    ready: VecDeque<Owned>,
    /// Somebody has needed a worker: from then on the pool is kept full.
    wanted: bool,
    /// Groups whose worker is gone.
    graves: Vec<Group>,
    stopping: bool,
    /// The watcher has ended: no more graves.
    over: bool,
}

/// A worker that is ended when nobody owns it any more.
#[derive(Debug)]
pub(super) struct Owned(pub(super) Arc<Worker>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What the watcher thread waits for.
#[derive(Debug)]
struct Watch {
    epoll: Arc<OwnedFd>,
    wake: OwnedFd,
    tasks: Mutex<Vec<Task>>,
    workers: Mutex<BTreeMap<u64, Watched>>,
}

/// What only the watcher thread may do.
#[derive(Debug)]
enum Task {
    /// Start a spawner: workers are to be children of that thread.
    Spawner { reply: mpsc::SyncSender<Result<Started, Errno>> },
}

/// A spawner that has not said anything yet.
#[derive(Debug)]
struct Started {
    socket: OwnedFd,
    process: OwnedFd,
}

#[derive(Debug)]
struct Watched {
    worker: Arc<Worker>,
    /// Kept open for as long as it is waited for.
    _memory_events: Option<OwnedFd>,
}

/// What an event of the watcher is about: a worker's number, and this in the lowest bits.
const PROCESS: u64 = 0;
const STDERR: u64 = 1;
const MEMORY: u64 = 2;
pub(super) const EVENT: u64 = 3;
pub(super) const KINDS: u64 = 4;
const WAKE: u64 = u64::MAX;
const SPAWNER: u64 = u64::MAX - 1;

/// How often the watcher looks at memory when nobody calls.
const IDLE_PERIOD: Duration = Duration::from_millis(100);
/// The pool's wait after a worker that could not be started: twice as long after each, up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// Files of a plugin that may be on their way at once.
const SOCKET_BYTES: usize = 1 << 20;

impl Workers {
    /// Starts the threads. The spawner is started, and the pool filled, when they are first needed.
    ///
    /// # Errors
    /// [`SandboxError::NoProgram`], or the system gives no thread or descriptor.
    pub fn start(options: Options) -> Result<Self, SandboxError> {
        if options.program == Program::Own && !entry_was_called() {
            return Err(SandboxError::NoProgram);
        }
        options.pooled.check()?;
        LazyLock::force(&ORIGIN_NS);
        let watch = Watch::new().map_err(|errno| failed(SetupStep::Spawner, errno))?;
        let shared = Arc::new(Shared {
            options,
            groups: Mutex::new(Groups::Unknown),
            spawner: Mutex::new(None),
            pool: Pool::default(),
            watch,
            numbers: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
        });
        let owner = Owner { shared: Arc::clone(&shared), threads: Mutex::default() };
        let (watched, pooled) = (Arc::clone(&shared), shared);
        let watcher = thread("themis-workers", move || Watcher::new(watched).run())?;
        owner.threads.lock().push(watcher);
        owner.threads.lock().push(thread("themis-pool", move || pooled.keep_pool())?);
        Ok(Self(Arc::new(owner)))
    }

    /// Fills the pool, without waiting for it.
    pub fn prewarm(&self) {
        self.0.shared.pool.state.lock().wanted = true;
        self.0.shared.pool.changed.notify_all();
    }

    /// Ends all workers, whoever has them, and the spawner, and waits until their processes and groups are gone. Blocks for
    /// a moment; for seconds where the system does not let a process go.
    pub fn close(&self) {
        self.0.stop();
        let threads = std::mem::take(&mut *self.0.threads.lock());
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the workers panicked");
            }
        }
        *self.0.shared.groups.lock() = Groups::None;
    }

    /// Waits until the pool is full, or `limit` has passed; for benches.
    #[must_use]
    pub fn wait_for_pool(&self, limit: Duration) -> bool {
        let shared = &self.0.shared;
        let until = Instant::now() + limit;
        let mut pool = shared.pool.state.lock();
        while pool.ready.len() < shared.options.pool {
            if shared.pool.changed.wait_until(&mut pool, until).timed_out() {
                return pool.ready.len() >= shared.options.pool;
            }
        }
        true
    }

    /// Workers that run, those in the pool included.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.shared.watch.workers.lock().len()
    }

    /// Process numbers of the workers that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.0.shared.watch.workers.lock().values().map(|it| it.worker.pid).collect()
    }

    /// A worker with these limits: a ready one, or a new one.
    pub(super) fn take(&self, limits: &Limits) -> Result<Owned, SandboxError> {
        limits.check()?;
        let shared = &self.0.shared;
        if shared.options.pooled == *limits {
            let ready = {
                let mut pool = shared.pool.state.lock();
                pool.wanted = true;
                pool.ready.pop_front()
            };
            shared.pool.changed.notify_all();
            if let Some(ready) = ready.filter(|ready| ready.0.is_live()) {
                return Ok(ready);
            }
        }
        shared.start_worker(limits)
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, SandboxError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map_err(|error| {
        failed(SetupStep::Spawner, Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
    })
}

fn failed(step: SetupStep, errno: Errno) -> SandboxError {
    Verdict::SetupFailed { step, errno: errno.raw_os_error() }.into()
}

impl Shared {
    /// Keeps the pool full, and removes the groups of workers that are gone, until the host stops and the last is.
    fn keep_pool(&self) {
        let (mut retry, mut wait) = (Instant::now(), RETRY_FIRST);
        let mut pool = self.pool.state.lock();
        loop {
            let graves = std::mem::take(&mut pool.graves);
            if !graves.is_empty() {
                // Others are not to wait while a process takes its time to be gone.
                MutexGuard::unlocked(&mut pool, || graves.into_iter().for_each(bury));
                continue;
            }
            if pool.over {
                return;
            }
            pool.ready.retain(|worker| worker.0.is_live());
            let short = pool.wanted && !pool.stopping && pool.ready.len() < self.options.pool;
            if !short {
                self.pool.changed.wait(&mut pool);
            } else if Instant::now() < retry {
                self.pool.changed.wait_until(&mut pool, retry);
            } else {
                let started =
                    MutexGuard::unlocked(&mut pool, || self.start_worker(&self.options.pooled));
                match started {
                    Ok(worker) if !pool.stopping => {
                        (retry, wait) = (Instant::now(), RETRY_FIRST);
                        pool.ready.push_back(worker);
                        self.pool.changed.notify_all();
                    }
                    Ok(_not_needed_any_more) => {}
                    Err(error) => {
                        // Whoever takes one is told in full.
                        tracing::warn!(%error, ?wait, "no worker could be made ready; trying again");
                        (retry, wait) = (Instant::now() + wait, RETRY_LONGEST.min(wait * 2));
                    }
                }
            }
        }
    }

    /// Starts one; with new channels when nobody knows what became of the first request.
    fn start_worker(&self, limits: &Limits) -> Result<Owned, SandboxError> {
        match self.try_start_worker(limits) {
            Err(SandboxError::Ended(Verdict::SetupFailed { step: SetupStep::Spawner, .. }))
                if !self.stopping.load(Ordering::SeqCst) =>
            {
                self.try_start_worker(limits)
            }
            other => other,
        }
    }

    fn try_start_worker(&self, limits: &Limits) -> Result<Owned, SandboxError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let channels = |errno| failed(SetupStep::Channels, errno);
        let (group, held) = self.group(number, limits)?;
        let capped = held.has(Layer::CgroupLimits);
        let ends = Ends::make(limits, capped).map_err(channels)?;
        let (pid, process, shared) =
            self.spawn(number, &ends, group.as_ref()).inspect_err(|_error| ends.dismiss())?;
        // The worker's own ends go, or its end would not be seen.
        let Ends { down, up, event, stderr: (stderr, theirs), control: (control, its), .. } = ends;
        drop((theirs, its));
        let ready = wait_until_ready(&control, &process, &event, up.header())
            .and_then(|ready| ready.checked(pid, group.as_ref()));
        let ready = ready.map(|ready| {
            let layers = ready.layers.bits() | held.bits() | shared.bits();
            (Layers::from_bits(layers), Some(ready.maps), ready.filters)
        });
        let parts = |layers, maps, filters| Parts {
            number,
            pid,
            process,
            down,
            up,
            event,
            stderr,
            control,
            group,
            limits: *limits,
            layers,
            maps,
            filters,
            epoll: Arc::clone(&self.watch.epoll),
        };
        match ready {
            Ok((layers, maps, filters)) => {
                let owned = Owned(Worker::new(parts(layers, maps, filters)));
                self.watch.add(&owned.0).map_err(channels)?;
                // Who had everything end may have looked before this one was there to be ended.
                if self.stopping.load(Ordering::SeqCst) {
                    return Err(failed(SetupStep::Spawner, Errno::CANCELED));
                }
                Ok(owned)
            }
            Err(verdict) => {
                let owned = Owned(Worker::new(parts(Layers::default(), None, 0)));
                owned.0.stop();
                self.watch.add(&owned.0).map_err(channels)?;
                Err(verdict.into())
            }
        }
    }

    /// A group for one worker, where there can be one.
    fn group(&self, number: u64, limits: &Limits) -> Result<(Option<Group>, Layers), SandboxError> {
        let mut groups = self.groups.lock();
        if matches!(*groups, Groups::Unknown) {
            *groups = match Subtree::open() {
                Ok(subtree) => {
                    if let Controls::KillOnly { why } = subtree.controls() {
                        tracing::warn!(%why, "workers are not capped by their cgroup");
                    }
                    Groups::Found(subtree)
                }
                Err(why) => {
                    tracing::warn!(%why, "workers have no cgroup");
                    Groups::None
                }
            };
        }
        let Groups::Found(subtree) = &*groups else { return Ok((None, Layers::default())) };
        let mut layers = Layers::default().with(Layer::Cgroup);
        if matches!(subtree.controls(), Controls::Full) {
            layers = layers.with(Layer::CgroupLimits);
        }
        let wanted = GroupLimits {
            memory_bytes: limits.memory_bytes,
            cpu_percent: limits.cpu_percent,
            pids: limits.pids,
        };
        match subtree.create(number, &wanted) {
            Ok(group) => Ok((Some(group), layers)),
            Err(error) => {
                tracing::error!(%error, "the group of a worker was not made");
                Err(failed(SetupStep::Cgroup, error.errno()))
            }
        }
    }

    /// Has the process started, by a new spawner when the one there is has died.
    fn spawn(
        &self,
        number: u64,
        ends: &Ends,
        group: Option<&Group>,
    ) -> Result<(u32, OwnedFd, Layers), SandboxError> {
        let mut spawner = self.spawner.lock();
        if spawner.is_none() {
            *spawner = Some(self.start_spawner()?);
        }
        let Some(way) = spawner.as_ref() else {
            return Err(failed(SetupStep::Spawner, Errno::PIPE));
        };
        match way.ask(number, ends, group) {
            Ok((told, Some(handle))) if told.errno == 0 => Ok((told.pid, handle, way.layers)),
            Ok((told, _)) if told.errno != 0 => {
                Err(failed(SetupStep::Clone, Errno::from_raw_os_error(told.errno)))
            }
            Ok(_no_handle) => Err(failed(SetupStep::Clone, Errno::BADF)),
            Err(errno) => {
                // Its socket says that it is gone, or it does not keep to its part.
                *spawner = None;
                Err(failed(SetupStep::Spawner, errno))
            }
        }
    }

    fn start_spawner(&self) -> Result<Spawner, SandboxError> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(failed(SetupStep::Spawner, Errno::CANCELED));
        }
        let (reply, answer) = mpsc::sync_channel(1);
        self.watch.tasks.lock().push(Task::Spawner { reply });
        self.watch.wake();
        let broken = |errno| failed(SetupStep::Spawner, errno);
        let started = answer.recv_timeout(SPAWNER_DEADLINE);
        let Started { socket, process } =
            started.unwrap_or(Err(Errno::TIMEDOUT)).map_err(broken)?;
        let mut spawner = Spawner { socket, process, layers: Layers::default() };
        let hello = wire::receive::<Hello>(&spawner.socket).map_err(broken)?;
        let (hello, _) = hello.ok_or_else(|| broken(Errno::PIPE))?;
        // That it can make process and mount namespaces is told by workers that are in them.
        let own = [Layer::PidNamespace, Layer::MountNamespace];
        let own = own.into_iter().fold(Layers::default(), Layers::with).bits();
        spawner.layers = Layers::from_bits(hello.layers & !own);
        Ok(spawner)
    }
}

impl Spawner {
    fn ask(
        &self,
        number: u64,
        ends: &Ends,
        group: Option<&Group>,
    ) -> Result<(Spawned, Option<OwnedFd>), Errno> {
        let request = Spawn { number, into_cgroup: u64::from(group.is_some()) };
        let (control, stderr) = (&ends.control.1, &ends.stderr.1);
        let mut fds = vec![
            control.as_fd(),
            ends.down_for_worker.as_fd(),
            ends.up.file().ok_or(Errno::BADF)?,
            ends.event.as_fd(),
            stderr.as_fd(),
        ];
        fds.extend(group.map(Group::fd));
        wire::send(&self.socket, &request, &fds)?;
        loop {
            let (told, fds) = wire::receive::<Spawned>(&self.socket)?.ok_or(Errno::PIPE)?;
            // An answer to somebody who gave up waiting is let go, and its process with the handle's number unused.
            if told.number == number {
                return Ok((told, fds.into_iter().next()));
            }
        }
    }
}

/// What host and worker are connected by.
struct Ends {
    down: Region<Down>,
    down_for_worker: OwnedFd,
    up: Region<Up>,
    event: OwnedFd,
    /// The host's end, the worker's.
    stderr: (OwnedFd, OwnedFd),
    control: (OwnedFd, OwnedFd),
}

impl Ends {
    fn make(limits: &Limits, capped: bool) -> Result<Self, Errno> {
        let slots = limits.calls as usize + 1;
        let bytes = file_bytes(slots);
        let down_file = make_file("themis-down", bytes)?;
        let down_for_worker = reopened_read_only(&down_file)?;
        let down = Region::<Down>::map(&down_file, bytes, true)?.keeping(down_file);
        let up_file = make_file("themis-up", bytes)?;
        let up = Region::<Up>::map(&up_file, bytes, true)?.keeping(up_file);
        let setup = &down.header().setup;
        setup.magic.store(MAGIC, Ordering::Relaxed);
        setup.slots.store(limits.calls + 1, Ordering::Relaxed);
        setup.pids.store(limits.pids, Ordering::Relaxed);
        setup.memory_bytes.store(limits.memory_bytes, Ordering::Relaxed);
        setup.cap_memory.store(u32::from(!capped), Ordering::Relaxed);
        setup.origin_ns.store(*ORIGIN_NS, Ordering::Relaxed);
        setup.host.store(*NAMESPACE, Ordering::Relaxed);
        let control = wire::pair()?;
        rustix::net::sockopt::set_socket_send_buffer_size(&control.0, SOCKET_BYTES)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            down,
            down_for_worker,
            up,
            event: rustix::event::eventfd(0, flags)?,
            // Whoever floods it loses what finds no room, and waits for nobody.
            stderr: rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?,
            control,
        })
    }
}

impl Ends {
    /// Sends away a worker that may have been started and that nobody will ever know: it has no plugin yet, and does as
    /// it is told.
    fn dismiss(&self) {
        let (slot, its) = (&self.down.header().slots[0], &self.up.header().slots[0].sleep.asleep);
        slot.op.store(Op::Leave as u32, Ordering::Relaxed);
        slot.turn.fetch_add(1, Ordering::SeqCst);
        its.store(0, Ordering::SeqCst);
        let _ = rustix::thread::futex::wake(its, rustix::thread::futex::Flags::empty(), 1);
    }
}

/// What a worker that waits for a plugin has said of itself, and what the system says.
struct Ready {
    layers: Layers,
    maps: OwnedFd,
    filters: u32,
}

fn broken(step: SetupStep, errno: Errno) -> Verdict {
    Verdict::SetupFailed { step, errno: errno.raw_os_error() }
}

impl Ready {
    /// Believes nothing that can be looked up: that it is in its group, and how many filters it is behind.
    fn checked(mut self, pid: u32, group: Option<&Group>) -> Result<Self, Verdict> {
        if let Some(group) = group
            && !group.has(pid)
        {
            return Err(broken(SetupStep::Cgroup, Errno::SRCH));
        }
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // Whether the last filter is there as well could not be told, and would be nobody's to say.
        let filters = filters_in(&status).filter(|filters| *filters > 0);
        self.filters = filters.ok_or_else(|| broken(SetupStep::WideFilter, Errno::NODATA))?;
        Ok(self)
    }
}

/// Waits until the worker says that it is ready, or why not, or is gone. Behind its filter it has no socket to say it
/// through: it writes the event. Before that it has sent the handle of its memory map.
fn wait_until_ready(
    control: &OwnedFd,
    process: &OwnedFd,
    event: &OwnedFd,
    up: &Up,
) -> Result<Ready, Verdict> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let until = Instant::now() + WORKER_SETUP_DEADLINE;
    let mut maps = None;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let limit = Timespec::try_from(left).unwrap_or_default();
        let mut polled = [event, control, process].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut polled, Some(&limit)) {
            Ok(0) => {
                let (what, limit) = (Activity::Setup, WORKER_SETUP_DEADLINE);
                return Err(Verdict::Deadline { what, limit });
            }
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(broken(SetupStep::Channels, errno)),
        }
        let [ready, told, _] = polled.map(|fd| !fd.revents().is_empty());
        match maps.take() {
            Some(maps) if ready => {
                let layers = Layers::from_bits(up.state.layers.load(Ordering::SeqCst));
                return Ok(Ready { layers, maps, filters: 0 });
            }
            Some(own) if !told => maps = Some(own),
            // It is the first word, or one more than there is to say.
            Some(_) | None => maps = Some(told_before_ready(control)?),
        }
    }
}

/// The handle of a worker's memory map, or why it does not get ready.
fn told_before_ready(control: &OwnedFd) -> Result<OwnedFd, Verdict> {
    match wire::receive::<Told>(control) {
        Ok(Some((told, maps))) if told.step == 0 => {
            maps.into_iter().next().ok_or_else(|| broken(SetupStep::Files, Errno::BADF))
        }
        Ok(Some((told, _))) => {
            let step = u8::try_from(told.step).ok().and_then(SetupStep::from_repr);
            let step = step.unwrap_or(SetupStep::Exec);
            Err(Verdict::SetupFailed { step, errno: told.errno })
        }
        // It ended without a word: executing the program failed, or the program is another one.
        Ok(None) => Err(broken(SetupStep::Exec, Errno::PIPE)),
        Err(errno) => Err(broken(SetupStep::Exec, errno)),
    }
}

fn bury(group: Group) {
    if let Err(error) = group.remove() {
        tracing::warn!(%error, "the group of a worker was not removed");
    }
}

impl Watch {
    fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = rustix::event::eventfd(0, flags)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let epoll = Arc::new(epoll);
        Ok(Self { epoll, wake, tasks: Mutex::default(), workers: Mutex::default() })
    }

    fn wake(&self) {
        // A full counter has woken it already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn add(&self, worker: &Arc<Worker>) -> Result<(), Errno> {
        let memory_events = worker.memory_events();
        let data = |kind| epoll::EventData::new_u64(worker.number * KINDS + kind);
        let mut workers = self.workers.lock();
        if let Some(events) = &memory_events {
            // At its edge: what was read elsewhere does not make this descriptor quiet.
            let edge = epoll::EventFlags::PRI | epoll::EventFlags::ET;
            epoll::add(&*self.epoll, events, data(MEMORY), edge)?;
        }
        let input = epoll::EventFlags::IN;
        // Until somebody waits for it, nobody looks: it may be written by whoever likes.
        epoll::add(&*self.epoll, &worker.event, data(EVENT), epoll::EventFlags::ONESHOT)?;
        // Once in a round of the watcher: who writes without end is not to have it read all the time.
        let once = input | epoll::EventFlags::ONESHOT;
        epoll::add(&*self.epoll, &worker.stderr, data(STDERR), once)?;
        epoll::add(&*self.epoll, &worker.process, data(PROCESS), input)?;
        let watched = Watched { worker: Arc::clone(worker), _memory_events: memory_events };
        workers.insert(worker.number, watched);
        drop(workers);
        self.wake();
        Ok(())
    }

    fn forget(&self, worker: &Worker) {
        let _ = epoll::delete(&*self.epoll, &worker.process);
        let _ = epoll::delete(&*self.epoll, &worker.stderr);
        let _ = epoll::delete(&*self.epoll, &worker.event);
        // Closing the descriptor of its events takes them out of the set.
        self.workers.lock().remove(&worker.number);
    }

    /// Looks at the error output of a worker again.
    fn listen_again(&self, worker: &Worker) {
        if worker.stderr_rests.swap(false, Ordering::Relaxed) {
            let data = epoll::EventData::new_u64(worker.number * KINDS + STDERR);
            let once = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
            // It is gone from the set once the process is.
            let _ = epoll::modify(&*self.epoll, &worker.stderr, data, once);
        }
    }

    fn find(&self, number: u64) -> Option<Arc<Worker>> {
        self.workers.lock().get(&number).map(|watched| Arc::clone(&watched.worker))
    }
}

/// What the host gave to be called may panic; the thread that all workers hang on goes on.
fn guarded<T>(run: impl FnOnce() -> T) -> Option<T> {
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    if ran.is_err() {
        tracing::error!("what a worker had to tell the host ended in a panic");
    }
    ran.ok()
}

/// The watcher thread's own.
struct Watcher {
    shared: Arc<Shared>,
    spawners: Vec<(Child, OwnedFd)>,
}

impl Watcher {
    fn new(shared: Arc<Shared>) -> Self {
        Self { shared, spawners: Vec::new() }
    }

    /// Until the host stops and the last worker is gone: they die with this thread.
    fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        loop {
            let watch = &self.shared.watch;
            let stopping = self.shared.stopping.load(Ordering::SeqCst);
            if stopping && watch.workers.lock().is_empty() {
                break;
            }
            let period = guarded(|| self.check_workers()).unwrap_or(IDLE_PERIOD);
            let timeout =
                rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(period.subsec_nanos()) };
            events.clear();
            match epoll::wait(
                &*self.shared.watch.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => tracing::error!(%errno, "workers cannot be watched"),
            }
            for event in &events {
                guarded(|| self.handle(event.data.u64()));
            }
        }
        for (mut spawner, _) in self.spawners {
            drop(spawner.kill());
            drop(spawner.wait());
        }
        self.shared.pool.state.lock().over = true;
        self.shared.pool.changed.notify_all();
    }

    fn handle(&mut self, about: u64) {
        match about {
            WAKE => self.do_tasks(),
            SPAWNER => self.reap_spawners(),
            _ => {
                let Some(worker) = self.shared.watch.find(about / KINDS) else { return };
                match about % KINDS {
                    PROCESS => {
                        // First: whatever the host makes of its end, it is not looked at again.
                        self.shared.watch.forget(&worker);
                        let group = worker.reap();
                        self.shared.pool.state.lock().graves.extend(group);
                        self.shared.pool.changed.notify_all();
                    }
                    STDERR => {
                        // Nothing means that its other end is closed: nothing will come.
                        let more = worker.take_stderr() > 0;
                        worker.stderr_rests.store(more, Ordering::Relaxed);
                    }
                    EVENT => worker.take_event(),
                    _ => worker.look_at_memory_events(),
                }
            }
        }
    }

    /// Looks after calls that nobody's thread waits for, and at limits that no cgroup holds; answers when to look again.
    fn check_workers(&self) -> Duration {
        let (mut busy, mut next, now) = (false, IDLE_PERIOD, Instant::now());
        let watched: Vec<_> =
            self.shared.watch.workers.lock().values().map(|it| Arc::clone(&it.worker)).collect();
        for worker in watched {
            worker.take_services();
            worker.settle_calls(now);
            next = next.min(worker.check_sleepers(now));
            self.shared.watch.listen_again(&worker);
            if !worker.layers.has(Layer::CgroupLimits) {
                worker.check_limits();
            }
            busy |= worker.is_busy();
        }
        if busy { next.min(MEMORY_WATCH_PERIOD) } else { next }
    }

    fn do_tasks(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.watch.wake, &mut count);
        let tasks = std::mem::take(&mut *self.shared.watch.tasks.lock());
        for Task::Spawner { reply } in tasks {
            // Who asked may have given up: the spawner ends with its socket.
            drop(reply.send(self.start_spawner()));
        }
    }

    fn start_spawner(&mut self) -> Result<Started, Errno> {
        let (ours, theirs) = wire::pair()?;
        let timeout = Some(SPAWNER_DEADLINE);
        use rustix::net::sockopt::{Timeout, set_socket_timeout};
        set_socket_timeout(&ours, Timeout::Recv, timeout)?;
        set_socket_timeout(&ours, Timeout::Send, timeout)?;
        let program = match &self.shared.options.program {
            Program::Own => PathBuf::from("/proc/self/exe"),
            Program::At(path) => path.clone(),
        };
        let child = Command::new(&program)
            .arg(SPAWNER_ROLE)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn();
        let child = child.map_err(|error| {
            tracing::error!(program = %program.display(), %error, "the spawner does not start");
            Errno::from_io_error(&error).unwrap_or(Errno::IO)
        })?;
        let pid = rustix::process::Pid::from_child(&child);
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let process = handle.try_clone().map_err(|_descriptors| Errno::MFILE)?;
        let data = epoll::EventData::new_u64(SPAWNER);
        epoll::add(&*self.shared.watch.epoll, &handle, data, epoll::EventFlags::IN)?;
        self.spawners.push((child, handle));
        Ok(Started { socket: ours, process })
    }

    fn reap_spawners(&mut self) {
        self.spawners.retain_mut(|(child, handle)| {
            let ended = matches!(child.try_wait(), Ok(Some(_)) | Err(_));
            if ended {
                let _ = epoll::delete(&*self.shared.watch.epoll, &*handle);
            }
            !ended
        });
        // The next worker finds its socket closed, and has another started.
        if !self.shared.stopping.load(Ordering::SeqCst) {
            tracing::warn!("the spawner of workers ended; the next worker starts another");
        }
    }
}
