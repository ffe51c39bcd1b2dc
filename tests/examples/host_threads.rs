//! A plugin that leaves things behind on every thread that calls it: method 1 answers its version, 2 touches a
//! thread-local that has a destructor, 3 the thread's own handle; 4 answers how many of those destructors have run.

use std::sync::atomic::{AtomicU64, Ordering};

use themis_plugin::{Config, Error, Host, Plugin};

/// Destructors that have run.
static ENDED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static LEFT_BEHIND: LeftBehind = const { LeftBehind };
}

struct LeftBehind;

impl Drop for LeftBehind {
    fn drop(&mut self) {
        ENDED.fetch_add(1, Ordering::SeqCst);
    }
}

/// The plugin has no state.
pub struct HostThreads;

impl Plugin for HostThreads {
    fn init(_host: Host, _config: Config) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl HostThreads {
    fn version(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(b"1.0.0".to_vec())
    }

    fn leave_a_local(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        LEFT_BEHIND.with(|_| Ok(Vec::new()))
    }

    /// The plugin has a standard library of its own, which registers its own end of this thread.
    fn leave_a_handle(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(format!("{:?}", std::thread::current().id()).into_bytes())
    }

    fn ended(&self, _request: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(ENDED.load(Ordering::SeqCst).to_le_bytes().to_vec())
    }
}

themis_plugin::export! {
    plugin: HostThreads, name: "host_threads", version: "1.0.0", thread_safe: true,
    methods: { 1 => raw version, 2 => raw leave_a_local, 3 => raw leave_a_handle, 4 => raw ended }
}
