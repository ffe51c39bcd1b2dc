//! Installing: from what is wanted to plugins in their places, all of them or none.
//!
//! ```text
//! metadata ─▶ plan ─▶ agreed? ─▶ bundles ─▶ verified ─▶ staged ─▶ in place ─▶ loaded ─▶ lock file, floors, audit
//!    └────────────── any failure: what was put in place is taken away again, what served still serves ────┘
//! ```
//!
//! Nothing of a bundle counts before it was verified against the publisher's pinned key, as the loader does it; what the
//! registry said of it must then be what the publisher signed. One installation at a time: the lock file is one.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use themis_messages::admit::AdmitError;
use themis_messages::audit::{AuditEntry, AuditEvent, AuditOutcome};
use themis_messages::ids::{Digest, PluginName, PluginVersion};
use themis_messages::lifecycle::{LoadError, LoadRequest, Operation as Change};
use themis_messages::limits::{
    ADMIT_DEADLINE, ASK_DEADLINE, OPERATION_DEADLINE, ROLLBACK_DEADLINE,
};
use themis_messages::registry::{
    InstallReport, InstallRequest, Installed, Progress, RegistryError, Release, Resolved, Wanted,
};
use themis_persistence::registry::{Note, Notes};
use themis_sandbox::admission::VerifiedBundle;
use tokio::sync::mpsc;

use super::client::{RegistryMsg, RegistrySettings, ask_offer, recall, remember, settings};
use super::fetch::Bundles;
use super::index::Offer;
use super::lock::{Lock, Locked};
use super::operation::Operation;
use super::place::{STAGING, clear, is_intact, put, take_away};
use super::plan::{self, InstallPlan};
use crate::coordinator::CoordinatorMsg;
use crate::environment::Environment;
use crate::reload::Request;
use crate::reload::member::{Replaces, Target};
use crate::work;

/// An installation under way.
struct Installation<'i> {
    environment: &'i Arc<Environment>,
    settings: &'i RegistrySettings,
    request: &'i InstallRequest,
    operation: Operation,
    actor: &'i str,
    lock: Lock,
}

/// A plugin whose files are ready to be moved to their place.
struct Ready {
    release: Release,
    files: BTreeMap<String, Digest>,
    staged: PathBuf,
    place: PathBuf,
}

/// Installs what is wanted and everything it needs.
///
/// # Errors
/// [`RegistryError`]: then nothing was changed.
pub async fn install(
    environment: &Arc<Environment>,
    request: &InstallRequest,
    actor: &str,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<InstallReport, RegistryError> {
    let settings = settings(environment)?;
    let _alone = settings.installing.lock().await;
    let installed = install_alone(environment, settings, request, actor, told).await;
    if let Err(error) = &installed {
        let mut entry = AuditEntry::new(AuditEvent::Install, AuditOutcome::Failed, actor);
        entry.plugin = request.wanted.first().map(|it| it.plugin.clone());
        entry.code = Some(error.code().to_owned());
        entry.reason = Some(error.to_string());
        environment.record(entry).await?;
    }
    installed
}

async fn install_alone(
    environment: &Arc<Environment>,
    settings: &RegistrySettings,
    request: &InstallRequest,
    actor: &str,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<InstallReport, RegistryError> {
    let path = settings.lock_file.clone();
    let lock = off_thread(&settings.lock_file, "read", move || Lock::read(&path)).await?;
    let operation = Operation::start(settings.retry_limit, told.clone());
    let installation = Installation { environment, settings, request, operation, actor, lock };
    let plan = installation.plan(told).await?;
    installation.run(plan).await
}

/// Where a plugin is, in the version that an installation would choose now, and what goes with it.
///
/// # Errors
/// [`RegistryError`].
pub async fn find(
    environment: &Arc<Environment>,
    wanted: Wanted,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<Resolved, RegistryError> {
    let settings = settings(environment)?;
    let offer = ask_offer(environment, told).await?;
    let plugin = wanted.plugin.clone();
    let request = InstallRequest { wanted: vec![wanted], ..InstallRequest::default() };
    // As if nothing were installed: what is newest, and not what is kept.
    let plan = choose(offer, Lock::default(), request).await?;
    plan::resolved(settings, plan, &plugin)
}

impl Installation<'_> {
    async fn plan(
        &self,
        told: Option<mpsc::Sender<Progress>>,
    ) -> Result<InstallPlan, RegistryError> {
        let (lock, request) = (self.lock.clone(), self.request.clone());
        if self.request.offline {
            return plan::from_lock(&lock, &request);
        }
        let offer = ask_offer(self.environment, told).await?;
        self.operation.tell(Progress::Resolving);
        choose(offer, lock, request).await
    }

    async fn run(self, plan: InstallPlan) -> Result<InstallReport, RegistryError> {
        let mut report = InstallReport::default();
        let mut waiting = Vec::new();
        for (planned, release) in plan.steps.into_iter().zip(plan.releases) {
            self.check(&release).await?;
            if self.is_in_place(&release).await? {
                report.unchanged.push(planned);
            } else {
                waiting.push(release);
            }
        }
        let mut ready = Vec::new();
        let staging = self.staging().await?;
        for release in waiting {
            ready.push(self.prepare(release, staging.path()).await?);
        }
        let placed = self.place(&ready).await?;
        // What is about to load is above its floor, or somebody meant it to be below.
        let floors = |it: &Ready| {
            let (plugin, version) = (it.release.plugin.clone(), it.release.version.clone());
            let before = self.environment.set_floor(&plugin, Some(version));
            (plugin, before)
        };
        let floors: Vec<_> = ready.iter().map(floors).collect();
        match self.finish(&ready).await {
            Ok(installed) => report.installed = installed,
            Err(error) => {
                for (plugin, before) in floors {
                    self.environment.set_floor(&plugin, before);
                }
                take_away(placed).await;
                return Err(error);
            }
        }
        report.stats = self.operation.stats();
        Ok(report)
    }

    /// Whether what is known of a plugin allows this version.
    async fn check(&self, release: &Release) -> Result<(), RegistryError> {
        let (plugin, version) = (release.plugin.clone(), release.version.clone());
        if let Some(seen) =
            recall(self.environment, Note::Seen(plugin.clone(), version.clone())).await?
            && seen != release.sha256
        {
            let (seen, now) = (Box::new(seen), Box::new(release.sha256));
            return Err(RegistryError::Equivocation { plugin, version, seen, now });
        }
        let floor: Option<PluginVersion> =
            recall(self.environment, Note::Floor(plugin.clone())).await?;
        if let Some(floor) = floor.filter(|floor| version < *floor && !self.request.downgrade) {
            return Err(RegistryError::Downgrade { plugin, version, floor });
        }
        let home = self.settings.anchor.home.to_string();
        let before = self.lock.find(&plugin);
        if let Some(before) = before.filter(|it| it.registry != home) {
            let bound = Box::new((before.registry.clone(), home));
            return Err(RegistryError::Bound { plugin, bound });
        }
        if self.request.approve {
            return Ok(());
        }
        // The key is remembered apart from the lock file: taking a plugin out of that does not make it another's.
        let key = recall(self.environment, Note::Publisher(plugin.clone())).await?;
        let key = key.or_else(|| before.map(|it| it.release.key_id));
        match plan::news(before.map(|it| &it.release), key, release) {
            what if what.is_empty() => Ok(()),
            what => Err(RegistryError::Approval { plugin, what }),
        }
    }

    /// What is installed in this version already stays where it is.
    async fn is_in_place(&self, release: &Release) -> Result<bool, RegistryError> {
        let same = |locked: &&Locked| {
            locked.release.version == release.version && locked.release.sha256 == release.sha256
        };
        let Some(locked) = self.lock.find(&release.plugin).filter(same) else { return Ok(false) };
        is_intact(&self.place_of(release), &locked.files).await
    }

    fn place_of(&self, release: &Release) -> PathBuf {
        let root = self.environment.settings.root.path();
        root.join(release.plugin.as_str()).join(release.version.to_string())
    }

    async fn staging(&self) -> Result<tempfile::TempDir, RegistryError> {
        let root = self.environment.settings.root.path().to_owned();
        let made = root.clone();
        off_thread(&root, "write in", move || {
            clear(&made)?;
            let staging = tempfile::Builder::new().prefix(STAGING).tempdir_in(&made);
            staging.map_err(|error| RegistryError::io(&made, "write in", &error))
        })
        .await
    }

    /// Fetches, verifies and unpacks one.
    async fn prepare(&self, release: Release, staging: &Path) -> Result<Ready, RegistryError> {
        let bundle = self.bundle(&release).await?;
        let (plugin, version) = (release.plugin.clone(), release.version.clone());
        self.operation.tell(Progress::Verifying { plugin: plugin.clone(), version });
        let staged = staging.join(plugin.as_str());
        let (environment, to) = (Arc::clone(self.environment), staged.clone());
        let (expected, from) = (release.clone(), bundle.clone());
        let files = off_thread(&bundle, "verify", move || {
            let policy = &environment.settings.policy;
            let verified = VerifiedBundle::by_policy(&from, policy, jiff::Timestamp::now());
            let verified = verified.map_err(|error| refused(&expected, &error))?;
            agree(&verified, &expected)?;
            let made = std::fs::DirBuilder::new().mode(0o755).create(&to);
            made.map_err(|error| RegistryError::io(&to, "make", &error))?;
            verified.unpack(&to).map_err(|error| refused(&expected, &error))?;
            let files = verified.summary.manifest.files.iter();
            Ok(files.map(|file| (file.path.clone(), file.sha256)).collect())
        });
        let files = files.await?;
        let place = self.place_of(&release);
        Ok(Ready { release, files, staged, place })
    }

    async fn bundle(&self, release: &Release) -> Result<PathBuf, RegistryError> {
        if self.request.offline {
            let held = Bundles::in_dir(self.settings.bundles.clone()).held(release).await?;
            let what = || format!("the bundle of {} {}", release.plugin, release.version);
            return held.ok_or_else(|| RegistryError::Offline { what: what() });
        }
        let (registry, limit) = (&self.environment.roles.registry, self.settings.ask_limit());
        let fetch = |reply| {
            let (release, operation) = (Box::new(release.clone()), self.operation.clone());
            RegistryMsg::Fetch { release, operation, reply }
        };
        let fetched = registry.ask(limit, fetch).await?;
        let mut entry = self.entry(AuditEvent::Fetch, release);
        if let Err(error) = &fetched {
            entry.outcome = AuditOutcome::Refused;
            entry.code = Some(error.code().to_owned());
            entry.reason = Some(error.to_string());
        }
        // A download that cannot be recorded is not used.
        self.environment.record(entry).await?;
        fetched
    }

    /// Moves all of them to their places.
    async fn place(&self, ready: &[Ready]) -> Result<Vec<PathBuf>, RegistryError> {
        let mut placed = Vec::new();
        for it in ready {
            let (plugin, version) = (it.release.plugin.clone(), it.release.version.clone());
            self.operation.tell(Progress::Installing { plugin, version });
            let (from, to) = (it.staged.clone(), it.place.clone());
            match off_thread(&it.place, "install", move || put(&from, &to)).await {
                Ok(true) => placed.push(it.place.clone()),
                Ok(false) => {}
                Err(error) => {
                    take_away(placed).await;
                    return Err(error);
                }
            }
        }
        Ok(placed)
    }

    /// Loads what was loaded before in its new version, and writes down what is installed now; what cannot be written down
    /// does not stay.
    async fn finish(&self, ready: &[Ready]) -> Result<Vec<Installed>, RegistryError> {
        let serving = self.reload(ready).await?;
        let written = self.write_down(ready).await;
        if let Err(error) = written {
            self.roll_back(&serving).await;
            return Err(error);
        }
        let installed = |it: &Ready| {
            let (plugin, version) = (it.release.plugin.clone(), it.release.version.clone());
            Installed {
                replaced: self.lock.find(&plugin).map(|it| it.release.version.clone()),
                serves: serving.contains(&plugin),
                sha256: it.release.sha256,
                path: format!("{plugin}/{version}"),
                plugin,
                version,
            }
        };
        Ok(ready.iter().map(installed).collect())
    }

    async fn write_down(&self, ready: &[Ready]) -> Result<(), RegistryError> {
        let (mut notes, mut before, mut lock) =
            (Notes::default(), Notes::default(), self.lock.clone());
        for it in ready {
            let (plugin, version) = (it.release.plugin.clone(), it.release.version.clone());
            let floor = Note::Floor(plugin.clone());
            before = match recall::<PluginVersion>(self.environment, floor.clone()).await? {
                Some(known) => before.with(&floor, &known),
                None => before.without(&floor),
            };
            notes = notes
                .with(&Note::Seen(plugin.clone(), version.clone()), &it.release.sha256)
                .with(&Note::Publisher(plugin), &it.release.key_id)
                .with(&floor, &version);
            lock.put(self.locked(it));
        }
        // The floor before the lock file: after a crash in between, the older version is refused and not the newer.
        remember(self.environment, notes).await?;
        let written = self.record_and_lock(ready, lock).await;
        if written.is_err()
            && let Err(error) = remember(self.environment, before).await
        {
            tracing::error!(%error, "floors stay where an installation that failed has set them");
        }
        written
    }

    /// The lock file last: with it the installation is done.
    async fn record_and_lock(&self, ready: &[Ready], lock: Lock) -> Result<(), RegistryError> {
        for it in ready {
            let entry = self.entry(AuditEvent::Install, &it.release);
            self.environment.record(entry).await?;
        }
        let path = self.settings.lock_file.clone();
        off_thread(&self.settings.lock_file, "write", move || lock.write(&path)).await
    }

    /// Brings back what served before.
    async fn roll_back(&self, serving: &[PluginName]) {
        if serving.is_empty() {
            return;
        }
        let count = u32::try_from(serving.len()).unwrap_or(u32::MAX);
        let limit = ROLLBACK_DEADLINE.saturating_mul(count).saturating_add(ASK_DEADLINE);
        let (plugins, actor) = (serving.to_vec(), self.actor.to_owned());
        let asked = self.environment.roles.coordinator.ask(limit, |reply| {
            CoordinatorMsg::RollbackSet { plugins, actor, requested: Instant::now(), reply }
        });
        let told = match asked.await {
            Ok(Ok(_receipts)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(fault) => fault.to_string(),
        };
        tracing::error!(error = told, "what an installation that failed has loaded serves on");
    }

    /// That something was done with a release.
    fn entry(&self, event: AuditEvent, release: &Release) -> AuditEntry {
        let mut entry = AuditEntry::new(event, AuditOutcome::Done, self.actor);
        entry.plugin = Some(release.plugin.clone());
        entry.version = Some(release.version.clone());
        entry.digest = Some(release.sha256);
        entry.key_id = Some(release.key_id);
        entry
    }

    fn locked(&self, ready: &Ready) -> Locked {
        let plugin = &ready.release.plugin;
        let asked = self.request.wanted.iter().find(|it| it.plugin == *plugin);
        let before = self.lock.find(plugin).and_then(|it| it.wanted.clone());
        Locked {
            registry: self.settings.anchor.home.to_string(),
            wanted: asked.map(|it| it.version.clone()).or(before),
            release: ready.release.clone(),
            files: ready.files.clone(),
        }
    }

    /// Reloads those of them that serve, together or not at all.
    async fn reload(&self, ready: &[Ready]) -> Result<Vec<PluginName>, RegistryError> {
        let serves = |it: &&Ready| {
            let slot = self.environment.directory.find(it.release.plugin.as_str());
            slot.is_some_and(|slot| slot.is_serving())
        };
        let loaded: Vec<&Ready> = ready.iter().filter(serves).collect();
        let Some(first) = loaded.first() else { return Ok(Vec::new()) };
        let targets = loaded.iter().map(|it| Target::Files {
            load: Box::new(LoadRequest::at(&it.place)),
            replaces: Replaces::Whatever,
        });
        let (targets, actor) = (targets.collect::<Vec<_>>(), self.actor.to_owned());
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        let (operation, requested) = (Change::Reload, Instant::now());
        let limit = OPERATION_DEADLINE.saturating_mul(count);
        let ask = self.environment.roles.coordinator.ask(limit, |reply| {
            let request = Request { operation, targets, actor, requested, reply };
            CoordinatorMsg::Replace(Box::new(request))
        });
        ask.await?.map_err(|error| not_loaded(&first.release, &error))?;
        Ok(loaded.into_iter().map(|it| it.release.plugin.clone()).collect())
    }
}

/// Chooses on a thread of its own: it may take as long as it may take.
pub(super) async fn choose(
    offer: Arc<Offer>,
    lock: Lock,
    request: InstallRequest,
) -> Result<InstallPlan, RegistryError> {
    let chosen =
        work::run("resolve", OPERATION_DEADLINE, move || plan::choose(&offer, &lock, &request));
    chosen.await.map_err(|error| RegistryError::Resolve {
        code: "resolve.failed",
        message: format!("no versions were chosen: {error}"),
    })?
}

/// What the registry said of a bundle must be what its publisher signed.
fn agree(bundle: &VerifiedBundle, release: &Release) -> Result<(), RegistryError> {
    let (summary, manifest) = (&bundle.summary, &bundle.summary.manifest);
    let entry = super::entry::Entry::of(manifest, summary.manifest_digest, &summary.signature);
    let Some((field, manifest, entry)) = entry.difference(release) else { return Ok(()) };
    let (plugin, version) = (release.plugin.clone(), release.version.clone());
    let both = Box::new((manifest, entry));
    Err(RegistryError::Differs { plugin, version, field, both })
}

fn refused(release: &Release, error: &AdmitError) -> RegistryError {
    let (plugin, version) = (release.plugin.clone(), release.version.clone());
    if matches!(error, AdmitError::KeyUnknown { .. }) {
        return RegistryError::Publisher { plugin, key: release.key_id };
    }
    RegistryError::Bundle { plugin, version, code: error.code(), message: error.to_string() }
}

fn not_loaded(release: &Release, error: &LoadError) -> RegistryError {
    let (plugin, version) = (release.plugin.clone(), release.version.clone());
    RegistryError::Load { plugin, version, code: error.code(), message: error.to_string() }
}

pub(super) async fn off_thread<T: Send + 'static>(
    path: &Path,
    action: &'static str,
    job: impl FnOnce() -> Result<T, RegistryError> + Send + 'static,
) -> Result<T, RegistryError> {
    match work::run("install", ADMIT_DEADLINE, job).await {
        Ok(result) => result,
        Err(error) => Err(RegistryError::io(path, action, &std::io::Error::other(error))),
    }
}
