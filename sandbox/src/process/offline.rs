//! A promise that cannot be broken: a process that opens no socket any more.
//!
//! "Offline" is easily said by code that then asks a server after all, by a library, a look-up of a name, a retry. The
//! system call is taken away instead; what still asks gets "permission denied", and nothing leaves the machine.

use std::collections::BTreeMap;

use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
use themis_messages::sandbox::OfflineError;

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

/// Takes the right to make sockets from every thread of this process, and from whatever they start. There is no way back.
///
/// Pairs of connected sockets are still made: they lead nowhere but into the process itself.
///
/// # Errors
/// [`OfflineError`]: then nothing was taken, and whoever promised to be offline must not go on.
pub fn forbid_sockets() -> Result<(), OfflineError> {
    let failed = |what: String| OfflineError { what };
    let denied = SeccompAction::Errno(u32::try_from(libc::EACCES).unwrap_or(1));
    let rules = BTreeMap::from([(libc::SYS_socket, vec![])]);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, ARCH);
    let program = filter.and_then(seccompiler::BpfProgram::try_from);
    let program = program.map_err(|error| failed(error.to_string()))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Each test is a process of its own, which is offline from here on.
    #[test]
    fn nothing_leaves_any_more() {
        let before = std::thread::spawn(|| {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                assert!(wait.recv().is_err());
                UdpSocket::bind("127.0.0.1:0").map(drop)
            });
            (go, thread)
        });
        let (go, thread) = before.join().unwrap();
        forbid_sockets().unwrap();
        let denied = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        assert!(TcpStream::connect("127.0.0.1:1").is_err_and(denied));
        assert!(UdpSocket::bind("127.0.0.1:0").is_err_and(denied));
        assert!(UnixListener::bind("/tmp/never-made.sock").is_err_and(denied));
        drop(go);
        assert!(thread.join().unwrap().is_err_and(denied), "a thread that was there before");
        assert!(UnixStream::pair().is_ok());
    }
}
