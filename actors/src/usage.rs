//! What a generation has used: told by its tier, or estimated from sampled calls where the tier cannot tell.
//!
//! In the host's own process nobody counts a plugin's time or memory. One call in
//! [`LATENCY_SAMPLE`] is measured by the clock of the caller's thread, and taken
//! for all of them; memory is what its image keeps. Other tiers count exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::ClockId;
use themis_messages::ids::Tier;
use themis_messages::limits::LATENCY_SAMPLE;
use themis_messages::sandbox::Usage;

use crate::generation::Generation;

/// Sums of the sampled calls of one generation.
#[derive(Debug, Default)]
pub struct Sampled {
    cpu_ns: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    /// What the metrics know already.
    pub(crate) folded: Mutex<Usage>,
}

impl Sampled {
    /// One call, for as many as are not measured.
    pub(crate) fn add(&self, cpu: Duration, request: usize, reply: usize) {
        let share = u64::from(LATENCY_SAMPLE);
        let cpu = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX).saturating_mul(share);
        self.cpu_ns.fetch_add(cpu, Ordering::Relaxed);
        self.request_bytes.fetch_add(request as u64 * share, Ordering::Relaxed);
        self.reply_bytes.fetch_add(reply as u64 * share, Ordering::Relaxed);
    }
}

/// Time this thread has spent on a CPU.
pub(crate) fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Generation {
    /// What it has used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        if self.tier != Tier::InProcess {
            return self.instance.usage();
        }
        let memory = Some(self.instance.evidence().resident_bytes);
        Usage {
            cpu: Some(Duration::from_nanos(self.sampled.cpu_ns.load(Ordering::Relaxed))),
            memory_bytes: memory,
            memory_peak_bytes: memory,
            page_faults: None,
            request_bytes: self.sampled.request_bytes.load(Ordering::Relaxed),
            reply_bytes: self.sampled.reply_bytes.load(Ordering::Relaxed),
            log_lines_dropped: 0,
            fuel: None,
            fuel_remaining: None,
        }
    }
}
