//! Short messages with descriptors between host, spawner and worker, over sockets that keep message borders.
#![expect(unsafe_code, reason = "reads and makes plain structures of bytes")]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Most descriptors of one message.
const FDS_MAX: usize = 8;

/// Two ends of a connection.
pub(super) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// A message: a plain structure of integers, the same on both sides of one build.
///
/// # Safety
/// Any bytes are a value, and there is no padding.
pub(super) unsafe trait Plain: Copy {}

/// Host to spawner: start a worker. With it go control, down, up, event, log, and the cgroup where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Spawn {
    pub(super) number: u64,
    pub(super) into_cgroup: u64,
}

/// Spawner to host, with the handle of the process where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Spawned {
    pub(super) number: u64,
    /// As the host sees it; zero when it failed.
    pub(super) pid: u32,
    pub(super) errno: i32,
}

/// Spawner to host, once: what workers will have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Hello {
    pub(super) layers: u32,
    pub(super) errno: i32,
}

/// Worker to host, before a plugin: its memory map's handle goes with step 0, and any other step is the one that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Told {
    pub(super) step: u32,
    pub(super) errno: i32,
}

/// Host to worker: one file of the plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct PluginFile {
    pub(super) bytes: u64,
    /// Zero is the image; data files count from one.
    pub(super) index: u32,
    pub(super) unused: u32,
}

// SAFETY: integers without gaps.
unsafe impl Plain for Spawn {}
// SAFETY: as above.
unsafe impl Plain for Spawned {}
// SAFETY: as above.
unsafe impl Plain for Hello {}
// SAFETY: as above.
unsafe impl Plain for Told {}
// SAFETY: as above.
unsafe impl Plain for PluginFile {}

/// Sends one message with descriptors.
pub(super) fn send<T: Plain>(
    socket: impl AsFd,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    // SAFETY: a plain structure without padding is that many initialised bytes.
    let bytes =
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(message).cast(), size_of::<T>()) };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOBIG);
    }
    let parts = [IoSlice::new(bytes)];
    let flags = SendFlags::NOSIGNAL;
    // With a time limit on its socket a call is not begun again by the system after a signal.
    retry_on_intr(|| rustix::net::sendmsg(&socket, &parts, &mut ancillary, flags))?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the other side is gone.
pub(super) fn receive<T: Plain>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>, Errno> {
    let mut message = MaybeUninit::<T>::zeroed();
    // SAFETY: zeroed, so initialised; a plain structure has no padding.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(message.as_mut_ptr().cast::<u8>(), size_of::<T>())
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(bytes)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = retry_on_intr(|| rustix::net::recvmsg(&socket, parts, &mut ancillary, flags))?;
    let mut fds = Vec::new();
    for part in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(Errno::BADMSG);
    }
    // Descriptors that found no number are dropped one by one: what is left is not what was sent.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    match received.bytes {
        0 => Ok(None),
        // SAFETY: any bytes are a value of a plain structure.
        whole if whole == size_of::<T>() => Ok(Some((unsafe { message.assume_init() }, fds))),
        _ => Err(Errno::BADMSG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (one, other) = pair().unwrap();
        let (extra, _) = pair().unwrap();
        let message = PluginFile { bytes: 5, index: 7, unused: 0 };
        send(&one, &message, &[extra.as_fd()]).unwrap();
        let (received, fds) = receive::<PluginFile>(&other).unwrap().unwrap();
        assert_eq!((received, fds.len()), (message, 1));
        drop(one);
        assert_eq!(receive::<PluginFile>(&other).unwrap().map(|it| it.0), None);
    }

    #[test]
    fn a_message_of_another_size_is_refused() {
        let (one, other) = pair().unwrap();
        send(&one, &Spawned { number: 1, pid: 2, errno: 3 }, &[]).unwrap();
        assert_eq!(receive::<Told>(&other).map(|_| ()), Err(Errno::BADMSG));
    }
}
