//! A plugin that panics: in init when its configuration says `{"panic": true}`, in method 1 always, in
//! shutdown always; method 2 echoes.

use themis_plugin::{Config, Error, Host, Plugin};

/// The plugin has no state.
pub struct Panics;

impl Plugin for Panics {
    fn init(_host: Host, config: Config) -> Result<Self, Error> {
        let settings: serde_json::Value = config.parse()?;
        assert_ne!(settings["panic"], true, "told to panic");
        Ok(Self)
    }

    #[expect(clippy::panic, reason = "what this plugin is for")]
    fn shutdown(self) -> Result<(), Error> {
        std::panic::panic_any(42_u8)
    }
}

impl Panics {
    #[expect(clippy::panic, reason = "what this plugin is for")]
    fn explode(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        std::panic::panic_any(format!("boom at {} bytes", request.len()))
    }

    fn echo(&self, request: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(request.to_vec())
    }
}

themis_plugin::export! {
    plugin: Panics, name: "panics", version: "1.0.0", thread_safe: true,
    methods: { 1 => raw explode, 2 => raw echo }
}
