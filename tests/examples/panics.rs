//! A plugin that panics: in the hook that its configuration names (`{"panic": "init"}`, `health`, `save_state`,
//! `reload`, `shutdown`), and in method 1 always; method 2 echoes.

use themis_plugin::{Config, Error, Host, Plugin, Stateful};

/// Knows where to panic.
pub struct Panics {
    hook: String,
}

impl Panics {
    fn pass(&self, hook: &str) {
        assert_ne!(self.hook, hook, "told to panic");
    }
}

impl Plugin for Panics {
    fn init(_host: Host, config: Config) -> Result<Self, Error> {
        let settings: serde_json::Value = config.parse()?;
        let own = Self { hook: settings["panic"].as_str().unwrap_or_default().to_owned() };
        own.pass("init");
        Ok(own)
    }

    fn health(&self) -> Result<(), Error> {
        self.pass("health");
        Ok(())
    }

    #[expect(clippy::panic, reason = "what this plugin is for")]
    fn shutdown(self) -> Result<(), Error> {
        match self.hook.as_str() {
            // Not with a text, which is harder to answer.
            "shutdown" => std::panic::panic_any(42_u8),
            _ => Ok(()),
        }
    }
}

impl Stateful for Panics {
    fn save_state(&self) -> Result<Vec<u8>, Error> {
        self.pass("save_state");
        Ok(Vec::new())
    }

    fn reload(&self, _from_version: &str, _state: &[u8]) -> Result<(), Error> {
        self.pass("reload");
        Ok(())
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
    plugin: Panics, name: "panics", version: "1.0.0", thread_safe: true, stateful: true,
    methods: { 1 => raw explode, 2 => raw echo }
}
