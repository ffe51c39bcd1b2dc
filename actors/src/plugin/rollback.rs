//! Going back by request: with the state of what serves if that can be had in time, and without it otherwise.
//!
//! ```text
//! Rollback ──no state to move───────────────────────────▶ swap
//!     └─ held: save_state, reload on the target ──Ready──▶ swap     (at most HOLD_LIMIT, whatever the hooks do)
//! ```
//!
//! The version that is left may be the faulty one: whatever it does with its hook, the swap comes.

use std::sync::Arc;

use themis_messages::audit::{AuditEvent, AuditOutcome};
use themis_messages::lifecycle::{Operation, ReloadReceipt, RollbackError, StateOutcome};

use super::machine::{Event, Refusal};
use super::messages::{PluginFact, RollbackRequest};
use super::{Change, PluginActor, describe, receipt, still_allowed};
use crate::handover;
use crate::lease::Hold;
use crate::telemetry;

impl PluginActor {
    /// Swaps first and tells afterwards: the disk cannot delay a rollback.
    pub(super) fn rollback(&mut self, mut request: RollbackRequest) {
        if let Err(error) = self.may_roll_back(&request) {
            return self.end_rollback(request, Err(error));
        }
        let (Some(current), Some(target)) = (self.ledger.current(), self.ledger.previous()) else {
            return self.roll_back(request, None, StateOutcome::None);
        };
        if !handover::moves_state(current, target) {
            return self.roll_back(request, None, StateOutcome::None);
        }
        let (current, target) = (Arc::clone(current), Arc::clone(target));
        // Nobody else may change the plugin while the state moves; the claim goes with the request.
        if request.claim.is_none() {
            request.claim = Some(self.new_claim(Operation::Rollback));
        }
        let (slot, limit) = (self.slot, self.environment.settings.hold_limit);
        tokio::spawn(async move {
            let (hold, state) = match handover::carry(slot, &current, &target, limit).await {
                Ok(carried) => (Some(carried.hold), carried.outcome),
                Err(error) => (None, StateOutcome::Own { why: error.code() }),
            };
            slot.tell(PluginFact::RollbackReady { request, hold, state });
        });
    }

    fn may_roll_back(&mut self, request: &RollbackRequest) -> Result<(), RollbackError> {
        self.undo_abandoned();
        let claimed = self.ledger.claim.upgrade();
        let is_own = match (&claimed, &request.claim) {
            (Some(claimed), Some(own)) => Arc::ptr_eq(claimed, own),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some(busy) = self.busy().filter(|_| !is_own) {
            return Err(busy.into());
        }
        match self.ledger.previous() {
            Some(target) => still_allowed(&self.environment.settings.policy, target)
                .map_err(RollbackError::Refused),
            None => Ok(()),
        }
    }

    /// The swap itself.
    pub(super) fn roll_back(
        &mut self,
        request: RollbackRequest,
        hold: Option<Hold>,
        state: StateOutcome,
    ) {
        let state = match hold.map(Hold::close) {
            Some(false) => StateOutcome::Own { why: "state.lapsed" },
            Some(true) | None => state,
        };
        let plugin = self.slot.name().clone();
        let from = self.ledger.current().map(|generation| generation.version().clone());
        let swapped = self.apply(Event::Rollback).map_err(|refusal| match refusal {
            Refusal::NoPrevious => RollbackError::NoPrevious { plugin: plugin.clone() },
            Refusal::NotServing | Refusal::NotCurrent | Refusal::NoArm => {
                RollbackError::NotLoaded { plugin: plugin.clone() }
            }
        });
        let outcome = swapped.and_then(|swap| {
            let now = self.ledger.current().ok_or(RollbackError::NotLoaded { plugin })?;
            let (operation, requested) = (Operation::Rollback, request.requested);
            Ok(receipt(now, from, Change { operation, requested, swap, state }))
        });
        if let Ok(receipt) = &outcome {
            self.ledger.trial = None;
            (self.ledger.out_of_service, self.ledger.unwell) = (None, None);
            self.ledger.receipt = Some(receipt.clone());
        }
        self.end_rollback(request, outcome);
    }

    fn end_rollback(
        &mut self,
        request: RollbackRequest,
        outcome: Result<ReloadReceipt, RollbackError>,
    ) {
        let result = if outcome.is_ok() { AuditOutcome::Done } else { AuditOutcome::Failed };
        let mut entry = self.entry(AuditEvent::Rollback, result, &request.actor);
        match &outcome {
            Ok(receipt) => {
                telemetry::count_operation("themis_rollbacks_total", "ok");
                describe(&mut entry, self.ledger.current().map(Arc::as_ref));
                entry.reason = receipt.from.as_ref().map(|from| format!("back from {from}"));
                tracing::info!(plugin = %receipt.plugin, to = %receipt.to, "rolled back");
                self.environment.events.serves(receipt);
            }
            Err(error) => {
                telemetry::count_operation("themis_rollbacks_total", "failed");
                entry.code = Some(error.code().to_owned());
                entry.reason = Some(error.to_string());
            }
        }
        // Before the answer: whoever has it may look at what is published.
        self.publish_ledger();
        self.environment.note(entry);
        request.reply.send(outcome);
    }
}
