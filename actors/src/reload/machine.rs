//! The order of a load or reload and its ways out: a pure machine.
//!
//! ```text
//! Admit ─▶ Claim ─▶ RecordIntent ─▶ Map ─▶ Initialise ─▶ Probe ─▶ Swap ─▶ RecordOutcome ─▶ Confirm ─▶ Reply
//!   │        │           │           │         │           │        │           │
//!   └────────┴───────────┼───────────┴─────────┤           └─Discard┘        Revert ─▶ Reply
//!                        ▼             Quarantine (stuck) ──┐   │
//!                      Reply                                ▼   ▼
//!                                               RecordFailure ─▶ Reply
//! ```
//!
//! Before the swap nothing a caller could notice has happened. The intent is durable before any code of the
//! plugin runs; the outcome is durable before the request is answered, or the swap is undone.

/// What has to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Read, verify, pre-flight.
    Admit,
    /// Get the right to change the plugin, and check what it depends on.
    Claim,
    /// Make the intent durable.
    RecordIntent,
    /// Map the image.
    Map,
    /// Run the init hook.
    Initialise,
    /// Health and self-tests.
    Probe,
    /// Swap the pointer.
    Swap,
    /// Make the outcome durable.
    RecordOutcome,
    /// What was replaced may go.
    Confirm,
    /// Back to what served before.
    Revert,
    /// Shut the candidate down.
    Discard,
    /// Remember that this image hangs.
    Quarantine,
    /// Make the failure durable.
    RecordFailure,
    /// Answer the request.
    Reply,
}

/// How the last effect went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// As wanted.
    Done,
    /// It failed, and ended.
    Failed,
    /// It never ended: a thread is inside the plugin for good.
    Stuck,
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
        (E::Probe, Event::Done) => E::Swap,
        (E::Swap, Event::Done) => E::RecordOutcome,
        (E::RecordOutcome, Event::Done) => E::Confirm,

        // The log takes nothing: there is nowhere to record this failure either.
        (E::RecordIntent, _) => E::Reply,
        (E::RecordOutcome, _) => E::Revert,
        (E::Map | E::Initialise | E::Probe, Event::Stuck) => E::Quarantine,
        (E::Probe | E::Swap, _) => E::Discard,
        (E::Admit | E::Claim | E::Map | E::Initialise, _) => E::RecordFailure,

        (E::Discard | E::Quarantine, _) => E::RecordFailure,
        (E::Confirm | E::Revert | E::RecordFailure, _) => E::Reply,
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

    fn check(fails: Effect, event: Event, want: &Expect) {
        let trace = run(|effect| if effect == fails { event } else { Event::Done });
        want.assert_eq(&format!("{trace:?}"));
    }

    #[test]
    fn the_way_that_succeeds() {
        let want = expect![
            "[Admit, Claim, RecordIntent, Map, Initialise, Probe, Swap, RecordOutcome, Confirm, Reply]"
        ];
        want.assert_eq(&format!("{:?}", run(|_| Event::Done)));
    }

    #[test]
    fn the_ways_that_fail() {
        use Effect as E;
        check(E::Admit, Event::Failed, &expect!["[Admit, RecordFailure, Reply]"]);
        check(E::Claim, Event::Failed, &expect!["[Admit, Claim, RecordFailure, Reply]"]);
        check(E::RecordIntent, Event::Failed, &expect!["[Admit, Claim, RecordIntent, Reply]"]);
        check(
            E::Map,
            Event::Stuck,
            &expect!["[Admit, Claim, RecordIntent, Map, Quarantine, RecordFailure, Reply]"],
        );
        check(
            E::Initialise,
            Event::Failed,
            &expect!["[Admit, Claim, RecordIntent, Map, Initialise, RecordFailure, Reply]"],
        );
        check(
            E::Probe,
            Event::Failed,
            &expect![
                "[Admit, Claim, RecordIntent, Map, Initialise, Probe, Discard, RecordFailure, Reply]"
            ],
        );
        check(
            E::RecordOutcome,
            Event::Failed,
            &expect![
                "[Admit, Claim, RecordIntent, Map, Initialise, Probe, Swap, RecordOutcome, Revert, Reply]"
            ],
        );
    }

    proptest! {
        #[test]
        fn laws(answers in proptest::collection::vec(0_u8..6, 20)) {
            let mut answers = answers.into_iter();
            let mut events = Vec::new();
            let trace = run(|_| {
                let event = match answers.next() {
                    Some(0) => Event::Failed,
                    Some(1) => Event::Stuck,
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
                prop_assert!(at(Effect::RecordIntent).is_some_and(|intent| intent < map && events[intent] == Event::Done));
            }
            // A version that serves has been probed, and is on record or taken back.
            if let Some(swap) = at(Effect::Swap) {
                prop_assert!(at(Effect::Probe).is_some_and(|probe| events[probe] == Event::Done));
                if events[swap] == Event::Done {
                    prop_assert!(at(Effect::Confirm).is_some() != at(Effect::Revert).is_some());
                }
            }
            // A stuck instance is never shut down: a thread is inside.
            if at(Effect::Quarantine).is_some() {
                prop_assert!(at(Effect::Discard).is_none());
            }
        }
    }
}
