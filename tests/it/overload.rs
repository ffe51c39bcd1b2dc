//! What is full says so at once, and nothing that happened is forgotten for it.

use std::sync::mpsc::channel;
use std::time::Instant;

use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::{KernelFault, LoadError};
use themis_kernel::limits::{COORDINATOR_QUEUE, EVENTS_QUEUE};
use themis_tests::{Fixture, Site, block_on};

/// Every operation under way keeps its place in the coordinator's queue. (That a full one refuses at once is tested
/// beside `Mailbox`.)
#[test]
fn of_many_that_ask_at_once_one_is_served_and_the_others_are_told() {
    if themis_tests::only_in_process("it hangs by opening a file") {
        return;
    }
    let site = Site::new();
    let fifo = site.fifo();
    let slow = site.add(
        &Fixture::c("hang_init.c", "slow", "1.0.0")
            .flag(&format!("-DHANG_FIFO=\"{}\"", fifo.display())),
    );
    let kernel = site.start(&["slow"]);
    let (answered, answers) = channel();
    block_on(async {
        let mut asked = Vec::new();
        for _ in 0..COORDINATOR_QUEUE + 1 {
            let (loader, path, answered) = (kernel.loader(), slow.clone(), answered.clone());
            asked.push(tokio::spawn(async move {
                let started = Instant::now();
                let outcome = loader.load(path, None).await.map(drop);
                answered.send((outcome, started.elapsed())).unwrap();
            }));
        }
        // The one whose claim it is hangs in its init; the others are told that the plugin is busy, or, if they
        // found no place, that there is none.
        tokio::task::yield_now().await;
        let opened = tokio::task::spawn_blocking(move || {
            drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        });
        opened.await.unwrap();
        for task in asked {
            task.await.unwrap();
        }
    });
    drop(answered);
    let mut loaded = 0;
    for (outcome, _took) in answers {
        match outcome {
            Ok(()) => loaded += 1,
            Err(LoadError::Kernel(KernelFault::Busy { .. } | KernelFault::Overloaded { .. })) => {}
            Err(LoadError::AlreadyLoaded { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(loaded, 1);
    kernel.shutdown_blocking();
}

#[test]
fn a_subscriber_that_does_not_listen_holds_nobody_up_and_is_told_what_it_missed() {
    let site = Site::new();
    let paths =
        ["1.0.0", "2.0.0"].map(|version| site.add(&Fixture::c("counter.c", "counter", version)));
    let kernel = site.start(&["counter"]);
    let mut lazy = kernel.subscribe();
    let mut keen = kernel.subscribe();
    kernel.loader().load_blocking(&paths[0], None).unwrap();
    let mut numbers = Vec::new();
    let mut rounds = 0;
    while numbers.len() < EVENTS_QUEUE + 100 {
        rounds += 1;
        kernel.reloads().reload_module_blocking("counter", &paths[rounds % 2]).unwrap();
        loop {
            let event = keen.next_blocking().unwrap().unwrap();
            numbers.push(event.number);
            if let LifecycleEvent::Serves { .. } = event.what {
                break;
            }
        }
    }
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "the keen one missed nothing");
    let first = lazy.next_blocking().unwrap().unwrap();
    let LifecycleEvent::Missed { events } = first.what else { panic!("{first:?}") };
    let next = lazy.next_blocking().unwrap().unwrap();
    assert_eq!(next.number, events + 1, "and goes on behind what it missed");
    kernel.shutdown_blocking();
}

#[test]
fn a_reload_shows_its_progress_in_order() {
    use themis_kernel::lifecycle::Stage;
    let site = Site::new();
    let path = site.add(&Fixture::c("counter.c", "counter", "1.0.0"));
    let kernel = site.start(&["counter"]);
    let mut events = kernel.subscribe();
    kernel.loader().load_blocking(&path, None).unwrap();
    let mut stages = Vec::new();
    loop {
        match events.next_blocking().unwrap().unwrap().what {
            LifecycleEvent::Progress { stage, .. } => stages.push(stage),
            LifecycleEvent::Serves { receipt } => {
                assert_eq!(receipt.to.to_string(), "1.0.0");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let all: Vec<_> = <Stage as strum::IntoEnumIterator>::iter().collect();
    assert_eq!(stages, all);
    kernel.shutdown_blocking();
}
