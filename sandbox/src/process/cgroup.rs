//! Groups of processes with limits (cgroup v2).
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

pub(super) struct GroupLimits {
    pub(super) memory_bytes: u64,
    pub(super) cpu_percent: u32,
    pub(super) pids: u32,
}
pub(super) enum Controls {
    Full,
    KillOnly { why: String },
}
#[derive(Debug)]
pub(super) struct Subtree;
#[derive(Debug)]
pub(super) struct Group(OwnedFd);
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub(super) struct CgroupError;
impl CgroupError {
    pub(super) fn errno(&self) -> Errno {
        Errno::IO
    }
}
pub(super) struct GroupUsage {
    pub(super) cpu: Duration,
    pub(super) memory_bytes: Option<u64>,
    pub(super) memory_peak_bytes: Option<u64>,
}
impl Subtree {
    pub(super) fn open() -> Result<Self, CgroupError> {
        Err(CgroupError)
    }
    pub(super) fn controls(&self) -> &Controls {
        &Controls::Full
    }
    pub(super) fn create(&self, _n: u64, _l: &GroupLimits) -> Result<Group, CgroupError> {
        Err(CgroupError)
    }
}
impl Group {
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
    pub(super) fn kill(&self) -> Result<(), CgroupError> {
        Ok(())
    }
    pub(super) fn oom_kills(&self) -> u64 {
        0
    }
    pub(super) fn memory_events(&self) -> Option<OwnedFd> {
        None
    }
    pub(super) fn usage(&self) -> GroupUsage {
        GroupUsage { cpu: Duration::ZERO, memory_bytes: None, memory_peak_bytes: None }
    }
    pub(super) fn remove(self) -> Result<(), CgroupError> {
        Ok(())
    }
}
