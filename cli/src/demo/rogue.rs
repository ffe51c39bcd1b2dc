//! The acts of a plugin that nobody should have loaded: it eats memory, it hangs, and nothing else happens.

use std::time::{Duration, Instant};

use themis_kernel::call::CallError;
use themis_kernel::event::LifecycleEvent;
use themis_kernel::lifecycle::Operation;
use themis_kernel::sandbox::Isolation;
use themis_kernel::{Events, Kernel, PluginRef};

use super::Sabotage;
use super::report::Claim;
use crate::output::Failure;

const EAT_MEMORY: u32 = 1;
const HANG: u32 = 2;
const SERVE: u32 = 3;

/// How long a call of it may take.
pub(super) const CALL_DEADLINE: Duration = Duration::from_secs(2);

/// What one act came to.
#[derive(Debug)]
pub(super) struct Act {
    code: String,
    took: Duration,
    /// It was called again after its restart, and answered.
    serves_again: bool,
}

/// Both acts.
#[derive(Debug)]
pub(super) struct Shown {
    isolation: Option<Isolation>,
    memory: Act,
    hang: Act,
}

pub(super) fn play(
    kernel: &Kernel,
    text: &PluginRef,
    sabotage: Option<Sabotage>,
    say: &impl Fn(&str),
) -> Result<Shown, Failure> {
    let rogue = kernel.loader().load_blocking("rogue/1.0.0", None)?;
    let mut events = kernel.subscribe();
    say("6. rogue eats memory, in its worker process");
    let spared = sabotage == Some(Sabotage::Memory);
    let memory = act(&rogue, if spared { SERVE } else { EAT_MEMORY }, &mut events, say)?;
    say("7. rogue hangs");
    let hang = act(&rogue, HANG, &mut events, say)?;
    Ok(Shown { isolation: text.info().isolation, memory, hang })
}

fn act(
    rogue: &PluginRef,
    method: u32,
    events: &mut Events,
    say: &impl Fn(&str),
) -> Result<Act, Failure> {
    let started = Instant::now();
    let ended = rogue.call(method, b"");
    let took = started.elapsed();
    let code = match &ended {
        Ok(_) => "it answered".to_owned(),
        Err(error) => {
            say(&format!("   {} after {took:.2?}: {error}", error.code()));
            error.code().to_owned()
        }
    };
    if matches!(ended, Err(CallError::Ended { .. })) {
        wait_for_restart(events)?;
    }
    let serves_again = rogue.call(SERVE, b"").is_ok_and(|it| it.bytes == b"at your service");
    Ok(Act { code, took, serves_again })
}

fn wait_for_restart(events: &mut Events) -> Result<(), Failure> {
    let stopped = || Failure::new("demo.events", "the kernel stopped");
    loop {
        let event = events.next_blocking()?.ok_or_else(stopped)?;
        if let LifecycleEvent::Serves { receipt } = event.what
            && receipt.operation == Operation::Restart
        {
            return Ok(());
        }
    }
}

impl Shown {
    pub(super) fn claims(&self) -> [Claim; 3] {
        let confined = match &self.isolation {
            Some(isolation) => format!("level {}", isolation.level),
            None => "in the host".to_owned(),
        };
        let claim = |what: &str, act: &Act, code: &str, limit: Duration| {
            let again = if act.serves_again { "serves again" } else { "does not serve" };
            let held = act.code == code && act.serves_again && act.took < limit;
            Claim::new(what, format!("{} after {:.2?}, {again}", act.code, act.took), held)
        };
        let late = CALL_DEADLINE + Duration::from_millis(500);
        [
            Claim::new("text runs in a worker process", confined, self.isolation.is_some()),
            claim("a plugin that eats memory", &self.memory, "sandbox.memory_limit", late),
            claim("a plugin that hangs", &self.hang, "sandbox.deadline", late),
        ]
    }
}
