//! What happens, for whoever watches: a bounded stream that slows nobody.
//!
//! Sending never waits. Each subscriber has its own place in a ring of [`EVENTS_QUEUE`] events; one that falls
//! further behind is told how many it missed and goes on with what is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use themis_messages::event::{Event, LifecycleEvent};
use themis_messages::lifecycle::ReloadReceipt;
use themis_messages::limits::EVENTS_QUEUE;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Where events are told.
#[derive(Debug, Clone)]
pub struct Events {
    sender: broadcast::Sender<Event>,
    next: Arc<AtomicU64>,
}

impl Default for Events {
    fn default() -> Self {
        let (sender, _first) = broadcast::channel(EVENTS_QUEUE);
        Self { sender, next: Arc::new(AtomicU64::new(1)) }
    }
}

impl Events {
    /// Tells everybody who watches.
    pub fn emit(&self, what: LifecycleEvent) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Without subscribers nobody misses it.
        drop(self.sender.send(Event { number, at: jiff::Timestamp::now(), what }));
    }

    /// Tells that a version serves.
    pub fn serves(&self, receipt: &ReloadReceipt) {
        self.emit(LifecycleEvent::Serves { receipt: Box::new(receipt.clone()) });
    }

    /// Everything from now on.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { receiver: self.sender.subscribe(), last: 0 }
    }
}

/// One watcher's place in the stream.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Event>,
    last: u64,
}

impl Subscription {
    /// The next event; [`LifecycleEvent::Missed`] in place of those this subscriber was too slow for. `None` when
    /// the kernel is no more.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => {
                self.last = event.number;
                Some(event)
            }
            Err(RecvError::Lagged(events)) => {
                self.last += events;
                let (number, at) = (self.last, jiff::Timestamp::now());
                Some(Event { number, at, what: LifecycleEvent::Missed { events } })
            }
            Err(RecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unloaded(name: &str) -> LifecycleEvent {
        LifecycleEvent::Unloaded { plugin: name.parse().unwrap() }
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_missed_and_goes_on() {
        let events = Events::default();
        let mut subscription = events.subscribe();
        let behind = 10;
        for _ in 0..EVENTS_QUEUE + behind {
            events.emit(unloaded("geo"));
        }
        let missed = subscription.next().await.unwrap();
        assert_eq!(missed.what, LifecycleEvent::Missed { events: behind as u64 });
        let next = subscription.next().await.unwrap();
        assert_eq!((next.number, next.what), (behind as u64 + 1, unloaded("geo")));
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_kernel() {
        let events = Events::default();
        let mut subscription = events.subscribe();
        events.emit(unloaded("geo"));
        drop(events);
        assert_eq!(subscription.next().await.map(|event| event.number), Some(1));
        assert!(subscription.next().await.is_none());
    }
}
