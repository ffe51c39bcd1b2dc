//! Traces of the usual lives of a plugin, and the laws that hold in all of them.

use super::*;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::fmt::Write as _;

fn g(id: u64) -> GenerationId {
    GenerationId(id)
}

fn check(events: &[Event], want: &Expect) {
    let mut machine = Machine::default();
    let mut trace = String::new();
    for event in events {
        let outcome = machine.step(*event);
        writeln!(trace, "{event:?} -> {outcome:?}").unwrap();
    }
    let Machine { current, previous, retiring, leased, pinned, .. } = machine;
    writeln!(
        trace,
        "= {current:?} {previous:?} retiring {retiring:?} leased {leased:?} pinned {pinned:?}"
    )
    .unwrap();
    want.assert_eq(&trace.replace("GenerationId", "g"));
}

#[test]
fn two_reloads_end_the_first_version_once_it_is_drained() {
    use Event::*;
    check(
        &[
            Install(g(1)),
            Settle(g(1)),
            Install(g(2)),
            Settle(g(2)),
            Install(g(3)),
            Settle(g(3)),
            Drained(g(2)),
            Drained(g(1)),
            Ended(g(1)),
        ],
        &expect![[r#"
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Settle(g(1)) -> Ok([])
            Install(g(2)) -> Ok([Publish(Some(g(2)))])
            Settle(g(2)) -> Ok([])
            Install(g(3)) -> Ok([Publish(Some(g(3)))])
            Settle(g(3)) -> Ok([])
            Drained(g(2)) -> Ok([])
            Drained(g(1)) -> Ok([Shutdown(g(1))])
            Ended(g(1)) -> Ok([Forget(g(1))])
            = Some(g(3)) Some(g(2)) retiring {} leased {} pinned {}
        "#]],
    );
}

#[test]
fn rolling_back_twice_returns_to_where_one_was() {
    use Event::*;
    check(
        &[
            Rollback,
            Install(g(1)),
            Settle(g(1)),
            Rollback,
            Install(g(2)),
            Settle(g(2)),
            Rollback,
            Rollback,
        ],
        &expect![[r#"
            Rollback -> Err(NotServing)
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Settle(g(1)) -> Ok([])
            Rollback -> Err(NoPrevious)
            Install(g(2)) -> Ok([Publish(Some(g(2)))])
            Settle(g(2)) -> Ok([])
            Rollback -> Ok([Publish(Some(g(1)))])
            Rollback -> Ok([Publish(Some(g(2)))])
            = Some(g(2)) Some(g(1)) retiring {} leased {g(1): 2, g(2): 1} pinned {}
        "#]],
    );
}

#[test]
fn an_install_that_cannot_be_recorded_is_undone_with_its_rollback_target() {
    use Event::*;
    check(
        &[
            Install(g(1)),
            Settle(g(1)),
            Install(g(2)),
            Settle(g(2)),
            Install(g(3)),
            Revert(g(3)),
            Drained(g(3)),
        ],
        &expect![[r#"
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Settle(g(1)) -> Ok([])
            Install(g(2)) -> Ok([Publish(Some(g(2)))])
            Settle(g(2)) -> Ok([])
            Install(g(3)) -> Ok([Publish(Some(g(3)))])
            Revert(g(3)) -> Ok([Publish(Some(g(2)))])
            Drained(g(3)) -> Ok([Shutdown(g(3))])
            = Some(g(2)) Some(g(1)) retiring {g(3)} leased {g(1): 1, g(2): 1} pinned {}
        "#]],
    );
}

#[test]
fn an_incarnation_that_died_after_publishing_is_caught_up_with() {
    for (published, current, previous) in [
        (Some(g(3)), Some(g(3)), Some(g(2))),
        (Some(g(1)), Some(g(1)), Some(g(2))),
        (None, None, None),
    ] {
        let mut machine = Machine::default();
        for event in [Event::Install(g(1)), Event::Settle(g(1)), Event::Install(g(2))] {
            machine.step(event).unwrap();
        }
        machine.reconcile(published);
        assert_eq!((machine.current(), machine.previous()), (current, previous));
    }
}

#[test]
fn a_version_whose_hook_hangs_serves_on_and_is_never_shut_down() {
    use Event::*;
    check(
        &[Install(g(1)), Pin(g(1)), Install(g(2)), Settle(g(2)), Drained(g(1)), Unload],
        &expect![[r#"
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Pin(g(1)) -> Ok([])
            Install(g(2)) -> Ok([Publish(Some(g(2)))])
            Settle(g(2)) -> Ok([])
            Drained(g(1)) -> Ok([])
            Unload -> Ok([Publish(None)])
            = None None retiring {g(2)} leased {g(2): 1} pinned {g(1)}
        "#]],
    );
}

#[test]
fn an_arm_serves_beside_and_ends_when_its_callers_have_left() {
    use Event::*;
    check(
        &[
            Install(g(1)),
            Join(g(2)),
            Join(g(3)),
            Leave(g(2)),
            Leave(g(2)),
            Drained(g(2)),
            Ended(g(2)),
            Lost(g(3)),
            Drained(g(3)),
            Join(g(4)),
            Stuck(g(4)),
            Join(g(5)),
            Unload,
            Drained(g(5)),
        ],
        &expect![[r#"
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Join(g(2)) -> Ok([Open(g(2))])
            Join(g(3)) -> Ok([Open(g(3))])
            Leave(g(2)) -> Ok([Close(g(2))])
            Leave(g(2)) -> Err(NoArm)
            Drained(g(2)) -> Ok([Shutdown(g(2))])
            Ended(g(2)) -> Ok([Forget(g(2))])
            Lost(g(3)) -> Ok([Close(g(3))])
            Drained(g(3)) -> Ok([Shutdown(g(3))])
            Join(g(4)) -> Ok([Open(g(4))])
            Stuck(g(4)) -> Ok([Close(g(4))])
            Join(g(5)) -> Ok([Open(g(5))])
            Unload -> Ok([Publish(None), Close(g(5))])
            Drained(g(5)) -> Ok([Shutdown(g(5))])
            = None None retiring {g(1), g(3), g(5)} leased {g(1): 1, g(4): 1} pinned {g(4)}
        "#]],
    );
}

#[test]
fn a_stuck_version_is_pinned_and_the_previous_one_is_the_way_out() {
    use Event::*;
    check(
        &[Install(g(1)), Settle(g(1)), Install(g(2)), Settle(g(2)), Stuck(g(2)), Rollback, Unload],
        &expect![[r#"
            Install(g(1)) -> Ok([Publish(Some(g(1)))])
            Settle(g(1)) -> Ok([])
            Install(g(2)) -> Ok([Publish(Some(g(2)))])
            Settle(g(2)) -> Ok([])
            Stuck(g(2)) -> Ok([Publish(None)])
            Rollback -> Ok([Publish(Some(g(1)))])
            Unload -> Ok([Publish(None)])
            = None None retiring {g(1)} leased {g(1): 2, g(2): 1} pinned {g(2)}
        "#]],
    );
}

/// Plays random events as the shell could send them, and keeps its own books.
#[derive(Default)]
struct World {
    machine: Machine,
    next: u64,
    published: Option<GenerationId>,
    inside: BTreeMap<GenerationId, usize>,
    shut: BTreeSet<GenerationId>,
    stuck: BTreeSet<GenerationId>,
    pinned: BTreeSet<GenerationId>,
    arms: BTreeSet<GenerationId>,
}

impl World {
    fn play(&mut self, choice: u8) {
        let event = match choice {
            0 | 1 => {
                self.next += 1;
                Event::Install(g(self.next))
            }
            2 | 9..=11 => match (choice, self.published) {
                (_, None) => return,
                (2, Some(current)) => Event::Settle(current),
                (9, Some(current)) => Event::Revert(current),
                (11, Some(current)) => Event::Withdraw(current),
                (_, Some(current)) => {
                    self.pinned.insert(current);
                    Event::Pin(current)
                }
            },
            12 => {
                self.next += 1;
                Event::Join(g(self.next))
            }
            13..=15 => match (choice, self.arms.first().copied()) {
                (_, None) => return,
                (13, Some(arm)) => Event::Leave(arm),
                (14, Some(arm)) => Event::Lost(arm),
                (_, Some(arm)) => {
                    self.stuck.insert(arm);
                    Event::Stuck(arm)
                }
            },
            3 => Event::Rollback,
            4 => Event::Unload,
            5 => match self.published {
                Some(current) => {
                    self.stuck.insert(current);
                    Event::Stuck(current)
                }
                None => return,
            },
            _ => match self.inside.keys().next().copied() {
                Some(generation) => {
                    let stints = self.inside.get_mut(&generation).unwrap();
                    *stints -= 1;
                    if *stints == 0 {
                        self.inside.remove(&generation);
                    }
                    Event::Drained(generation)
                }
                None => return,
            },
        };
        for effect in self.machine.step(event).unwrap_or_default() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Publish(next) => {
                if let Some(closed) = self.published {
                    *self.inside.entry(closed).or_default() += 1;
                }
                self.published = next;
                assert!(
                    next.is_none_or(|it| !self.shut.contains(&it)),
                    "an ended generation serves"
                );
            }
            Effect::Open(arm) => assert!(self.arms.insert(arm) && !self.shut.contains(&arm)),
            Effect::Close(arm) => {
                assert!(self.arms.remove(&arm), "closed twice");
                *self.inside.entry(arm).or_default() += 1;
            }
            Effect::Shutdown(generation) => {
                assert!(!self.arms.contains(&generation), "callers are let in");
                assert!(self.shut.insert(generation), "shut down twice");
                assert!(!self.inside.contains_key(&generation), "a caller is inside");
                assert_ne!(self.published, Some(generation), "it serves");
                assert_ne!(self.machine.previous(), Some(generation), "a rollback needs it");
                assert!(!self.stuck.contains(&generation), "a thread is stuck inside");
                assert!(!self.pinned.contains(&generation), "a thread is inside a hook");
            }
            Effect::Forget(_) => {}
        }
    }
}

proptest! {
    #[test]
    fn no_generation_ends_while_anybody_needs_it(choices in proptest::collection::vec(0_u8..16, 0..80)) {
        let mut world = World::default();
        for choice in choices {
            world.play(choice);
            prop_assert_eq!(world.machine.current(), world.published);
            // Whatever is not over is accounted for, by a reason.
            for id in (1..=world.next).map(g).filter(|id| !world.shut.contains(id)) {
                prop_assert!(world.machine.retention(id).is_some(), "{id:?} is lost");
            }
            // An incarnation that takes over finds what is published, wherever the last one died.
            let mut successor = world.machine.clone();
            successor.reconcile(world.published);
            prop_assert_eq!(&successor, &world.machine);
        }
        // Once everybody has left and all is unloaded, every generation has ended or is pinned.
        world.play(4);
        while !world.arms.is_empty() {
            world.play(13);
        }
        while !world.inside.is_empty() {
            world.play(8);
        }
        let kept: BTreeSet<_> = world.stuck.union(&world.pinned).copied().collect();
        let accounted: BTreeSet<_> = world.shut.union(&kept).copied().collect();
        prop_assert_eq!(accounted.len() as u64, world.next);
    }
}
