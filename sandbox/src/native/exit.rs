//! Ends the process where an ordinary exit would wait for ever.
#![expect(unsafe_code, reason = "the system's own way to end at once")]

/// Ends the process at once: no destructors, no exit handlers, nothing flushed.
///
/// A constructor that hangs holds the system loader's lock, and an ordinary exit waits for that lock. Whatever
/// must not be lost has to be on the disk before this is called.
pub fn end_process(code: u8) -> ! {
    // SAFETY: `_exit` takes any status, touches no memory of this program and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}
