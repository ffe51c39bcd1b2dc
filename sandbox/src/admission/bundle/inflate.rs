//! One raw deflate stream, piece by piece, never longer than was said.

use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// How much is inflated at a time, in bytes.
const CHUNK: usize = 32 << 10;

/// Why a stream was not inflated to its end.
#[derive(Debug)]
pub(super) enum Stop<E> {
    /// More or fewer bytes came out than the header says.
    Size,
    /// Not a whole deflate stream that fills its room.
    Stream(&'static str),
    /// Whoever takes the bytes would not.
    Taker(E),
}

/// Inflates `packed` to exactly `size` bytes. `take` is given each piece; a byte too many is never shown to it.
pub(super) fn inflate_exactly<E>(
    packed: &[u8],
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Stop<E>> {
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let mut buffer = vec![0; CHUNK];
    let (mut input, mut left) = (packed, size);
    loop {
        // One byte of room beyond the size, so that a longer stream is seen to be one.
        let room = usize::try_from(left.saturating_add(1)).unwrap_or(CHUNK).min(CHUNK);
        let output = buffer.get_mut(..room).unwrap_or_default();
        let step = inflate(&mut state, input, output, MZFlush::None);
        input = input.get(step.bytes_consumed..).unwrap_or_default();
        let piece = buffer.get(..step.bytes_written).unwrap_or_default();
        left = left.checked_sub(piece.len() as u64).ok_or(Stop::Size)?;
        if !piece.is_empty() {
            take(piece).map_err(Stop::Taker)?;
        }
        match step.status {
            Ok(MZStatus::StreamEnd) => break,
            Ok(_) if step.bytes_consumed == 0 && piece.is_empty() => {
                return Err(Stop::Stream("makes no progress"));
            }
            Ok(_) => {}
            Err(MZError::Buf) => return Err(Stop::Stream("ends before its last block")),
            Err(_) => return Err(Stop::Stream("is damaged")),
        }
    }
    if left != 0 {
        return Err(Stop::Size);
    }
    if !input.is_empty() {
        return Err(Stop::Stream("ends before its data do"));
    }
    Ok(())
}
