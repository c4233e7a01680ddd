//! Netstrings (`LENGTH:PAYLOAD,`), the frames of both Kamailio dialects.
//!
//! Reading is strict: no leading zero, no space, no line end between two frames. After a wrong length it is unknown
//! where the next frame begins, so the connection must end. A payload has at most [`NETSTRING_BYTES_MAX`] bytes.

use std::io::Write as _;

use crate::decision::ErrorReason;
use crate::limits::NETSTRING_BYTES_MAX;

/// Number of digits of the longest length.
const LENGTH_DIGITS_MAX: usize = 4;

const _: () = assert!(NETSTRING_BYTES_MAX < 10_000, "four digits hold every length");

/// What the input begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame<'buf> {
    /// An incomplete frame.
    More,
    /// A complete frame.
    Whole {
        /// The bytes between `:` and `,`.
        payload: &'buf [u8],
        /// Length of the frame in bytes.
        consumed: usize,
    },
    /// Not a frame; the connection must end, for this reason.
    Broken(ErrorReason),
}

/// Reads the frame at the start of `input`.
pub(super) fn read(input: &[u8]) -> Frame<'_> {
    let malformed = Frame::Broken(ErrorReason::Malformed);
    let digits = input.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let length = input.get(..digits).unwrap_or_default();
    if length.len() > 1 && length.first() == Some(&b'0') {
        return malformed;
    }
    if length.len() > LENGTH_DIGITS_MAX {
        return Frame::Broken(ErrorReason::TooLong);
    }
    let bytes = length
        .iter()
        .fold(0_usize, |sum, digit| sum.saturating_mul(10).saturating_add(usize::from(digit.saturating_sub(b'0'))));
    if bytes > NETSTRING_BYTES_MAX {
        return Frame::Broken(ErrorReason::TooLong);
    }
    let start = digits.saturating_add(1);
    let end = start.saturating_add(bytes);
    match input.get(digits) {
        None => return Frame::More,
        Some(b':') if digits > 0 => {}
        Some(_) => return malformed,
    }
    match (input.get(start..end), input.get(end)) {
        (Some(payload), Some(b',')) => Frame::Whole { payload, consumed: end.saturating_add(1) },
        (Some(_), Some(_)) => malformed,
        _ => Frame::More,
    }
}

/// Length in bytes of the complete frames at the start of `output`, which is our own output.
pub(super) fn complete_frames_length(output: &[u8]) -> usize {
    let mut taken = 0_usize;
    loop {
        let rest = output.get(taken..).unwrap_or_default();
        let Some(colon) = memchr::memchr(b':', rest) else { return taken };
        let length = rest.get(..colon).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
        let Some(length) = length else { return taken };
        let end = taken.saturating_add(colon).saturating_add(length).saturating_add(2);
        if end > output.len() {
            return taken;
        }
        taken = end;
    }
}

/// Appends one frame, whose payload `write` appends. The length is rotated to the front, so nothing is copied twice.
pub(super) fn wrap(output: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = output.len();
    write(output);
    let payload_end = output.len();
    // Writing to a vector cannot fail.
    write!(output, "{}:", payload_end.saturating_sub(start)).ok();
    let prefix = output.len().saturating_sub(payload_end);
    if let Some(frame) = output.get_mut(start..) {
        frame.rotate_right(prefix);
    }
    output.push(b',');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_form_is_a_frame() {
        let whole = |payload: &'static [u8], consumed| Frame::Whole { payload, consumed };
        let (malformed, too_long) = (Frame::Broken(ErrorReason::Malformed), Frame::Broken(ErrorReason::TooLong));
        let cases: &[(&[u8], Frame<'_>)] = &[
            (b"0:,", whole(b"", 3)),
            (b"2:{},", whole(b"{}", 5)),
            (b"2:{},2:[],", whole(b"{}", 5)),
            (b"12:hello world!,", whole(b"hello world!", 16)),
            (b"", Frame::More),
            (b"1", Frame::More),
            (b"12:hello world!", Frame::More),
            (b"00:,", malformed),
            (b"02:{},", malformed),
            (b"00000:", malformed),
            (b":,", malformed),
            (b",", malformed),
            (b" 2:{},", malformed),
            (b"\n2:{},", malformed),
            (b"+2:{},", malformed),
            (b"-1:,", malformed),
            (b"2 :{},", malformed),
            (b"2:{};", malformed),
            (b"2:{}\n", malformed),
            (b"2:{}}", malformed),
            (b"\0\xffHELLO not a frame\r\n", malformed),
            (b"4097", too_long),
            (b"4097:", too_long),
            (b"9999999999999999999999999:", too_long),
            (b"4096", Frame::More),
        ];
        for (input, frame) in cases {
            assert_eq!(read(input), *frame, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn only_complete_frames_are_counted() {
        let cases: &[(&[u8], usize)] = &[
            (b"", 0),
            (b"1", 0),
            (b"1:", 0),
            (b"1:a", 0),
            (b"1:a,", 4),
            (b"1:a,1", 4),
            (b"1:a,2:bc,", 9),
            (b"0:,x", 3),
        ];
        for (output, length) in cases {
            assert_eq!(complete_frames_length(output), *length, "{}", output.escape_ascii());
        }
    }

    #[test]
    fn a_written_frame_reads_back() {
        for length in [0, 1, 9, 10, 99, 100, NETSTRING_BYTES_MAX] {
            let payload = vec![b','; length];
            let mut output = b"1:x,".to_vec();
            wrap(&mut output, |output| output.extend_from_slice(&payload));
            let frame = output.split_off(4);
            assert_eq!(output, b"1:x,");
            assert_eq!(read(&frame), Frame::Whole { payload: &payload, consumed: frame.len() });
            for end in 0..frame.len() {
                assert_eq!(read(&frame[..end]), Frame::More, "cut at {end}");
            }
        }
    }
}
