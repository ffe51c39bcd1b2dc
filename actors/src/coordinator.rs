//! Accepts lifecycle requests and hands each to who carries it out.
//!
//! ```text
//! Replace, Restart ──▶ a Reload actor of its own, linked here
//! RollbackSet      ──▶ a task of its own
//! Rollback         ──▶ the plugin's actor
//! Unload           ──▶ the plugin's actor, unless others need the plugin
//! ```
//!
//! A request keeps its place in the queue until it is answered, so the queue's bound is also the bound of
//! operations under way. The coordinator keeps no state: when it dies, operations under way die with it, which
//! gives their claims back, and whoever asked is told.

use std::sync::Arc;
use std::time::Instant;

use ractor::{Actor, ActorCell, ActorProcessingErr};
use themis_messages::ids::PluginName;
use themis_messages::lifecycle::{
    KernelFault, Operation, ReloadReceipt, RollbackError, UnloadError,
};
use themis_messages::mailbox::{Admitted, Reply};
use tokio::sync::OwnedSemaphorePermit;

use crate::environment::Environment;
use crate::generation::Generation;
use crate::plugin::{PluginMsg, RollbackRequest};
use crate::reload::member::Target;
use crate::reload::{Reload, Request, Run, dependencies};
use crate::role::{Ended, Role};
use crate::rollback_set;
use crate::slot::Slot;

/// What the coordinator is asked.
#[derive(Debug)]
pub enum CoordinatorMsg {
    /// Load a first version, or replace one, or several together.
    Replace(Box<Request>),
    /// A plugin that is not well is to be started again.
    Restart {
        /// What is not well.
        generation: Arc<Generation>,
    },
    /// Back to the warm previous version.
    Rollback {
        /// The plugin.
        plugin: PluginName,
        /// Who asked.
        actor: String,
        /// When.
        requested: Instant,
        /// What serves now.
        reply: Reply<Result<ReloadReceipt, RollbackError>>,
    },
    /// Several plugins back to their warm previous versions, or none of them.
    RollbackSet {
        /// The plugins.
        plugins: Vec<PluginName>,
        /// Who asked.
        actor: String,
        /// When.
        requested: Instant,
        /// What serves now.
        reply: Reply<Result<Vec<ReloadReceipt>, RollbackError>>,
    },
    /// Stop serving, drain, shut down.
    Unload {
        /// The plugin.
        plugin: PluginName,
        /// Who asked.
        actor: String,
        /// Answered when nothing is inside any more.
        reply: Reply<Result<(), UnloadError>>,
    },
}

/// Accepts lifecycle requests.
#[derive(Debug)]
pub struct Coordinator(Arc<Environment>);

impl Role for Coordinator {
    type Msg = CoordinatorMsg;
    type Seed = Arc<Environment>;

    fn start(environment: Arc<Environment>) -> Self {
        Self(environment)
    }

    async fn handle(
        &mut self,
        me: &ActorCell,
        admitted: Admitted<CoordinatorMsg>,
    ) -> Result<(), ActorProcessingErr> {
        let Admitted { message, permit } = admitted;
        match message {
            CoordinatorMsg::Replace(request) => self.begin(me, *request, permit).await,
            CoordinatorMsg::Restart { generation } => {
                let (reply, _nobody) = Reply::channel();
                let request = Request {
                    operation: Operation::Restart,
                    targets: vec![Target::Again(generation)],
                    actor: "kernel".to_owned(),
                    requested: Instant::now(),
                    reply,
                };
                self.begin(me, request, permit).await
            }
            CoordinatorMsg::Rollback { plugin, actor, requested, reply } => {
                let Some(slot) = self.0.directory.find(plugin.as_str()) else {
                    reply.send(Err(RollbackError::NotLoaded { plugin }));
                    return Ok(());
                };
                let request = RollbackRequest { actor, requested, claim: None, reply };
                forward(slot, PluginMsg::Rollback(request));
                Ok(())
            }
            CoordinatorMsg::RollbackSet { plugins, actor, requested, reply } => {
                let environment = Arc::clone(&self.0);
                tokio::spawn(async move {
                    let _permit = permit;
                    reply.send(rollback_set::run(&environment, plugins, actor, requested).await);
                });
                Ok(())
            }
            CoordinatorMsg::Unload { plugin, actor, reply } => {
                unload(&self.0, plugin, actor, reply);
                Ok(())
            }
        }
    }

    /// Operations are temporary: their end, good or bad, is their own.
    async fn child_ended(
        &mut self,
        _me: &ActorCell,
        ended: Ended,
    ) -> Result<(), ActorProcessingErr> {
        tracing::debug!(why = ended.why, "an operation is over");
        Ok(())
    }
}

impl Coordinator {
    async fn begin(
        &self,
        me: &ActorCell,
        request: Request,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), ActorProcessingErr> {
        let started = Actor::spawn_linked(None, Reload, Arc::clone(&self.0), me.clone()).await;
        match started {
            Ok((reload, _ended)) => reload.cast(Run { request, _permit: permit })?,
            Err(error) => {
                tracing::error!(%error, "a reload could not be started");
                let stopped = KernelFault::Stopped { role: "reload" };
                request.reply.send(Err(stopped.into()));
            }
        }
        Ok(())
    }
}

fn unload(
    environment: &Environment,
    plugin: PluginName,
    actor: String,
    reply: Reply<Result<(), UnloadError>>,
) {
    let directory = &environment.directory;
    let Some(slot) = directory.find(plugin.as_str()) else {
        return reply.send(Err(UnloadError::NotLoaded { plugin }));
    };
    let dependents = dependencies::dependents(directory, &plugin);
    let mut needed_by: Vec<_> = dependents.into_iter().map(|(name, _versions)| name).collect();
    if !needed_by.is_empty() {
        needed_by.sort();
        return reply.send(Err(UnloadError::Needed { plugin, needed_by }));
    }
    forward(slot, PluginMsg::Unload { actor, reply });
}

/// A request that its plugin's actor does not take loses its reply, which its sender sees at once.
fn forward(slot: &Slot, request: PluginMsg) {
    if let Err(fault) = slot.mailbox().send(request) {
        tracing::warn!(plugin = %slot.name(), %fault, "a request was not taken");
    }
}
