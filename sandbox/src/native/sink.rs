//! What takes the bytes of a reply: usable by the thread that is inside the call, while the call lasts, and by nobody
//! else.
//!
//! ```text
//! lend ──▶ this thread's sink is open under a number ──▶ call ──▶ end of the loan: closed, the number is spent
//!                     ▲ write(number, bytes)
//! ```
//!
//! A plugin may keep what it was lent, and write after its call, or from a thread of its own. So what it is given
//! is no pointer but a number that was never used before; writing looks it up in the writer's own thread. The
//! structure around it lies in the thread's memory rather than on its stack, so that a pointer kept too long leads to
//! a spent number instead of into whatever the stack holds by then. Nothing here has a destructor: the C library
//! would register it under the lock that a hung constructor holds.
#![expect(unsafe_code, reason = "lends what plugins write to")]

use std::cell::{Cell, UnsafeCell};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use themis_messages::instance::ReplyBuffer;
use themis_messages::limits::{HOOK_MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX};
use themis_plugin::abi::{self, Reply, Slice};

use super::services::{guarded, prefix};

/// What a sink answers when it would not take a chunk.
const REFUSED: i32 = 1;
/// Structures each thread lends in turn: a pointer to one is stale for so many calls before it is used again.
const LENT: usize = 8;
/// A loan's number is the thread's block and a count within it.
const COUNT_BITS: u32 = 31;

/// Writes that came too late or from another thread.
static REFUSED_WRITES: AtomicU64 = AtomicU64::new(0);
/// Blocks of numbers that threads have taken.
static BLOCKS: AtomicU64 = AtomicU64::new(1);

/// How often a plugin tried to write after its call, or from another thread than the call's. The bytes were not
/// taken.
#[must_use]
pub fn refused_writes() -> u64 {
    REFUSED_WRITES.load(Ordering::Relaxed)
}

/// Counts refusals of another process.
pub(crate) fn count_refused_writes(more: u64) {
    REFUSED_WRITES.fetch_add(more, Ordering::Relaxed);
}

/// The loan of this thread that may be written to.
#[derive(Clone, Copy)]
struct Open {
    /// Never zero while one is open.
    number: usize,
    target: *mut c_void,
}

const CLOSED: Open = Open { number: 0, target: ptr::null_mut() };

/// What one thread keeps of its loans, in one place: a call looks it up once.
struct Ledger {
    open: Cell<Open>,
    /// The last number this thread has used.
    last: Cell<u64>,
    structures: [UnsafeCell<Reply>; LENT],
}

// Registering a destructor would wait for the loader.
const _: () = assert!(!std::mem::needs_drop::<Ledger>());

thread_local! {
    static LEDGER: Ledger = const {
        Ledger {
            open: Cell::new(CLOSED),
            last: Cell::new(0),
            structures: [const {
                UnsafeCell::new(Reply { struct_size: 0, ctx: ptr::null_mut(), write: write::<Message> })
            }; LENT],
        }
    };
}

impl Ledger {
    /// A number that no loan has had.
    fn fresh_number(&self) -> u64 {
        let mut number = self.last.get() + 1;
        if number & ((1 << COUNT_BITS) - 1) <= 1 {
            number = BLOCKS.fetch_add(1, Ordering::Relaxed) << COUNT_BITS | 2;
        }
        self.last.set(number);
        number
    }
}

/// What can be lent. A number says for which kind it is, so that one sink's cannot be used with another's function.
pub(crate) trait Target {
    /// Unlike that of any other kind; below the bits of a number.
    const KIND: usize;

    /// Takes a chunk; `false` when it is refused, now and from now on.
    fn take(&mut self, chunk: Slice) -> bool;
}

impl Target for ReplyBuffer<'_> {
    const KIND: usize = 1 << (usize::BITS - 1);

    fn take(&mut self, chunk: Slice) -> bool {
        // One byte more than any reply may have is enough to be refused.
        // SAFETY: valid during this call by the ABI.
        self.write(unsafe { prefix(chunk, MESSAGE_BYTES_MAX + 1) })
    }
}

/// The text of a hook's error, cut at its cap.
#[derive(Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    pub(super) cut: bool,
}

impl Target for Message {
    const KIND: usize = 0;

    fn take(&mut self, chunk: Slice) -> bool {
        let room = HOOK_MESSAGE_BYTES_MAX - self.bytes.len();
        // SAFETY: valid during this call by the ABI.
        self.bytes.extend_from_slice(unsafe { prefix(chunk, room) });
        self.cut |= chunk.len > room;
        !self.cut
    }
}

/// A sink that this thread has lent to a plugin, until this is dropped.
pub(crate) struct Loan<'a> {
    before: Open,
    structure: *const Reply,
    /// Of the thread that lends, and so never another one's: a pointer is not `Send`.
    ledger: *const Ledger,
    /// The target is the plugin's for as long.
    target: PhantomData<&'a mut ()>,
}

/// Lends `target` to whatever this thread calls next.
#[inline]
pub(crate) fn lend<T: Target>(target: &mut T) -> Loan<'_> {
    LEDGER.with(|ledger| {
        let fresh = ledger.fresh_number();
        let number = fresh as usize | T::KIND;
        let ctx = ptr::without_provenance_mut(number);
        let structure = ledger.structures[fresh as usize % LENT].get();
        let reply = Reply { struct_size: size_of::<Reply>() as u32, ctx, write: write::<T> };
        // SAFETY: the structures are this thread's own, and the host's side never holds a reference into them. A
        // plugin that reads a stale one from another thread meanwhile breaks the ABI; each field is a plain word.
        unsafe { structure.write(reply) };
        let before = ledger.open.replace(Open { number, target: ptr::from_mut(target).cast() });
        Loan { before, structure, ledger, target: PhantomData }
    })
}

impl Loan<'_> {
    /// What the plugin is given.
    pub(crate) fn as_ptr(&self) -> *const Reply {
        self.structure
    }
}

impl Drop for Loan<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this runs on the thread that lent, whose ledger has no destructor and is there until its end.
        let ledger = unsafe { &*self.ledger };
        ledger.open.set(self.before);
    }
}

/// Takes a chunk for the loan that is open on this thread, if that is the one meant.
///
/// # Safety
/// `chunk` is valid, as the ABI promises. `ctx` may be anything.
unsafe extern "C" fn write<T: Target>(ctx: *mut c_void, chunk: Slice) -> i32 {
    guarded(REFUSED, || {
        let open = LEDGER.with(|ledger| ledger.open.get());
        let meant = open.number == ctx.addr() && open.number != 0 && open.number & KINDS == T::KIND;
        if !meant {
            REFUSED_WRITES.fetch_add(1, Ordering::Relaxed);
            return REFUSED;
        }
        // SAFETY: this thread's loan is open, so its target is alive and lent to the plugin; the number says that
        // it is of this kind. Nobody else has it: numbers are never used twice.
        let target = unsafe { &mut *open.target.cast::<T>() };
        if target.take(chunk) { abi::OK } else { REFUSED }
    })
}

/// The bits of a number that say its kind.
const KINDS: usize = 3 << (usize::BITS - 2);

#[cfg(test)]
mod tests {
    use super::*;

    /// As a plugin writes.
    fn write_to(reply: *const Reply, text: &str) -> i32 {
        // SAFETY: the structures live as long as their thread.
        let (ctx, write) = unsafe { ((*reply).ctx, (*reply).write) };
        // SAFETY: the slice is valid.
        unsafe { write(ctx, Slice::new(text.as_bytes())) }
    }

    #[test]
    fn a_sink_takes_bytes_while_it_is_lent_and_not_after() {
        let mut bytes = Vec::new();
        let mut buffer = ReplyBuffer::new(&mut bytes);
        let loan = lend(&mut buffer);
        let kept = loan.as_ptr();
        assert_eq!(write_to(kept, "in time"), abi::OK);
        drop(loan);
        let before = refused_writes();
        assert_eq!(write_to(kept, "late"), REFUSED);
        assert_eq!(refused_writes(), before + 1);
        assert_eq!(bytes, b"in time");
    }

    #[test]
    fn a_sink_kept_from_an_earlier_call_does_not_reach_a_later_one() {
        let (mut first, mut later) = (Message::default(), Message::default());
        let kept = lend(&mut first).as_ptr();
        // SAFETY: the structures live as long as their thread.
        let kept_ctx = unsafe { (*kept).ctx };
        let loan = lend(&mut later);
        assert_eq!(write_to(kept, "by the pointer"), REFUSED);
        // SAFETY: the slice is valid.
        let by_copy = unsafe { write::<Message>(kept_ctx, Slice::new(b"by the copy")) };
        assert_eq!(by_copy, REFUSED);
        assert_eq!(write_to(loan.as_ptr(), "its own"), abi::OK);
        drop(loan);
        assert_eq!((first.bytes.as_slice(), later.bytes.as_slice()), (&b""[..], &b"its own"[..]));
    }

    #[test]
    fn a_sink_is_its_threads() {
        let mut message = Message::default();
        let loan = lend(&mut message);
        let address = loan.as_ptr().addr();
        let refused = std::thread::scope(|scope| {
            let foreign =
                scope.spawn(|| write_to(ptr::with_exposed_provenance(address), "foreign"));
            loan.as_ptr().expose_provenance();
            foreign.join().unwrap()
        });
        assert_eq!(refused, REFUSED);
        drop(loan);
        assert_eq!(message.bytes, b"");
    }

    #[test]
    fn loans_nest_and_a_number_is_of_one_kind() {
        let mut outer = Message::default();
        let outer_loan = lend(&mut outer);
        let mut bytes = Vec::new();
        let mut inner = ReplyBuffer::new(&mut bytes);
        let inner_loan = lend(&mut inner);
        assert_eq!(write_to(outer_loan.as_ptr(), "not its turn"), REFUSED);
        assert_eq!(write_to(inner_loan.as_ptr(), "inner"), abi::OK);
        // SAFETY: the structures live as long as their thread.
        let ctx = unsafe { (*inner_loan.as_ptr()).ctx };
        // SAFETY: the slice is valid.
        let confused = unsafe { write::<Message>(ctx, Slice::new(b"confused")) };
        assert_eq!(confused, REFUSED);
        drop(inner_loan);
        assert_eq!(write_to(outer_loan.as_ptr(), "outer"), abi::OK);
        drop(outer_loan);
        assert_eq!((bytes.as_slice(), outer.bytes.as_slice()), (&b"inner"[..], &b"outer"[..]));
    }

    #[test]
    fn a_loan_ends_also_when_its_call_unwinds() {
        let (mut outer, mut inner) = (Message::default(), Message::default());
        let outer_loan = lend(&mut outer);
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _inner_loan = lend(&mut inner);
            std::panic::resume_unwind(Box::new("out of the call"));
        }));
        assert!(unwound.is_err());
        assert_eq!(write_to(outer_loan.as_ptr(), "outer"), abi::OK);
        drop(outer_loan);
        assert_eq!((outer.bytes.as_slice(), inner.bytes.as_slice()), (&b"outer"[..], &b""[..]));
    }

    #[test]
    fn numbers_are_never_used_twice_and_never_zero() {
        let fresh = || LEDGER.with(Ledger::fresh_number);
        let numbers = move || (0..1_000).map(|_| fresh()).collect::<Vec<_>>();
        let other = std::thread::spawn(numbers);
        let mut all = [numbers(), other.join().unwrap()].concat();
        // The end of a block begins another.
        LEDGER.with(|ledger| ledger.last.set((1 << COUNT_BITS) - 2));
        all.extend(numbers());
        assert!(all.iter().all(|number| *number != 0 && *number as usize & KINDS == 0));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
