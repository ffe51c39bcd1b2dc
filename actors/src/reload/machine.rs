//! The order of a load or reload and its ways out: a pure machine. One plugin or a set of them goes the same way.
//!
//! ```text
//! Admit ─▶ Claim ─▶ RecordIntent ─▶ Map ─▶ Initialise ─▶ Probe ─▶ HandOver ─▶ Swap ─▶ RecordOutcome ─▶ Confirm ─▶ Reply
//!   │        │           │           │         │           │         │         │           │
//!   │        │           ▼           └─────────┴───────────┴─────────┤         └──▶ Revert ◀┘
//!   │        │         Reply                                         ▼               │
//!   └────────┴──────────────────────────────────────▶ RecordFailure ◀── Discard ◀────┘
//! ```
//!
//! Before the swap nothing a caller could notice has happened, but for a hold of new leases while state moves. The
//! intent is durable before any code of the plugin runs; the outcome is durable before the request is answered,
//! or the swap is undone.

use themis_messages::lifecycle::Stage;

/// What has to be done next, for every plugin of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read, verify, pre-flight.
    Admit,
    /// Get the right to change the plugins, and check what they depend on.
    Claim,
    /// Make the intent durable.
    RecordIntent,
    /// Map the image.
    Map,
    /// Run the init hook.
    Initialise,
    /// Health and self-tests.
    Probe,
    /// Hold new leases and move the state.
    HandOver,
    /// Swap the pointer.
    Swap,
    /// Make the outcome durable.
    RecordOutcome,
    /// What was replaced may go.
    Confirm,
    /// Back to what served before.
    Revert,
    /// Shut candidates down that never served.
    Discard,
    /// Make the failure durable.
    RecordFailure,
    /// Answer the request.
    Reply,
}

impl Effect {
    /// Every effect of an operation that succeeds, in order.
    pub const WAY: [Self; 11] = [
        Self::Admit,
        Self::Claim,
        Self::RecordIntent,
        Self::Map,
        Self::Initialise,
        Self::Probe,
        Self::HandOver,
        Self::Swap,
        Self::RecordOutcome,
        Self::Confirm,
        Self::Reply,
    ];

    /// The stage it is shown as; cleaning up is none.
    #[must_use]
    pub const fn stage(self) -> Option<Stage> {
        match self {
            Self::Admit => Some(Stage::Admitting),
            Self::Claim => Some(Stage::Claiming),
            Self::RecordIntent => Some(Stage::Recording),
            Self::Map => Some(Stage::Loading),
            Self::Initialise => Some(Stage::Initialising),
            Self::Probe => Some(Stage::Probing),
            Self::HandOver => Some(Stage::HandingOver),
            Self::Swap => Some(Stage::Swapping),
            Self::RecordOutcome => Some(Stage::Settling),
            Self::Confirm | Self::Revert | Self::Discard | Self::RecordFailure | Self::Reply => {
                None
            }
        }
    }
}

/// How the last effect went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// As wanted.
    Done,
    /// It failed for one of the plugins.
    Failed,
}

/// One load or reload under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    doing: Effect,
}

impl Machine {
    /// A machine that has asked for its first effect.
    #[must_use]
    pub fn start() -> (Self, Effect) {
        let doing = Effect::Admit;
        (Self { doing }, doing)
    }

    /// What follows; `None` after the reply.
    #[must_use]
    pub fn step(self, event: Event) -> Option<(Self, Effect)> {
        let doing = next(self.doing, event)?;
        Some((Self { doing }, doing))
    }
}

fn next(doing: Effect, event: Event) -> Option<Effect> {
    use Effect as E;
    let next = match (doing, event) {
        (E::Admit, Event::Done) => E::Claim,
        (E::Claim, Event::Done) => E::RecordIntent,
        (E::RecordIntent, Event::Done) => E::Map,
        (E::Map, Event::Done) => E::Initialise,
        (E::Initialise, Event::Done) => E::Probe,
        (E::Probe, Event::Done) => E::HandOver,
        (E::HandOver, Event::Done) => E::Swap,
        (E::Swap, Event::Done) => E::RecordOutcome,
        (E::RecordOutcome, Event::Done) => E::Confirm,

        (E::Admit | E::Claim, Event::Failed) => E::RecordFailure,
        // The log takes nothing: there is nowhere to record this failure either, and nothing to undo.
        (E::RecordIntent, Event::Failed) => E::Reply,
        (E::Map | E::Initialise | E::Probe | E::HandOver, Event::Failed) => E::Discard,
        // Of a set, some may serve already.
        (E::Swap | E::RecordOutcome, Event::Failed) => E::Revert,

        (E::Revert, _) => E::Discard,
        (E::Discard, _) => E::RecordFailure,
        (E::Confirm | E::RecordFailure, _) => E::Reply,
        (E::Reply, _) => return None,
    };
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    fn run(mut answer: impl FnMut(Effect) -> Event) -> Vec<Effect> {
        let (mut machine, mut effect) = Machine::start();
        let mut done = vec![effect];
        while let Some((after, wanted)) = machine.step(answer(effect)) {
            (machine, effect) = (after, wanted);
            done.push(effect);
        }
        done
    }

    fn check(fails: Effect, want: &Expect) {
        let answer = |effect| if effect == fails { Event::Failed } else { Event::Done };
        let trace = run(answer);
        let behind = trace.iter().skip_while(|it| **it != fails).skip(1).collect::<Vec<_>>();
        want.assert_eq(&format!("{behind:?}"));
    }

    #[test]
    fn the_way_that_succeeds() {
        assert_eq!(run(|_| Event::Done), Effect::WAY);
    }

    #[test]
    fn the_ways_that_fail() {
        use Effect as E;
        check(E::Admit, &expect!["[RecordFailure, Reply]"]);
        check(E::Claim, &expect!["[RecordFailure, Reply]"]);
        check(E::RecordIntent, &expect!["[Reply]"]);
        for step in [E::Map, E::Initialise, E::Probe, E::HandOver] {
            check(step, &expect!["[Discard, RecordFailure, Reply]"]);
        }
        for step in [E::Swap, E::RecordOutcome] {
            check(step, &expect!["[Revert, Discard, RecordFailure, Reply]"]);
        }
    }

    proptest! {
        #[test]
        fn laws(answers in proptest::collection::vec(0_u8..5, 20)) {
            let mut answers = answers.into_iter();
            let mut events = Vec::new();
            let trace = run(|_| {
                let event = match answers.next() {
                    Some(0) => Event::Failed,
                    Some(_) | None => Event::Done,
                };
                events.push(event);
                event
            });
            let at = |effect| trace.iter().position(|it| *it == effect);
            prop_assert_eq!(trace.iter().filter(|it| **it == Effect::Reply).count(), 1);
            prop_assert_eq!(trace.last(), Some(&Effect::Reply));
            // No code of the plugin runs before its intent is durable.
            if let Some(map) = at(Effect::Map) {
                let intent = at(Effect::RecordIntent);
                prop_assert!(intent.is_some_and(|it| it < map && events[it] == Event::Done));
            }
            // A version that serves has been probed, and is on record or taken back.
            if let Some(swap) = at(Effect::Swap) {
                prop_assert!(at(Effect::Probe).is_some_and(|probe| events[probe] == Event::Done));
                prop_assert!(at(Effect::HandOver).is_some_and(|it| events[it] == Event::Done));
                if events[swap] == Event::Done {
                    prop_assert!(at(Effect::Confirm).is_some() != at(Effect::Revert).is_some());
                }
            }
            // Whatever was initialised and does not serve is shut down.
            if at(Effect::Initialise).is_some() && at(Effect::Confirm).is_none() {
                prop_assert!(at(Effect::Discard).is_some());
            }
        }
    }
}
