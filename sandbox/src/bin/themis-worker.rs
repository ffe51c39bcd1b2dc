//! The program that sandboxed plugins run in, for hosts that do not want to be it themselves.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(ended) = themis_sandbox::process::process_entry() {
        return ended;
    }
    eprintln!(
        "themis-worker: is started by a kernel, not by hand: set `worker` to its path in the configuration"
    );
    ExitCode::from(2)
}
