//! Which generation of a plugin serves, which is warm, which may end: a pure machine.
//!
//! ```text
//!            install                 install, settle
//! (new) ───────────────▶ current ───────────────▶ previous ──────────▶ retiring ──drained──▶ ended
//!                           ▲  ◀────rollback────▶    ▲      parked      ▲
//!                           └────────revert──────────┘                  └── unload
//! stuck: current ──▶ pinned (never ended: a thread is inside)
//! join: (new) ──▶ arm, beside the current one ──leave, unload, its process ends──▶ retiring
//! ```
//!
//! `parked` is the previous generation of an install that is not settled yet: a revert needs it again.

use std::collections::{BTreeMap, BTreeSet};

use themis_messages::ids::GenerationId;
use themis_messages::lifecycle::Retention;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A proven candidate takes over.
    Install(GenerationId),
    /// The installed generation has proved itself: what it replaced twice over may go.
    Settle(GenerationId),
    /// The installed generation is given up: back to what was.
    Revert(GenerationId),
    /// Back to the previous generation.
    Rollback,
    /// A proven candidate serves beside the current one, as an arm of an experiment.
    Join(GenerationId),
    /// An arm serves no more.
    Leave(GenerationId),
    /// Nothing serves any more.
    Unload,
    /// This generation is taken out of service, and nothing takes its place.
    Withdraw(GenerationId),
    /// A call of this generation does not end.
    Stuck(GenerationId),
    /// A hook of this generation does not end: it may serve on, and is never shut down.
    Pin(GenerationId),
    /// The process of this generation is gone: what it was kept for it cannot do.
    Lost(GenerationId),
    /// The last caller left a closed stint of this generation.
    Drained(GenerationId),
    /// Its shutdown hook is over, one way or the other.
    Ended(GenerationId),
}

/// What has to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Swap the published pointer; the stint that was published closes.
    Publish(Option<GenerationId>),
    /// Let callers into this arm.
    Open(GenerationId),
    /// Let no more callers into this arm.
    Close(GenerationId),
    /// Run its shutdown hook: nobody is inside, nothing will need it.
    Shutdown(GenerationId),
    /// Drop it.
    Forget(GenerationId),
}

/// Why an event does not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing serves.
    NotServing,
    /// There is no previous generation.
    NoPrevious,
    /// Another generation serves by now.
    NotCurrent,
    /// It is no arm.
    NoArm,
}

/// The generations of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    current: Option<GenerationId>,
    previous: Option<GenerationId>,
    parked: Option<GenerationId>,
    arms: BTreeSet<GenerationId>,
    pinned: BTreeSet<GenerationId>,
    retiring: BTreeSet<GenerationId>,
    /// Closed stints that still have callers inside.
    leased: BTreeMap<GenerationId, usize>,
}

impl Machine {
    /// Takes over from an incarnation that may have died between publishing and noting it: what is published
    /// is what serves.
    pub fn reconcile(&mut self, published: Option<GenerationId>) {
        if published == self.current {
            return;
        }
        let event = match published {
            None => Event::Unload,
            Some(id) if self.previous == Some(id) => Event::Rollback,
            Some(id) => Event::Install(id),
        };
        // Its effects were carried out; a refusal means that there is nothing to catch up with.
        drop(self.step(event));
    }

    /// What serves.
    #[must_use]
    pub fn current(&self) -> Option<GenerationId> {
        self.current
    }

    /// What a rollback would go back to.
    #[must_use]
    pub fn previous(&self) -> Option<GenerationId> {
        self.previous
    }

    /// Generations that are on their way out.
    #[must_use]
    pub fn retiring(&self) -> usize {
        self.retiring.len()
    }

    /// Generations replaced but still leased.
    #[must_use]
    pub fn draining(&self) -> usize {
        self.leased.len()
    }

    /// Whether a thread is inside this generation for good.
    #[must_use]
    pub fn is_pinned(&self, generation: GenerationId) -> bool {
        self.pinned.contains(&generation)
    }

    /// Why a generation is kept; `None` when it is not.
    #[must_use]
    pub fn retention(&self, generation: GenerationId) -> Option<Retention> {
        let is = |place: Option<GenerationId>| place == Some(generation);
        let leased = self.leased.contains_key(&generation);
        match () {
            () if is(self.current) => Some(Retention::Serving),
            () if self.pinned.contains(&generation) => Some(Retention::Stuck),
            () if self.arms.contains(&generation) => Some(Retention::Arm),
            () if is(self.previous) => Some(Retention::Previous),
            () if is(self.parked) => Some(Retention::Parked),
            () if leased => Some(Retention::Leased),
            () if self.retiring.contains(&generation) => Some(Retention::Ending),
            () => None,
        }
    }

    /// Applies one event.
    ///
    /// # Errors
    /// [`Refusal`]; nothing has changed then.
    pub fn step(&mut self, event: Event) -> Result<Vec<Effect>, Refusal> {
        match event {
            Event::Install(candidate) => Ok(self.install(candidate)),
            Event::Settle(generation) => self.settle(generation),
            Event::Revert(generation) => self.revert(generation),
            Event::Rollback => self.rollback(),
            Event::Join(generation) => {
                self.arms.insert(generation);
                Ok(vec![Effect::Open(generation)])
            }
            Event::Leave(generation) => self.leave(generation).ok_or(Refusal::NoArm),
            Event::Unload => self.unload(),
            Event::Withdraw(generation) => self.withdraw(generation),
            Event::Stuck(generation) => Ok(self.stuck(generation)),
            Event::Pin(generation) => Ok(self.pin(generation)),
            Event::Lost(generation) => Ok(self.lost(generation)),
            Event::Drained(generation) => Ok(self.drained(generation)),
            Event::Ended(generation) => Ok(self.ended(generation)),
        }
    }

    fn install(&mut self, candidate: GenerationId) -> Vec<Effect> {
        let mut effects = Vec::from_iter(self.retire(self.parked));
        self.close_current();
        self.parked = self.previous;
        self.previous = self.current;
        self.current = Some(candidate);
        effects.push(Effect::Publish(self.current));
        effects
    }

    fn settle(&mut self, generation: GenerationId) -> Result<Vec<Effect>, Refusal> {
        self.must_serve(generation)?;
        Ok(self.retire(self.parked).into_iter().collect())
    }

    fn revert(&mut self, failed: GenerationId) -> Result<Vec<Effect>, Refusal> {
        self.must_serve(failed)?;
        self.close_current();
        self.current = self.previous;
        self.previous = self.parked.take();
        let mut effects = vec![Effect::Publish(self.current)];
        effects.extend(self.retire(Some(failed)));
        Ok(effects)
    }

    fn must_serve(&self, generation: GenerationId) -> Result<(), Refusal> {
        match self.current {
            Some(current) if current == generation => Ok(()),
            Some(_) => Err(Refusal::NotCurrent),
            None => Err(Refusal::NotServing),
        }
    }

    fn rollback(&mut self) -> Result<Vec<Effect>, Refusal> {
        let target = self.previous.ok_or(match self.current {
            Some(_) => Refusal::NoPrevious,
            None => Refusal::NotServing,
        })?;
        self.close_current();
        self.previous = self.current;
        self.current = Some(target);
        let mut effects = vec![Effect::Publish(self.current)];
        effects.extend(self.retire(self.parked));
        Ok(effects)
    }

    /// Nothing, where it is no arm.
    fn leave(&mut self, arm: GenerationId) -> Option<Vec<Effect>> {
        if !self.arms.remove(&arm) {
            return None;
        }
        *self.leased.entry(arm).or_default() += 1;
        let mut effects = vec![Effect::Close(arm)];
        effects.extend(self.retire(Some(arm)));
        Some(effects)
    }

    fn unload(&mut self) -> Result<Vec<Effect>, Refusal> {
        let leaving = [self.current, self.previous, self.parked];
        if leaving.iter().all(Option::is_none) {
            return Err(Refusal::NotServing);
        }
        self.close_current();
        (self.current, self.previous) = (None, None);
        let mut effects = vec![Effect::Publish(None)];
        for arm in self.arms.clone() {
            effects.extend(self.leave(arm).into_iter().flatten());
        }
        effects.extend(leaving.into_iter().filter_map(|generation| self.retire(generation)));
        Ok(effects)
    }

    fn withdraw(&mut self, generation: GenerationId) -> Result<Vec<Effect>, Refusal> {
        self.must_serve(generation)?;
        self.close_current();
        self.current = None;
        let mut effects = vec![Effect::Publish(None)];
        effects.extend(self.retire(Some(generation)));
        Ok(effects)
    }

    /// A thread is inside for good: whatever its role was, it is never shut down or dropped.
    fn stuck(&mut self, generation: GenerationId) -> Vec<Effect> {
        if !self.knows(generation) {
            return Vec::new();
        }
        self.pinned.insert(generation);
        self.retiring.remove(&generation);
        for place in [&mut self.previous, &mut self.parked] {
            if *place == Some(generation) {
                *place = None;
            }
        }
        if self.current == Some(generation) {
            self.close_current();
            self.current = None;
            return vec![Effect::Publish(None)];
        }
        self.leave(generation).unwrap_or_default()
    }

    /// What serves stays published: its callers are told how it ended until something takes its place.
    fn lost(&mut self, generation: GenerationId) -> Vec<Effect> {
        if let Some(left) = self.leave(generation) {
            return left;
        }
        if self.previous == Some(generation) {
            self.previous = self.parked.take();
            return self.retire(Some(generation)).into_iter().collect();
        }
        if self.parked == Some(generation) {
            return self.retire(Some(generation)).into_iter().collect();
        }
        Vec::new()
    }

    fn pin(&mut self, generation: GenerationId) -> Vec<Effect> {
        if self.knows(generation) {
            self.pinned.insert(generation);
            self.retiring.remove(&generation);
        }
        Vec::new()
    }

    fn knows(&self, generation: GenerationId) -> bool {
        self.current == Some(generation)
            || self.previous == Some(generation)
            || self.parked == Some(generation)
            || self.arms.contains(&generation)
            || self.retiring.contains(&generation)
    }

    fn drained(&mut self, generation: GenerationId) -> Vec<Effect> {
        if let Some(stints) = self.leased.get_mut(&generation) {
            *stints -= 1;
            if *stints == 0 {
                self.leased.remove(&generation);
            }
        }
        Vec::from_iter(self.shutdown_when_free(generation))
    }

    fn ended(&mut self, generation: GenerationId) -> Vec<Effect> {
        self.retiring.remove(&generation);
        vec![Effect::Forget(generation)]
    }

    /// The published stint is about to close: it counts as leased until told otherwise.
    fn close_current(&mut self) {
        if let Some(current) = self.current {
            *self.leased.entry(current).or_default() += 1;
        }
    }

    fn retire(&mut self, generation: Option<GenerationId>) -> Option<Effect> {
        let generation = generation?;
        if self.parked == Some(generation) {
            self.parked = None;
        }
        if self.pinned.contains(&generation) {
            return None;
        }
        self.retiring.insert(generation);
        self.shutdown_when_free(generation)
    }

    fn shutdown_when_free(&self, generation: GenerationId) -> Option<Effect> {
        let free = self.retiring.contains(&generation) && !self.leased.contains_key(&generation);
        free.then_some(Effect::Shutdown(generation))
    }
}

#[cfg(test)]
mod tests;
