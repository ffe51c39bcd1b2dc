//! The registry's client: one connection pool, one refresh under way at a time, one transfer per bundle.
//!
//! ```text
//!            Offer                       Refreshed (fact)
//! idle ───────────────▶ refreshing ──────────────────────▶ idle, everybody who waited is answered
//!   ▲                       │ Offer: waits along
//!   └── Fetch: one transfer per digest, whoever wants the same waits along ── Fetched (fact)
//! ```
//!
//! The actor never waits: transfers run as tasks of their own and tell it how they ended. When it dies, whoever waited is
//! told by the loss of the reply; a transfer that is under way ends by itself, and its part stays for the next attempt.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ractor::{ActorCell, ActorProcessingErr};
use serde::de::DeserializeOwned;
use themis_messages::ids::Digest;
use themis_messages::limits::{AUDIT_DEADLINE, REGISTRY_HASH_DEADLINE, RESOLVE_DEADLINE};
use themis_messages::mailbox::{Admitted, Reply};
use themis_messages::registry::{Progress, RegistryError, Release, RequestStats};
use themis_persistence::registry::{Note, Notes};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use url::Url;

use super::entry::file_name;
use super::fetch::Bundles;
use super::http::{Http, HttpSettings};
use super::index::Offer;
use super::operation::Operation;
use super::trust::{self, Anchor, Memory, TARGETS_DIR};
use crate::environment::Environment;
use crate::role::Role;
use crate::store::StoreMsg;
use crate::work;

/// The operator's choices about the registry.
#[derive(Debug)]
pub struct RegistrySettings {
    /// How it is reached.
    pub http: HttpSettings,
    /// Where it is and where trust in it begins.
    pub anchor: Anchor,
    /// How long one operation may try.
    pub retry_limit: Duration,
    /// Where bundles are kept.
    pub bundles: PathBuf,
    /// Where it is written down what is installed.
    pub lock_file: PathBuf,
    /// Taken by whoever installs: the lock file is one, and so is the plugin root.
    pub(super) installing: tokio::sync::Mutex<()>,
    /// Made when it is first needed: reading the system's certificates takes a while.
    client: OnceLock<Result<Http, RegistryError>>,
}

impl RegistrySettings {
    /// Settings; nothing is opened yet.
    #[must_use]
    pub fn new(
        http: HttpSettings,
        anchor: Anchor,
        retry_limit: Duration,
        bundles: PathBuf,
        lock_file: PathBuf,
    ) -> Self {
        let (installing, client) = (tokio::sync::Mutex::default(), OnceLock::new());
        Self { http, anchor, retry_limit, bundles, lock_file, installing, client }
    }

    /// How long whoever asks the client waits: as long as it may try, and a little for the rest.
    #[must_use]
    pub fn ask_limit(&self) -> Duration {
        self.retry_limit.saturating_add(REGISTRY_HASH_DEADLINE)
    }

    pub(super) fn client(&self) -> Result<Http, RegistryError> {
        self.client.get_or_init(|| Http::new(&self.http)).clone()
    }

    /// Where the bundle of a release is served.
    ///
    /// # Errors
    /// [`RegistryError::Settings`].
    pub fn url_of(&self, release: &Release) -> Result<Url, RegistryError> {
        let file = file_name(&release.plugin, &release.version, release.sha256);
        let url = self.anchor.source.join(TARGETS_DIR).and_then(|targets| targets.join(&file));
        url.map_err(|error| RegistryError::Settings { field: "url", what: error.to_string() })
    }
}

/// What an offer is answered with: what there is, and what it took to know.
pub type Offered = Result<(Arc<Offer>, RequestStats), RegistryError>;

/// What the client is asked and told.
#[derive(Debug)]
pub enum RegistryMsg {
    /// What the registry offers now.
    Offer {
        /// Who wants to know how far it is; whoever comes while a refresh is under way hears nothing of it.
        told: Option<mpsc::Sender<Progress>>,
        /// What there is.
        reply: Reply<Offered>,
    },
    /// A release's bundle, verified to be the one of the metadata.
    Fetch {
        /// Of what.
        release: Box<Release>,
        /// As part of which operation.
        operation: Operation,
        /// Where it is now.
        reply: Reply<Result<PathBuf, RegistryError>>,
    },
    /// What the last request took.
    LastRequest {
        /// Nothing, when there was none yet.
        reply: Reply<Option<RequestStats>>,
    },
    /// A refresh has ended.
    Refreshed {
        /// How.
        offered: Offered,
        /// What it took, also when it failed.
        stats: RequestStats,
    },
    /// A transfer has ended.
    Fetched {
        /// Of which bundle.
        digest: Digest,
        /// How.
        fetched: Result<PathBuf, RegistryError>,
        /// What the operation took so far.
        stats: RequestStats,
    },
}

/// A reply that is owed, with the place in the queue that it holds until then.
struct Waiting<T> {
    reply: Reply<T>,
    _permit: Option<OwnedSemaphorePermit>,
}

type WaitingForBundle = Vec<Waiting<Result<PathBuf, RegistryError>>>;

/// The actor.
pub struct RegistryClient {
    environment: Arc<Environment>,
    refreshing: Vec<Waiting<Offered>>,
    fetching: HashMap<Digest, WaitingForBundle>,
    last: Option<RequestStats>,
}

impl std::fmt::Debug for RegistryClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryClient").finish_non_exhaustive()
    }
}

impl Role for RegistryClient {
    type Msg = RegistryMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        let (refreshing, fetching) = (Vec::new(), HashMap::new());
        Self { environment, refreshing, fetching, last: None }
    }

    async fn handle(
        &mut self,
        _me: &ActorCell,
        admitted: Admitted<RegistryMsg>,
    ) -> Result<(), ActorProcessingErr> {
        let Admitted { message, permit } = admitted;
        match message {
            RegistryMsg::Offer { told, reply } => {
                let is_first = self.refreshing.is_empty();
                self.refreshing.push(Waiting { reply, _permit: permit });
                if is_first {
                    tokio::spawn(refresh(Arc::clone(&self.environment), told));
                }
            }
            RegistryMsg::Fetch { release, operation, reply } => {
                let waiting = self.fetching.entry(release.sha256).or_default();
                let is_first = waiting.is_empty();
                waiting.push(Waiting { reply, _permit: permit });
                if is_first {
                    tokio::spawn(fetch(Arc::clone(&self.environment), *release, operation));
                }
            }
            RegistryMsg::LastRequest { reply } => reply.send(self.last.clone()),
            RegistryMsg::Refreshed { offered, stats } => {
                self.note("metadata", stats, offered.as_ref().err());
                for waiting in self.refreshing.drain(..) {
                    waiting.reply.send(offered.clone());
                }
            }
            RegistryMsg::Fetched { digest, fetched, stats } => {
                self.note("bundle", stats, fetched.as_ref().err());
                for waiting in self.fetching.remove(&digest).unwrap_or_default() {
                    waiting.reply.send(fetched.clone());
                }
            }
        }
        Ok(())
    }
}

impl RegistryClient {
    fn note(&mut self, what: &'static str, stats: RequestStats, failed: Option<&RegistryError>) {
        let outcome = failed.map_or("ok", RegistryError::code);
        let requests = u64::from(stats.attempts);
        metrics::counter!("themis_registry_operations_total", "what" => what, "outcome" => outcome)
            .increment(1);
        metrics::counter!("themis_registry_requests_total", "what" => what).increment(requests);
        metrics::counter!("themis_registry_received_bytes_total", "what" => what)
            .increment(stats.bytes);
        metrics::histogram!("themis_registry_operation_seconds", "what" => what)
            .record(stats.total_time.as_secs_f64());
        self.last = Some(stats);
    }
}

/// The registry, where there is one.
pub(super) fn settings(environment: &Environment) -> Result<&RegistrySettings, RegistryError> {
    environment.settings.registry.as_ref().ok_or(RegistryError::NotConfigured)
}

/// Asks what the registry offers now.
pub(super) async fn ask_offer(
    environment: &Environment,
    told: Option<mpsc::Sender<Progress>>,
) -> Result<Arc<Offer>, RegistryError> {
    let limit = settings(environment)?.ask_limit();
    let registry = &environment.roles.registry;
    let asked = registry.ask(limit, |reply| RegistryMsg::Offer { told, reply });
    Ok(asked.await??.0)
}

/// Refreshes and tells the actor, whoever is behind its role by then.
async fn refresh(environment: Arc<Environment>, told: Option<mpsc::Sender<Progress>>) {
    let limit = settings(&environment).map_or(Duration::ZERO, |settings| settings.retry_limit);
    let operation = Operation::start(limit, told);
    let offer = offer(&environment, &operation).await;
    let stats = operation.stats();
    let offered = offer.map(|offer| (Arc::new(offer), stats.clone()));
    environment.roles.registry.tell(RegistryMsg::Refreshed { offered, stats });
}

async fn offer(
    environment: &Arc<Environment>,
    operation: &Operation,
) -> Result<Offer, RegistryError> {
    operation.tell(Progress::Metadata);
    let settings = settings(environment)?;
    let http = client(environment).await?;
    let note = Note::Trust(settings.anchor.home.to_string());
    let memory: Memory = recall(environment, note.clone()).await?.unwrap_or_default();
    let refreshed = trust::refresh(&settings.anchor, &http, operation, &memory, None).await;
    let (repository, learnt) = refreshed?;
    // Before it is used: what was believed once must be remembered, whatever happens next.
    remember(environment, Notes::default().with(&note, &learnt)).await?;
    let read = work::run("offer", RESOLVE_DEADLINE, move || Offer::read(&repository)).await;
    let offer = read.map_err(|error| RegistryError::Memory {
        registry: settings.anchor.home.to_string(),
        what: error.to_string(),
    })??;
    for refused in &offer.refused {
        tracing::warn!(code = refused.code(), %refused, "an entry of the registry is passed over");
    }
    Ok(offer)
}

async fn client(environment: &Arc<Environment>) -> Result<Http, RegistryError> {
    let environment = Arc::clone(environment);
    let made = work::run("tls", RESOLVE_DEADLINE, move || settings(&environment)?.client());
    made.await.map_err(|error| RegistryError::Settings { field: "ca", what: error.to_string() })?
}

async fn fetch(environment: Arc<Environment>, release: Release, operation: Operation) {
    let fetched = transfer(&environment, &release, &operation).await;
    let (digest, stats) = (release.sha256, operation.stats());
    environment.roles.registry.tell(RegistryMsg::Fetched { digest, fetched, stats });
}

async fn transfer(
    environment: &Arc<Environment>,
    release: &Release,
    operation: &Operation,
) -> Result<PathBuf, RegistryError> {
    let settings = settings(environment)?;
    let url = settings.url_of(release)?;
    let http = client(environment).await?;
    Bundles::in_dir(settings.bundles.clone()).fetch(&http, operation, &url, release).await
}

/// Reads a note.
///
/// # Errors
/// [`RegistryError::Memory`]: never "nothing known" for what cannot be read.
pub async fn recall<T: DeserializeOwned>(
    environment: &Environment,
    note: Note,
) -> Result<Option<T>, RegistryError> {
    let ask = environment.roles.store.ask(AUDIT_DEADLINE, |reply| StoreMsg::Recall { note, reply });
    let known = ask.await?.map_err(|error| damaged(environment, &error))?;
    let read = known.map(serde_json::from_value).transpose();
    read.map_err(|error| damaged(environment, &error))
}

/// Writes notes, durably and together.
///
/// # Errors
/// [`RegistryError::Memory`].
pub async fn remember(environment: &Environment, notes: Notes) -> Result<(), RegistryError> {
    let ask =
        environment.roles.store.ask(AUDIT_DEADLINE, |reply| StoreMsg::Remember { notes, reply });
    ask.await?.map_err(|error| damaged(environment, &error))
}

fn damaged(environment: &Environment, error: &dyn std::fmt::Display) -> RegistryError {
    let home = settings(environment).map(|settings| settings.anchor.home.to_string());
    RegistryError::Memory { registry: home.unwrap_or_default(), what: error.to_string() }
}
