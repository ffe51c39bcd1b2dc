//! Probation: a version that just took over is watched, and swapped back by itself when it is worse.
//!
//! ```text
//! installed ──on record──▶ on probation ──window over──▶ settled
//!                               └─ errors, faults, latency, health, its set ──▶ swapped back, quarantined
//! ```
//!
//! The watcher is a task, not an actor: it reads counters and tells its verdict as a fact. It outlives the
//! plugin's actor, whose next incarnation hears the verdict.

use std::sync::Arc;
use std::time::{Duration, Instant};

use themis_messages::audit::{AuditEvent, AuditOutcome};
use themis_messages::event::LifecycleEvent;
use themis_messages::ids::GenerationId;
use themis_messages::lifecycle::{Operation, StateOutcome};
use themis_messages::limits::PROBATION_TICK;
use themis_messages::probation::{Evidence, Fault, Rules, Tally, judge};

use super::machine::Event;
use super::messages::PluginFact;
use super::{Change, PluginActor, describe, receipt, still_allowed};
use crate::lease::Serving;
use crate::slot::Slot;
use crate::telemetry;

impl PluginActor {
    /// The install is on record: it is watched, or settled at once.
    pub(super) fn begin_trial(&mut self, serving: Arc<Serving>) {
        let Some(trial) = &self.ledger.trial else { return };
        let (generation, window) = (trial.generation, trial.window);
        if window.is_zero() {
            self.ledger.trial = None;
            return self.take_note(Event::Settle(generation));
        }
        let rules = Rules { window, ..self.environment.settings.probation };
        let before = trial.before.clone();
        tokio::spawn(watch(self.slot, serving, before, rules));
        let plugin = self.slot.name().clone();
        let began = LifecycleEvent::ProbationBegan { plugin, generation, window };
        self.environment.events.emit(began);
    }

    /// A verdict, of the watcher or of the plugin's set.
    pub(super) fn judged(&mut self, generation: GenerationId, evidence: Evidence) {
        let on_trial = self.ledger.trial.as_ref().is_some_and(|it| it.generation == generation);
        match evidence.fault {
            None if on_trial => self.settle(generation, evidence),
            None => {}
            // A set changes back together, also those members that have settled a moment before.
            Some(Fault::Set) => self.swap_back(generation, evidence, Fault::Set),
            Some(fault) if on_trial => self.swap_back(generation, evidence, fault),
            Some(_) => {}
        }
    }

    fn settle(&mut self, generation: GenerationId, evidence: Evidence) {
        self.ledger.trial = None;
        self.take_note(Event::Settle(generation));
        let mut entry = self.entry(AuditEvent::Settle, AuditOutcome::Done, "kernel");
        describe(&mut entry, self.ledger.current().map(Arc::as_ref));
        entry.reason = Some(evidence.to_string());
        self.environment.note(entry);
        metrics::counter!("themis_probations_total", "outcome" => "settled").increment(1);
        let plugin = self.slot.name().clone();
        self.environment.events.emit(LifecycleEvent::Settled { plugin, generation, evidence });
    }

    /// A health check failed on probation, or its process ended: that alone decides it.
    pub(super) fn failed_on_trial(&mut self, generation: GenerationId, fault: Fault) -> bool {
        let Some(trial) = self.ledger.trial.as_ref().filter(|it| it.generation == generation)
        else {
            return false;
        };
        let (before, confirmed) = (trial.before.clone(), trial.confirmed);
        let Some(serving) = self.slot.current().filter(|_| confirmed) else { return false };
        let evidence = evidence(Some(fault), before.as_deref(), &serving);
        self.swap_back(generation, evidence, fault);
        true
    }

    /// Swaps at once, with the state the old version still has; then tells.
    fn swap_back(&mut self, generation: GenerationId, evidence: Evidence, fault: Fault) {
        let requested = Instant::now();
        let Some(failed) = self.ledger.current().filter(|it| it.id == generation).map(Arc::clone)
        else {
            return;
        };
        let policy = &self.environment.settings.policy;
        let target = self.ledger.previous().filter(|it| still_allowed(policy, it).is_ok());
        if target.is_none() {
            return self.nowhere_to_go(&failed, fault);
        }
        let set = self.ledger.trial.take().and_then(|trial| trial.set);
        let swap = self.apply(Event::Revert(generation)).unwrap_or_default();
        let Some(now) = self.ledger.current().map(Arc::clone) else { return };
        let state = StateOutcome::Own { why: fault.code() };
        let change = Change { operation: Operation::SwapBack, requested, swap, state };
        let mut receipt = receipt(&now, Some(failed.version().clone()), change);
        receipt.evidence = Some(evidence);
        self.ledger.receipt = Some(receipt.clone());
        (self.ledger.out_of_service, self.ledger.unwell) = (None, None);
        telemetry::count_operation("themis_rollbacks_total", "automatic");
        metrics::counter!("themis_probations_total", "outcome" => fault.code()).increment(1);
        tracing::error!(
            plugin = %now.name(), from = %failed.version(), to = %now.version(), code = fault.code(),
            %evidence, "swapped back"
        );
        let mut entry = self.entry(AuditEvent::SwapBack, AuditOutcome::Done, "kernel");
        describe(&mut entry, Some(&now));
        entry.code = Some(fault.code().to_owned());
        entry.reason = Some(format!("back from {}: {evidence}", failed.version()));
        self.environment.note(entry);
        self.environment.events.serves(&receipt);
        if fault != Fault::Set {
            let reason = format!("failed its probation: {evidence}");
            self.quarantine(failed.digest, failed.version().clone(), fault.code(), reason);
        }
        for (slot, generation) in set.iter().flat_map(|set| &set.members) {
            if !std::ptr::eq(*slot, self.slot) {
                let evidence = Evidence { fault: Some(Fault::Set), ..evidence };
                slot.tell(PluginFact::Judged { generation: *generation, evidence });
            }
        }
    }

    /// What it would go back to is gone or was revoked: it stays, loudly.
    fn nowhere_to_go(&mut self, failed: &crate::generation::Generation, fault: Fault) {
        self.ledger.trial = None;
        tracing::error!(
            plugin = %failed.name(), version = %failed.version(), code = fault.code(),
            "failed its probation, and there is nothing to go back to"
        );
        let mut entry = self.entry(AuditEvent::SwapBack, AuditOutcome::Failed, "kernel");
        describe(&mut entry, Some(failed));
        entry.code = Some(fault.code().to_owned());
        entry.reason = Some("there is nothing to go back to".to_owned());
        self.environment.note(entry);
    }
}

/// Watches one stint until it is judged or over.
async fn watch(
    slot: &'static Slot,
    serving: Arc<Serving>,
    before: Option<Arc<Serving>>,
    rules: Rules,
) {
    let generation = serving.generation.id;
    let tally = |stint: Option<&Serving>| stint.map(Serving::tally).unwrap_or_default();
    let over = tokio::time::sleep(rules.window);
    tokio::pin!(over);
    let mut stall = Stall::default();
    let fault = loop {
        let is_over = tokio::select! {
            () = &mut over => true,
            () = tokio::time::sleep(PROBATION_TICK) => false,
            () = serving.alarmed() => false,
        };
        let after = Tally { stalled_ns: stall.look(&serving), ..serving.tally() };
        let fault = judge(&rules, &tally(before.as_deref()), &after);
        let serves = slot.current().is_some_and(|it| Arc::ptr_eq(&it, &serving));
        if !serves {
            // Replaced by something newer, which has a watcher of its own.
            return;
        }
        if is_over || fault.is_some() {
            break fault;
        }
    };
    let mut evidence = evidence(fault, before.as_deref(), &serving);
    evidence.after.stalled_ns = stall.look(&serving);
    slot.tell(PluginFact::Judged { generation, evidence });
}

/// For how long calls have been inside without that one ended.
#[derive(Default)]
struct Stall {
    ended: u64,
    since: Option<Instant>,
}

impl Stall {
    fn look(&mut self, serving: &Serving) -> u64 {
        let (inside, ended) = serving.progress();
        if inside == 0 || ended != self.ended {
            self.since = None;
        }
        self.ended = ended;
        if inside == 0 {
            return 0;
        }
        let since = self.since.get_or_insert_with(Instant::now);
        u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn evidence(fault: Option<Fault>, before: Option<&Serving>, serving: &Serving) -> Evidence {
    let before = before.map_or_else(Tally::default, Serving::tally);
    let elapsed: Duration = serving.age();
    Evidence { fault, before, after: serving.tally(), elapsed }
}
