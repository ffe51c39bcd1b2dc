//! Plugins that fail: failed loads, failed health checks, calls that never end; restarts and quarantine.
//!
//! How often is [`failures`](super::failures)' to say; here its decisions are carried out. A restart goes
//! through the coordinator like a reload: a new instance of the same image, proved before it takes over.

use std::sync::Arc;
use std::time::Duration;

use themis_messages::audit::{AuditEvent, AuditOutcome};
use themis_messages::event::LifecycleEvent;
use themis_messages::ids::{Digest, GenerationId, PluginVersion};
use themis_messages::instance::HookError;
use themis_messages::lifecycle::{Quarantine, ReleaseError};
use themis_messages::probation::Fault;
use themis_messages::sandbox::Verdict;

use super::PluginActor;
use super::failures::Decision;
use super::machine::Event;
use super::messages::PluginFact;
use crate::coordinator::CoordinatorMsg;

impl PluginActor {
    pub(super) fn restarts(&self) -> usize {
        let rules = &self.environment.settings.failures;
        self.ledger.failures.restarts(rules, self.environment.since.elapsed())
    }

    pub(super) fn load_failed(
        &mut self,
        digest: Digest,
        version: PluginVersion,
        code: &'static str,
        reason: String,
        stuck: bool,
    ) {
        let rules = self.environment.settings.failures;
        let too_often = self.ledger.failures.load_failed(&rules, digest);
        if stuck {
            self.quarantine(digest, version, code, reason);
        } else if too_often {
            let often = rules.failed_loads;
            let reason = format!("{often} loads failed one after the other, the last: {reason}");
            self.quarantine(digest, version, code, reason);
        }
    }

    pub(super) fn heard_of_health(
        &mut self,
        generation: GenerationId,
        outcome: Result<(), HookError>,
    ) {
        if self.ledger.machine.current() != Some(generation) {
            return;
        }
        let Err(error) = outcome else {
            self.ledger.unwell = None;
            return;
        };
        if matches!(error, HookError::Deadline { .. }) {
            self.take_note(Event::Pin(generation));
        }
        let reason = format!("health check: {error}");
        tracing::warn!(plugin = %self.slot.name(), %generation, reason, "unwell");
        metrics::counter!("themis_health_failures_total", "plugin" => self.slot.name().to_string())
            .increment(1);
        self.ledger.unwell = Some(reason.clone());
        let plugin = self.slot.name().clone();
        let unwell = LifecycleEvent::Unwell { plugin, generation, reason: reason.clone() };
        self.environment.events.emit(unwell);
        if !self.failed_on_trial(generation, Fault::Health) {
            self.decide(generation, &reason);
        }
    }

    /// Has the end of what serves told; and what it replaced is of no use for a rollback if it has ended.
    pub(super) fn watch_end(&mut self, generation: GenerationId) {
        if let Some(serves) = self.ledger.generations.get(&generation) {
            let slot = self.slot;
            let told = move |verdict| slot.tell(PluginFact::Ended { generation, verdict });
            serves.instance.on_end(Box::new(told));
        }
        let previous = self.ledger.machine.previous();
        if let Some(ended) = previous.filter(|it| self.ledger.ended.contains(it)) {
            self.take_note(Event::Lost(ended));
        }
    }

    /// The process of a generation is gone. What serves is restarted, or swapped back while it is on probation; what was
    /// kept for a rollback is of no use any more.
    pub(super) fn ended(&mut self, generation: GenerationId, verdict: &Verdict) {
        let Some(ended) = self.ledger.generations.get(&generation).map(Arc::clone) else { return };
        self.ledger.ended.insert(generation);
        let plugin = self.slot.name().clone();
        tracing::error!(%plugin, %generation, code = verdict.code(), %verdict, "a worker ended");
        metrics::counter!(
            "themis_worker_ends_total",
            "plugin" => plugin.to_string(), "reason" => verdict.reason()
        )
        .increment(1);
        let mut entry = self.entry(AuditEvent::WorkerEnd, AuditOutcome::Failed, "kernel");
        super::describe(&mut entry, Some(&ended));
        entry.code = Some(verdict.code().to_owned());
        entry.reason = Some(verdict.to_string());
        self.environment.note(entry);
        let (version, verdict) = (ended.version().clone(), verdict.clone());
        let (reason, verdict_is_its_own) = (verdict.to_string(), verdict.is_its_own());
        let told = LifecycleEvent::WorkerEnded { plugin, version, generation, verdict };
        self.environment.events.emit(told);
        if self.ledger.machine.current() != Some(generation) {
            return self.take_note(Event::Lost(generation));
        }
        self.ledger.unwell = Some(reason.clone());
        // What somebody else did to it says nothing about the version.
        if !verdict_is_its_own || !self.failed_on_trial(generation, Fault::Ended) {
            self.decide(generation, &reason);
        }
    }

    /// An operation has ended, and what it left serving has no process: it failed to replace it, or came before its
    /// restart.
    pub(super) fn look_after_the_dead(&mut self) {
        let current = self.ledger.current().map(|it| (it.id, it.digest));
        let Some((generation, digest)) = current else { return };
        if !self.ledger.ended.contains(&generation) || self.busy().is_some() {
            return;
        }
        let quarantined = self.ledger.quarantined.get(&digest).map(|it| it.reason.clone());
        match quarantined {
            Some(reason) => {
                self.ledger.out_of_service = Some(reason);
                self.ledger.trial = None;
                self.publish_ledger();
                self.take_note(Event::Withdraw(generation));
            }
            None => {
                let reason = self.ledger.unwell.clone();
                self.decide(generation, reason.as_deref().unwrap_or("its worker ended"));
            }
        }
    }

    fn decide(&mut self, generation: GenerationId, reason: &str) {
        let rules = self.environment.settings.failures;
        let now = self.environment.since.elapsed();
        match self.ledger.failures.unwell(&rules, generation, now) {
            Decision::Wait => {}
            Decision::Restart { attempt, wait } => {
                let plugin = self.slot.name().clone();
                self.environment.events.emit(LifecycleEvent::RestartDue { plugin, attempt, wait });
                let slot = self.slot;
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    slot.tell(PluginFact::RestartDue { generation });
                });
            }
            Decision::Quarantine { restarts } => {
                let reason = format!("restarted {restarts} times and not well again: {reason}");
                self.withdraw(generation, "restart.spent", reason);
            }
        }
        self.ledger.restarts = self.restarts();
    }

    /// Out of service and quarantined; said before the pointer is taken away, so that whoever finds nothing
    /// serving is told why.
    fn withdraw(&mut self, generation: GenerationId, code: &'static str, reason: String) {
        let Some(failed) = self.ledger.generations.get(&generation).map(Arc::clone) else { return };
        self.ledger.out_of_service = Some(reason.clone());
        self.ledger.trial = None;
        self.publish_ledger();
        self.take_note(Event::Withdraw(generation));
        self.quarantine(failed.digest, failed.version().clone(), code, reason);
    }

    pub(super) fn restart_due(&mut self, generation: GenerationId) {
        let current = self.ledger.current().filter(|it| it.id == generation).map(Arc::clone);
        let due = self.ledger.failures.take_due(generation);
        // While another operation is under way it may replace what is unwell; if not, the next check tells, or for what
        // has ended, that operation's end.
        let (Some(current), true, None) = (current, due, self.busy()) else { return };
        self.environment.roles.coordinator.tell(CoordinatorMsg::Restart { generation: current });
    }

    pub(super) fn call_stuck(&mut self, generation: GenerationId, limit: Duration) {
        let Some(stuck) = self.ledger.generations.get(&generation).map(Arc::clone) else { return };
        if self.ledger.quarantined.contains_key(&stuck.digest) {
            return;
        }
        let reason = format!("a call did not end while another waited {limit:?} for its turn");
        if self.ledger.machine.current() == Some(generation) {
            self.ledger.out_of_service = Some(reason.clone());
            self.ledger.trial = None;
            self.publish_ledger();
        }
        self.take_note(Event::Stuck(generation));
        self.quarantine(stuck.digest, stuck.version().clone(), "call.serial_wait", reason);
    }

    pub(super) fn quarantine(
        &mut self,
        digest: Digest,
        version: PluginVersion,
        code: &'static str,
        reason: String,
    ) {
        let plugin = self.slot.name().clone();
        tracing::error!(%plugin, %version, %digest, code, reason, "quarantined");
        metrics::counter!("themis_quarantines_total").increment(1);
        let mut entry = self.entry(AuditEvent::Quarantine, AuditOutcome::Done, "kernel");
        entry.version = Some(version.clone());
        entry.digest = Some(digest);
        entry.code = Some(code.to_owned());
        entry.reason = Some(reason.clone());
        self.environment.note(entry);
        if self.ledger.machine.current().is_none() {
            self.ledger.out_of_service = Some(reason.clone());
        }
        let quarantined =
            LifecycleEvent::Quarantined { plugin: plugin.clone(), digest, reason: reason.clone() };
        self.environment.events.emit(quarantined);
        let (code, since) = (code.to_owned(), jiff::Timestamp::now());
        let quarantine = Quarantine { plugin, version, digest, code, reason, since };
        self.ledger.quarantined.insert(digest, quarantine);
    }

    pub(super) fn release(
        &mut self,
        digest: Option<Digest>,
        actor: &str,
    ) -> Result<Vec<Quarantine>, ReleaseError> {
        let plugin = self.slot.name().clone();
        let wanted = |it: &Digest| digest.is_none_or(|digest| digest == *it);
        let (released, kept) =
            std::mem::take(&mut self.ledger.quarantined).into_iter().partition(|it| wanted(&it.0));
        self.ledger.quarantined = kept;
        let released: std::collections::BTreeMap<_, _> = released;
        if released.is_empty() {
            return Err(ReleaseError::NotQuarantined { plugin });
        }
        if self.ledger.quarantined.is_empty() {
            self.ledger.out_of_service = None;
        }
        for (digest, quarantine) in &released {
            self.ledger.failures.forgive(*digest);
            let mut entry = self.entry(AuditEvent::Release, AuditOutcome::Done, actor);
            (entry.version, entry.digest) = (Some(quarantine.version.clone()), Some(*digest));
            entry.reason = Some(format!("was quarantined: {}", quarantine.reason));
            self.environment.note(entry);
            let (plugin, digest) = (plugin.clone(), *digest);
            self.environment.events.emit(LifecycleEvent::Released { plugin, digest });
        }
        self.publish_ledger();
        Ok(released.into_values().collect())
    }
}
