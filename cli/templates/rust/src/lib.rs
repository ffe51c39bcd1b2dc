//! Plugin {{name}}: greets whoever it is sent, and counts how often.

use std::sync::atomic::{AtomicU64, Ordering};

use themis_plugin::{Config, Error, Host, Plugin, Stateful, info};

/// What lives between calls. It belongs in here, not into statics: those are shared by all instances.
#[derive(Default)]
pub struct Hello {
    greeted: AtomicU64,
}

impl Plugin for Hello {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        info!(host, "{{name}} {} is ready", env!("CARGO_PKG_VERSION"));
        Ok(Self::default())
    }
}

impl Stateful for Hello {
    fn save_state(&self) -> Result<Vec<u8>, Error> {
        Ok(self.greeted.load(Ordering::Relaxed).to_le_bytes().to_vec())
    }

    fn reload(&self, from_version: &str, state: &[u8]) -> Result<(), Error> {
        let bytes = state
            .try_into()
            .map_err(|_| Error::new(format!("{from_version} left {} bytes, want 8", state.len())))?;
        self.greeted.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        Ok(())
    }
}

impl Hello {
    /// Any bytes in, "hello, " and the same bytes out.
    fn hello(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        self.greeted.fetch_add(1, Ordering::Relaxed);
        Ok([b"hello, ", request].concat())
    }

    /// How often `hello` was called, over reloads too. Argument and answer travel as MessagePack.
    fn greeted(&self, _nothing: ()) -> Result<u64, Error> {
        Ok(self.greeted.load(Ordering::Relaxed))
    }
}

themis_plugin::export! {
    plugin: Hello, name: "{{name}}", version: env!("CARGO_PKG_VERSION"), thread_safe: true,
    stateful: true,
    methods: { 1 => raw hello, 2 => greeted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets() {
        let plugin = Hello::default();
        assert_eq!(plugin.hello(b"world").unwrap(), b"hello, world");
        assert_eq!(plugin.hello(b"").unwrap(), b"hello, ");
    }

    #[test]
    fn the_count_survives_a_reload() {
        let old = Hello::default();
        old.hello(b"world").unwrap();
        let new = Hello::default();
        new.reload("0.1.0", &old.save_state().unwrap()).unwrap();
        assert_eq!(new.greeted(()).unwrap(), 1);
    }

    #[test]
    fn foreign_state_is_refused() {
        assert!(Hello::default().reload("0.1.0", b"short").is_err());
    }
}
