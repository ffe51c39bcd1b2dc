//! How far an installation is, for people: a bar while bytes arrive, a word for everything else.

use indicatif::{ProgressBar, ProgressStyle};
use themis_kernel::market::Progress;

/// Shows steps on stderr, where it is a terminal and nobody wants JSON.
#[derive(Debug)]
pub(super) struct Steps {
    bar: ProgressBar,
}

impl Steps {
    pub(super) fn new(quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        Self { bar }
    }

    /// Shows one step.
    pub(super) fn show(&self, step: &Progress) {
        match step {
            Progress::Fetching { plugin, version, bytes, of } => {
                self.bar.set_style(bytes_style());
                self.bar.set_length(*of);
                self.bar.set_position(*bytes);
                self.bar.set_message(format!("{plugin} {version}"));
            }
            Progress::Metadata => self.say("asking the registry".to_owned()),
            Progress::Resolving => self.say("choosing versions".to_owned()),
            Progress::Verifying { plugin, version } => {
                self.say(format!("verifying {plugin} {version}"));
            }
            Progress::Installing { plugin, version } => {
                self.say(format!("installing {plugin} {version}"));
            }
            Progress::Retrying { why, after } => {
                self.say(format!("trying again in {after:.1?}: {}", crate::output::clean(why)));
            }
        }
    }

    fn say(&self, what: String) {
        self.bar.set_style(ProgressStyle::default_spinner());
        self.bar.set_message(what);
        self.bar.tick();
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The library refuses templates that it cannot read; this one it can, and else its own is as good.
fn bytes_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
