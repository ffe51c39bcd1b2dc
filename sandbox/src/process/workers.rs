//! All workers of one host: the spawner, the pool of ready workers, and the thread that watches them.
//!
//! ```text
//! start ──▶ watcher thread ──exec──▶ spawner          (again when it dies; workers go on)
//! take ──▶ from the pool, or a new one ──▶ owned by who took it      pool thread ──▶ fills the pool
//! watcher: worker ended ▶ its verdict · error output ▶ log · memory ▶ kill
//! ```
//!
//! Workers are children of the watcher thread, by which they die with the host: it lives until the last is gone. What it
//! does is short; what takes time is done by who asks for it, or by the pool's thread.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{EventfdFlags, epoll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use themis_messages::limits::{MEMORY_WATCH_PERIOD, WORKER_POOL, WORKER_SETUP_DEADLINE};
use themis_messages::sandbox::{Activity, Layer, Layers, Limits, SandboxError, SetupStep, Verdict};

use super::cgroup::{Controls, Group, GroupLimits, Subtree};
use super::handle::{Parts, Worker};
use super::layout::{Down, MAGIC, Up, file_bytes};
use super::shared::{Region, make_file, reopened_read_only};
use super::wire::{self, Failed, Hello, Spawn, Spawned};
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

/// All workers of one host. When the last reference is dropped, those that nobody took end, and the spawner.
#[derive(Debug, Clone)]
pub struct Workers(Arc<Owner>);

/// What the host's references share; the threads hold the rest.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.pool.ready.lock().clear();
        self.shared.pool.wanted.notify_all();
        // It ends by this, and every worker that is left with it.
        self.shared.spawner.lock().take();
        self.shared.watch.wake();
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
    layers: Layers,
}

#[derive(Debug, Default)]
struct Pool {
    ready: Mutex<VecDeque<Owned>>,
    wanted: Condvar,
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
    Spawner { reply: mpsc::SyncSender<Result<Spawner, Errno>> },
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
        let owner = Owner { shared: Arc::clone(&shared) };
        let (watched, pooled) = (Arc::clone(&shared), shared);
        thread("themis-workers", move || Watcher::new(watched).run())?;
        thread("themis-pool", move || pooled.keep_pool())?;
        Ok(Self(Arc::new(owner)))
    }

    /// Fills the pool, without waiting for it.
    pub fn prewarm(&self) {
        self.0.shared.pool.wanted.notify_all();
    }

    /// Waits until the pool is full, or `limit` has passed; for benches.
    #[must_use]
    pub fn wait_for_pool(&self, limit: Duration) -> bool {
        let shared = &self.0.shared;
        let until = std::time::Instant::now() + limit;
        let mut ready = shared.pool.ready.lock();
        while ready.len() < shared.options.pool {
            if shared.pool.wanted.wait_until(&mut ready, until).timed_out() {
                return ready.len() >= shared.options.pool;
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
            let ready = shared.pool.ready.lock().pop_front();
            shared.pool.wanted.notify_all();
            if let Some(ready) = ready.filter(|ready| ready.0.is_live()) {
                return Ok(ready);
            }
        }
        shared.start_worker(limits)
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), SandboxError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    started.map(drop).map_err(|error| {
        failed(SetupStep::Spawner, Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))
    })
}

fn failed(step: SetupStep, errno: Errno) -> SandboxError {
    Verdict::SetupFailed { step, errno: errno.raw_os_error() }.into()
}

impl Shared {
    /// Keeps the pool full until the host stops.
    fn keep_pool(&self) {
        let mut ready = self.pool.ready.lock();
        // Not before somebody needs one.
        self.pool.wanted.wait(&mut ready);
        while !self.stopping.load(Ordering::SeqCst) {
            ready.retain(|worker| worker.0.is_live());
            if ready.len() >= self.options.pool {
                self.pool.wanted.wait(&mut ready);
                continue;
            }
            drop(ready);
            let started = self.start_worker(&self.options.pooled);
            ready = self.pool.ready.lock();
            match started {
                Ok(worker) => {
                    ready.push_back(worker);
                    self.pool.wanted.notify_all();
                }
                Err(error) => {
                    // Whoever takes one is told in full; the next need tries again.
                    tracing::warn!(%error, "no worker could be made ready");
                    self.pool.wanted.wait(&mut ready);
                }
            }
        }
    }

    fn start_worker(&self, limits: &Limits) -> Result<Owned, SandboxError> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let channels = |errno| failed(SetupStep::Channels, errno);
        let (group, held) = self.group(number, limits)?;
        let capped = held.has(Layer::CgroupLimits);
        let ends = Ends::make(limits, capped).map_err(channels)?;
        let (pid, process, shared) = self.spawn(number, &ends, group.as_ref())?;
        // The worker's own ends go, or its end would not be seen.
        let Ends { down, up, event, stderr: (stderr, theirs), control: (control, its), .. } = ends;
        drop((theirs, its));
        let ready = wait_until_ready(&control, &process, &event, up.header());
        let parts = |layers| Parts {
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
            epoll: Arc::clone(&self.watch.epoll),
        };
        match ready {
            Ok(own) => {
                let layers = Layers::from_bits(own.bits() | held.bits() | shared.bits());
                let worker = Worker::new(parts(layers));
                self.watch.add(&worker).map_err(channels)?;
                Ok(Owned(worker))
            }
            Err(verdict) => {
                let worker = Worker::new(parts(Layers::default()));
                worker.stop();
                self.watch.add(&worker).map_err(channels)?;
                Err(verdict.into())
            }
        }
    }

    /// A group for one worker, where there can be one.
    fn group(&self, number: u64, limits: &Limits) -> Result<(Option<Group>, Layers), SandboxError> {
        let mut groups = self.groups.lock();
        if matches!(*groups, Groups::Unknown) {
            *groups = match Subtree::open() {
                Ok(subtree) => Groups::Found(subtree),
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

    /// Has the process started; once more when the spawner has died meanwhile.
    fn spawn(
        &self,
        number: u64,
        ends: &Ends,
        group: Option<&Group>,
    ) -> Result<(u32, OwnedFd, Layers), SandboxError> {
        let mut spawner = self.spawner.lock();
        let mut again = spawner.is_some();
        loop {
            if spawner.is_none() {
                *spawner = Some(self.start_spawner()?);
            }
            let Some(way) = spawner.as_ref() else {
                return Err(failed(SetupStep::Spawner, Errno::PIPE));
            };
            match way.ask(number, ends, group) {
                Ok(spawned) if spawned.0.errno == 0 => {
                    let handle = spawned.1.ok_or_else(|| failed(SetupStep::Clone, Errno::BADF))?;
                    return Ok((spawned.0.pid, handle, way.layers));
                }
                Ok(spawned) => {
                    let errno = Errno::from_raw_os_error(spawned.0.errno);
                    return Err(failed(SetupStep::Clone, errno));
                }
                Err(errno) => {
                    // Its socket says that it is gone, or it does not keep to its part.
                    *spawner = None;
                    if !std::mem::take(&mut again) {
                        return Err(failed(SetupStep::Spawner, errno));
                    }
                }
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
        let answer = answer.recv_timeout(WORKER_SETUP_DEADLINE);
        answer.unwrap_or(Err(Errno::TIMEDOUT)).map_err(|errno| failed(SetupStep::Spawner, errno))
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

/// Waits until the worker says that it is ready, or why not, or is gone. Behind its filter it has no socket to say it
/// through: it writes the event.
fn wait_until_ready(
    control: &OwnedFd,
    process: &OwnedFd,
    event: &OwnedFd,
    up: &Up,
) -> Result<Layers, Verdict> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let broken = |step, errno: Errno| Verdict::SetupFailed { step, errno: errno.raw_os_error() };
    let seconds = i64::try_from(WORKER_SETUP_DEADLINE.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut polled = [event, control, process].map(|fd| PollFd::new(fd, PollFlags::IN));
    loop {
        match poll(&mut polled, Some(&limit)) {
            Ok(0) => {
                let (what, limit) = (Activity::Setup, WORKER_SETUP_DEADLINE);
                return Err(Verdict::Deadline { what, limit });
            }
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(broken(SetupStep::Channels, errno)),
        }
    }
    if !polled[0].revents().is_empty() {
        return Ok(Layers::from_bits(up.state.layers.load(Ordering::SeqCst)));
    }
    match wire::receive::<Failed>(control) {
        Ok(Some((ready, _))) => {
            let step = u8::try_from(ready.step).ok().and_then(SetupStep::from_repr);
            let step = step.unwrap_or(SetupStep::Exec);
            Err(Verdict::SetupFailed { step, errno: ready.errno })
        }
        // It ended without a word: executing the program failed, or the program is another one.
        Ok(None) => Err(broken(SetupStep::Exec, Errno::PIPE)),
        Err(errno) => Err(broken(SetupStep::Exec, errno)),
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
        epoll::add(&*self.epoll, &worker.stderr, data(STDERR), input)?;
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

    fn find(&self, number: u64) -> Option<Arc<Worker>> {
        self.workers.lock().get(&number).map(|watched| Arc::clone(&watched.worker))
    }
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
            let period = self.check_memory();
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
                self.handle(event.data.u64());
            }
        }
        for (mut spawner, _) in self.spawners {
            drop(spawner.wait());
        }
    }

    fn handle(&mut self, about: u64) {
        match about {
            WAKE => self.do_tasks(),
            SPAWNER => self.reap_spawners(),
            _ => {
                let Some(worker) = self.shared.watch.find(about / KINDS) else { return };
                match about % KINDS {
                    PROCESS => {
                        worker.reap();
                        self.shared.watch.forget(&worker);
                        self.shared.pool.wanted.notify_all();
                    }
                    STDERR => {
                        if worker.take_stderr() == 0 {
                            // Its other end is closed: nothing will come.
                            let _ = epoll::delete(&*self.shared.watch.epoll, &worker.stderr);
                        }
                    }
                    EVENT => worker.take_event(),
                    _ => worker.look_at_memory_events(),
                }
            }
        }
    }

    /// Looks at workers whose memory no cgroup caps; answers when to look again.
    fn check_memory(&self) -> Duration {
        let (mut busy, now) = (false, std::time::Instant::now());
        let watched: Vec<_> =
            self.shared.watch.workers.lock().values().map(|it| Arc::clone(&it.worker)).collect();
        for worker in watched {
            worker.take_services();
            worker.settle_calls(now);
            if !worker.layers.has(Layer::CgroupLimits) {
                worker.check_memory();
            }
            busy |= worker.is_busy();
        }
        if busy { MEMORY_WATCH_PERIOD } else { IDLE_PERIOD }
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

    fn start_spawner(&mut self) -> Result<Spawner, Errno> {
        let (ours, theirs) = wire::pair()?;
        let timeout = Some(WORKER_SETUP_DEADLINE);
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
        let data = epoll::EventData::new_u64(SPAWNER);
        epoll::add(&*self.shared.watch.epoll, &handle, data, epoll::EventFlags::IN)?;
        self.spawners.push((child, handle));
        let (hello, _) = wire::receive::<Hello>(&ours)?.ok_or(Errno::PIPE)?;
        // That it can make process and mount namespaces is told by workers that are in them.
        let own = [Layer::PidNamespace, Layer::MountNamespace];
        let own = own.into_iter().fold(Layers::default(), Layers::with).bits();
        Ok(Spawner { socket: ours, layers: Layers::from_bits(hello.layers & !own) })
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
