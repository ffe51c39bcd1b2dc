//! Takes what a plugin in a worker logged and counted, and hands it to the host: checked, cut, and not too much of it.
//!
//! Everything read here was written by somebody hostile. Lengths are capped before they are used, names are checked as
//! metric labels, a counter that goes back counts nothing, and lines above their rate are dropped, and counted instead.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use themis_messages::limits::{LOG_LINE_BYTES_MAX, PLUGIN_COUNTERS_MAX};
use themis_messages::manifest::Capability;

use super::layout::{COUNTER_NAME_MAX, Down, LOG_BYTES, Up};
use crate::bucket::Bucket;
use crate::native::{
    HostServices, LogLevel, admits_counter, clean_text, count_refused_writes, counter_name,
};

/// What was taken so far of one worker's words.
pub(super) struct Drain {
    services: HostServices,
    state: Mutex<State>,
    /// How much of what it said has been taken.
    seen: AtomicU32,
    dropped: AtomicU64,
}

struct State {
    log_read: u32,
    dropped_seen: u32,
    refused_seen: u32,
    counters: Vec<Counted>,
    bucket: Bucket,
    /// The start of a line of error output whose end has not come yet.
    partial: Vec<u8>,
}

/// A counter under the name it first had.
struct Counted {
    /// None when the name is no name, or one too many.
    name: Option<String>,
    value: u64,
}

impl Drain {
    pub(super) fn new(services: HostServices) -> Self {
        let state = State {
            log_read: 0,
            dropped_seen: 0,
            refused_seen: 0,
            counters: Vec::new(),
            bucket: Bucket::full(Instant::now()),
            partial: Vec::new(),
        };
        Self {
            services,
            state: Mutex::new(state),
            seen: AtomicU32::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Lines that were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Takes what is new. Somebody who is at it already takes it for everybody.
    pub(super) fn take(&self, down: &Down, up: &Up) {
        // One look, for the path of every call.
        let services = up.state.services.load(Ordering::Acquire);
        if services == self.seen.load(Ordering::Relaxed) {
            return;
        }
        let Some(mut state) = self.state.try_lock() else { return };
        self.seen.store(services, Ordering::Relaxed);
        let refused = up.state.refused_writes.load(Ordering::Relaxed);
        count_refused_writes(u64::from(refused.wrapping_sub(state.refused_seen)));
        state.refused_seen = refused;
        self.take_counters(&mut state, up);
        self.take_lines(&mut state, down, up);
    }

    fn take_counters(&self, state: &mut State, up: &Up) {
        let named = up.state.counters.load(Ordering::Acquire) as usize;
        let named = named.min(PLUGIN_COUNTERS_MAX);
        while state.counters.len() < named {
            let counter = &up.counters[state.counters.len()];
            let len = counter.name_len.load(Ordering::Relaxed) as usize;
            let bytes = counter.name.iter().take(len.min(COUNTER_NAME_MAX));
            let bytes: Vec<u8> = bytes.map(|byte| byte.load(Ordering::Relaxed)).collect();
            let name = counter_name(&bytes)
                .filter(|_| self.services.capabilities.contains(&Capability::Metrics))
                .filter(|name| admits_counter(&self.services.plugin, name))
                .map(str::to_owned);
            state.counters.push(Counted { name, value: 0 });
        }
        for (counted, counter) in state.counters.iter_mut().zip(&up.counters) {
            let value = counter.value.load(Ordering::Relaxed);
            let delta = value.wrapping_sub(counted.value);
            counted.value = value;
            // Nobody counts that far in one go: it went back.
            if let (Some(name), 1..=0x7fff_ffff_ffff_ffff) = (&counted.name, delta) {
                (self.services.counter)(name, delta);
            }
        }
    }

    fn take_lines(&self, state: &mut State, down: &Down, up: &Up) {
        let dropped = up.state.log_dropped.load(Ordering::Relaxed);
        let lost = dropped.wrapping_sub(state.dropped_seen);
        state.dropped_seen = dropped;
        self.dropped.fetch_add(u64::from(lost), Ordering::Relaxed);
        let head = up.log.head.load(Ordering::Acquire);
        let byte = |at: u32| up.log.bytes[at as usize % LOG_BYTES].load(Ordering::Relaxed);
        let number = |at: u32| u16::from_le_bytes([byte(at), byte(at.wrapping_add(1))]);
        let waiting = head.wrapping_sub(state.log_read);
        // More than there is room for is no log.
        let mut left = if waiting as usize <= LOG_BYTES { waiting } else { 0 };
        let mut at = head.wrapping_sub(left);
        while left >= 4 {
            let (level, len) = (number(at), number(at.wrapping_add(2)));
            let len = u32::from(len).min(left - 4);
            let text: Vec<u8> = (0..len).map(|offset| byte(at.wrapping_add(4 + offset))).collect();
            self.line(state, LogLevel::from_abi(u32::from(level)), &text);
            at = at.wrapping_add(4 + len);
            left -= 4 + len;
        }
        state.log_read = head;
        down.log_read.word.store(head, Ordering::Release);
    }

    fn line(&self, state: &mut State, level: LogLevel, text: &[u8]) {
        if !self.services.capabilities.contains(&Capability::Log) {
            return;
        }
        self.tell(state, level, text);
    }

    fn tell(&self, state: &mut State, level: LogLevel, text: &[u8]) {
        if !state.bucket.take(Instant::now()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let kept = text.len().min(LOG_LINE_BYTES_MAX);
        (self.services.log)(level, &clean_text(&text[..kept], kept < text.len()));
    }

    /// What the plugin wrote to its error output, line by line.
    pub(super) fn stderr(&self, new: &[u8]) {
        let mut state = self.state.lock();
        let mut text = std::mem::take(&mut state.partial);
        text.extend_from_slice(new);
        let mut lines = text.split(|byte| *byte == b'\n');
        // The last has no end yet.
        let partial = lines.next_back().unwrap_or_default();
        for line in lines.filter(|line| !line.is_empty()) {
            self.tell(&mut state, LogLevel::Warn, line);
        }
        if partial.len() > LOG_LINE_BYTES_MAX {
            self.tell(&mut state, LogLevel::Warn, partial);
        } else {
            state.partial = partial.to_vec();
        }
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drain").field("services", &self.services).finish_non_exhaustive()
    }
}
