//! Plugin {{name}}: greets, and remembers how often.

use std::sync::atomic::{AtomicU64, Ordering};

use themis_plugin::{Config, Error, Host, Plugin, Stateful, info};

/// What one instance remembers. The kernel makes an instance for each version that is loaded.
pub struct Greeter {
    greeted: AtomicU64,
}

impl Plugin for Greeter {
    fn init(host: Host, _config: Config) -> Result<Self, Error> {
        info!(host, "{{name}} is ready");
        Ok(Self { greeted: AtomicU64::new(0) })
    }
}

/// The state goes to the next version: no call is under way meanwhile.
impl Stateful for Greeter {
    fn save_state(&self) -> Result<Vec<u8>, Error> {
        Ok(self.greeted.load(Ordering::Relaxed).to_le_bytes().to_vec())
    }

    fn reload(&self, _from_version: &str, state: &[u8]) -> Result<(), Error> {
        let greeted = state.try_into().map_err(|_| Error::new("not our state"))?;
        self.greeted.store(u64::from_le_bytes(greeted), Ordering::Relaxed);
        Ok(())
    }
}

impl Greeter {
    /// May run on many threads at once: `thread_safe: true` below.
    fn hello(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        if request.len() > 1_000 {
            return Err(Error::bad_request("nobody has so long a name"));
        }
        self.greeted.fetch_add(1, Ordering::Relaxed);
        Ok(greeting(request))
    }
}

/// What is answered; apart from the plugin, so that it can be tested without a host.
pub fn greeting(name: &[u8]) -> Vec<u8> {
    [b"hello, ".as_slice(), name].concat()
}

themis_plugin::export! {
    plugin: Greeter, name: "{{name}}", version: "0.1.0", thread_safe: true, stateful: true,
    methods: { 1 => raw hello }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets() {
        assert_eq!(greeting(b"world"), b"hello, world");
    }

    #[test]
    fn the_state_goes_to_the_next_version() {
        let greeter = |greeted| Greeter { greeted: AtomicU64::new(greeted) };
        let (old, new) = (greeter(7), greeter(0));
        new.reload("0.0.1", &old.save_state().unwrap()).unwrap();
        assert_eq!(new.greeted.into_inner(), 7);
        assert!(old.reload("0.0.1", b"nonsense?").is_err());
    }
}
